// Products modulo 2^255 - 19 in five limbs of 51 bits, as in ed25519 and X25519: 64x64-bit products with 128-bit
// results.

#include "../kernel.h"

enum { STEPS = 300000 };

typedef unsigned __int128 uint128_t;

static const uint64_t MASK = (UINT64_C(1) << 51) - 1;

static uint64_t x[5], y[5];

static void prepare(void) {
    seed(25519);
    for (int i = 0; i < 5; i++) {
        x[i] = ((uint64_t)random_u32() << 32 | random_u32()) & MASK;
        y[i] = ((uint64_t)random_u32() << 32 | random_u32()) & MASK;
    }
}

static void multiply(uint64_t *to, const uint64_t *a, const uint64_t *b) {
    uint64_t a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3], a4 = a[4];
    uint64_t b0 = b[0], b1 = b[1], b2 = b[2], b3 = b[3], b4 = b[4];
    uint64_t b1_19 = b1 * 19, b2_19 = b2 * 19, b3_19 = b3 * 19, b4_19 = b4 * 19;
    uint128_t c0 = (uint128_t)a0 * b0 + (uint128_t)a1 * b4_19 + (uint128_t)a2 * b3_19 + (uint128_t)a3 * b2_19
        + (uint128_t)a4 * b1_19;
    uint128_t c1 = (uint128_t)a0 * b1 + (uint128_t)a1 * b0 + (uint128_t)a2 * b4_19 + (uint128_t)a3 * b3_19
        + (uint128_t)a4 * b2_19;
    uint128_t c2 = (uint128_t)a0 * b2 + (uint128_t)a1 * b1 + (uint128_t)a2 * b0 + (uint128_t)a3 * b4_19
        + (uint128_t)a4 * b3_19;
    uint128_t c3 = (uint128_t)a0 * b3 + (uint128_t)a1 * b2 + (uint128_t)a2 * b1 + (uint128_t)a3 * b0
        + (uint128_t)a4 * b4_19;
    uint128_t c4 = (uint128_t)a0 * b4 + (uint128_t)a1 * b3 + (uint128_t)a2 * b2 + (uint128_t)a3 * b1
        + (uint128_t)a4 * b0;
    c1 += (uint64_t)(c0 >> 51);
    c2 += (uint64_t)(c1 >> 51);
    c3 += (uint64_t)(c2 >> 51);
    c4 += (uint64_t)(c3 >> 51);
    to[0] = ((uint64_t)c0 & MASK) + (uint64_t)(c4 >> 51) * 19;
    to[1] = ((uint64_t)c1 & MASK) + (to[0] >> 51);
    to[0] &= MASK;
    to[2] = (uint64_t)c2 & MASK;
    to[3] = (uint64_t)c3 & MASK;
    to[4] = (uint64_t)c4 & MASK;
}

static void run(void) {
    for (int step = 0; step < STEPS; step++) {
        multiply(x, x, y);
        multiply(y, y, y);
    }
}

static uint64_t checksum(void) {
    return sum_bytes(sum_bytes(NO_SUM, x, sizeof x), y, sizeof y);
}
