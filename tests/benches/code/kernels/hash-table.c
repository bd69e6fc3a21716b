// Counts words in a growing hash table with open addressing, and looks them up again.

#include "../kernel.h"

enum { WORDS = 200000, LENGTH = 12, FIRST_SLOTS = 16, MOST_SLOTS = 1 << 18 };

struct slot {
    uint32_t word;
    uint32_t count;
};

static char words[WORDS][LENGTH];
// The table and the larger one that it grows into, used alternately.
static struct slot storage[2][MOST_SLOTS];
static struct slot *slots;
static uint32_t slot_count, used;
static uint64_t found;

static void prepare(void) {
    seed(3);
    for (int i = 0; i < WORDS; i++) {
        // Some words are frequent, most are rare.
        uint32_t number = random_u32() >> (random_u32() % 24 + 8);
        memset(words[i], 0, LENGTH);
        for (int j = 0; j < LENGTH - 1 && number > 0; j++, number /= 26) {
            words[i][j] = (char)('a' + number % 26);
        }
    }
    slots = storage[0];
    slot_count = FIRST_SLOTS;
    used = 0;
    found = 0;
    memset(storage, 0, sizeof storage);
}

static uint32_t hash(const char *word) {
    uint32_t value = 0x811c9dc5;
    for (int i = 0; i < LENGTH && word[i] != 0; i++) {
        value = (value ^ (uint8_t)word[i]) * 0x01000193;
    }
    return value ^ value >> 15;
}

// The word's slot, or the empty slot where it belongs.
static struct slot *look_up(const char *word) {
    for (uint32_t at = hash(word);; at++) {
        struct slot *slot = &slots[at & (slot_count - 1)];
        if (slot->count == 0 || memcmp(words[slot->word], word, LENGTH) == 0) {
            return slot;
        }
    }
}

static void grow(void) {
    struct slot *old = slots;
    uint32_t old_count = slot_count;
    slots = old == storage[0] ? storage[1] : storage[0];
    slot_count *= 2;
    memset(slots, 0, slot_count * sizeof *slots);
    for (uint32_t i = 0; i < old_count; i++) {
        if (old[i].count > 0) {
            *look_up(words[old[i].word]) = old[i];
        }
    }
}

static void run(void) {
    for (uint32_t i = 0; i < WORDS; i++) {
        struct slot *slot = look_up(words[i]);
        if (slot->count++ == 0) {
            slot->word = i;
            if (++used * 4 > slot_count * 3) {
                grow();
            }
        }
    }
    for (uint32_t i = 0; i < WORDS; i++) {
        found = found * 31 + look_up(words[i])->count;
    }
}

static uint64_t checksum(void) {
    return sum_u64(sum_u64(NO_SUM, found), used);
}
