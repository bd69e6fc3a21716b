// Compression with references to earlier text (LZ77 with a hash of four bytes), and decompression.

#include "../kernel.h"

enum { LENGTH = 3 << 20, HASH_BITS = 14, SHORTEST = 4, LONGEST = 255 + SHORTEST, FARTHEST = 65535 };

static uint8_t text[LENGTH], packed[LENGTH * 2], unpacked[LENGTH];
static uint32_t last[1 << HASH_BITS], packed_length;

static void prepare(void) {
    static const char *const words[] = {
        "the ", "of ", "request ", "response ", "function ", "memory ", "instance ", "<div class=\"row\">", "</div>\n",
        "\"name\": ", "\"value\": ", "null, ", "true, ", "0x", "{\n", "}\n", "    ", "return ",
    };
    seed(77);
    for (uint32_t at = 0; at < LENGTH;) {
        const char *word = words[random_u32() % (sizeof words / sizeof *words)];
        for (; *word != 0 && at < LENGTH; word++) {
            text[at++] = (uint8_t)*word;
        }
        if (random_u32() % 4 == 0 && at < LENGTH) {
            text[at++] = (uint8_t)('0' + random_u32() % 10);
        }
    }
    memset(last, 0xff, sizeof last);
    memset(unpacked, 0, sizeof unpacked);
}

static uint32_t four_bytes(uint32_t at) {
    uint32_t value;
    memcpy(&value, text + at, sizeof value);
    return value;
}

// The output is either a byte 0 and a literal byte, or a byte 1, a length, and a two-byte distance.
static void pack(void) {
    uint8_t *to = packed;
    for (uint32_t at = 0; at < LENGTH;) {
        uint32_t length = 0, distance = 0;
        if (at + SHORTEST <= LENGTH) {
            uint32_t *place = &last[four_bytes(at) * 2654435761u >> (32 - HASH_BITS)];
            distance = at - *place;
            if (*place != UINT32_MAX && distance <= FARTHEST) {
                const uint8_t *earlier = text + *place;
                while (length < LONGEST && at + length < LENGTH && earlier[length] == text[at + length]) {
                    length++;
                }
            }
            *place = at;
        }
        if (length >= SHORTEST) {
            *to++ = 1;
            *to++ = (uint8_t)(length - SHORTEST);
            *to++ = (uint8_t)distance;
            *to++ = (uint8_t)(distance >> 8);
            at += length;
        } else {
            *to++ = 0;
            *to++ = text[at++];
        }
    }
    packed_length = (uint32_t)(to - packed);
}

static void unpack(void) {
    uint8_t *to = unpacked;
    for (const uint8_t *from = packed; from < packed + packed_length;) {
        if (*from++ == 0) {
            *to++ = *from++;
            continue;
        }
        uint32_t length = from[0] + SHORTEST;
        const uint8_t *earlier = to - (from[1] | (uint32_t)from[2] << 8);
        from += 3;
        for (uint32_t i = 0; i < length; i++) {
            *to++ = *earlier++;
        }
    }
}

static void run(void) {
    pack();
    unpack();
}

static uint64_t checksum(void) {
    uint64_t sum = sum_bytes(NO_SUM, packed, packed_length);
    return sum_u64(sum, memcmp(text, unpacked, LENGTH) == 0);
}
