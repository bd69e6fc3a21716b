// Flips of all permutations of nine numbers, as in the Computer Language Benchmarks Game.

#include "../kernel.h"

enum { NUMBERS = 9 };

static int32_t most_flips, sum;

static void prepare(void) {
    most_flips = sum = 0;
}

static int32_t flips(const int32_t *permutation) {
    int32_t copy[NUMBERS];
    for (int i = 0; i < NUMBERS; i++) {
        copy[i] = permutation[i];
    }
    int32_t count = 0;
    for (int32_t first = copy[0]; first != 0; first = copy[0]) {
        for (int32_t low = 0, high = first; low < high; low++, high--) {
            int32_t kept = copy[low];
            copy[low] = copy[high];
            copy[high] = kept;
        }
        count++;
    }
    return count;
}

static void run(void) {
    int32_t permutation[NUMBERS], rotations[NUMBERS];
    for (int i = 0; i < NUMBERS; i++) {
        permutation[i] = i;
        rotations[i] = 0;
    }
    for (int32_t number = 0;; number++) {
        int32_t count = flips(permutation);
        most_flips = count > most_flips ? count : most_flips;
        sum += number % 2 == 0 ? count : -count;
        // The next permutation rotates the shortest prefix that has not completed its rotations by one.
        int32_t length = 1;
        for (;; length++) {
            if (length == NUMBERS) {
                return;
            }
            int32_t first = permutation[0];
            for (int i = 0; i < length; i++) {
                permutation[i] = permutation[i + 1];
            }
            permutation[length] = first;
            if (++rotations[length] <= length) {
                break;
            }
            rotations[length] = 0;
        }
    }
}

static uint64_t checksum(void) {
    return sum_u64(sum_u64(NO_SUM, (uint64_t)most_flips), (uint64_t)sum);
}
