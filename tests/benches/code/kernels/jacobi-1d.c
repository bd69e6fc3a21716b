// A three-point stencil, as in PolyBench/C.

#include "../kernel.h"

enum { LENGTH = 4000, STEPS = 4000 };

static double a[LENGTH], b[LENGTH];

static void prepare(void) {
    for (int i = 0; i < LENGTH; i++) {
        a[i] = ((double)i + 2) / LENGTH;
        b[i] = ((double)i + 3) / LENGTH;
    }
}

static void run(void) {
    for (int t = 0; t < STEPS; t++) {
        for (int i = 1; i < LENGTH - 1; i++) {
            b[i] = 0.33333 * (a[i - 1] + a[i] + a[i + 1]);
        }
        for (int i = 1; i < LENGTH - 1; i++) {
            a[i] = 0.33333 * (b[i - 1] + b[i] + b[i + 1]);
        }
    }
}

static uint64_t checksum(void) {
    return sum_doubles(NO_SUM, a, LENGTH);
}
