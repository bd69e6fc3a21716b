// CRC-32 (IEEE 802.3) with a table, byte by byte.

#include "../kernel.h"

enum { LENGTH = 8 << 20 };

static uint8_t bytes[LENGTH];
static uint32_t table[256], crc;

static void prepare(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++) {
            value = value >> 1 ^ (value & 1 ? 0xedb88320 : 0);
        }
        table[i] = value;
    }
    seed(32);
    for (int i = 0; i < LENGTH; i++) {
        bytes[i] = (uint8_t)random_u32();
    }
}

static void run(void) {
    uint32_t value = UINT32_MAX;
    for (int i = 0; i < LENGTH; i++) {
        value = value >> 8 ^ table[(value ^ bytes[i]) & 0xff];
    }
    crc = ~value;
}

static uint64_t checksum(void) {
    return sum_u64(NO_SUM, crc);
}
