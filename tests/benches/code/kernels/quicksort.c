// Quicksort of numbers with insertion sort for short parts; recursive, without indirect calls.

#include "../kernel.h"

enum { LENGTH = 250000, SHORT = 12 };

static int32_t numbers[LENGTH];

static void prepare(void) {
    seed(7);
    for (int i = 0; i < LENGTH; i++) {
        numbers[i] = (int32_t)random_u32();
    }
}

static void insertion_sort(int32_t *first, int32_t count) {
    for (int32_t i = 1; i < count; i++) {
        int32_t number = first[i], at = i;
        for (; at > 0 && first[at - 1] > number; at--) {
            first[at] = first[at - 1];
        }
        first[at] = number;
    }
}

static void sort(int32_t *first, int32_t count) {
    while (count > SHORT) {
        int32_t pivot = first[count / 2], low = 0, high = count - 1;
        while (low <= high) {
            while (first[low] < pivot) {
                low++;
            }
            while (first[high] > pivot) {
                high--;
            }
            if (low <= high) {
                int32_t kept = first[low];
                first[low++] = first[high];
                first[high--] = kept;
            }
        }
        // Recurse into the shorter part, so that the stack stays small.
        if (high + 1 < count - low) {
            sort(first, high + 1);
            first += low;
            count -= low;
        } else {
            sort(first + low, count - low);
            count = high + 1;
        }
    }
    insertion_sort(first, count);
}

static void run(void) {
    sort(numbers, LENGTH);
}

static uint64_t checksum(void) {
    return sum_bytes(NO_SUM, numbers, sizeof numbers);
}
