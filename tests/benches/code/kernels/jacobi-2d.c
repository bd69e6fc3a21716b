// A five-point stencil, as in PolyBench/C.

#include "../kernel.h"

enum { LENGTH = 250, STEPS = 250 };

static double a[LENGTH][LENGTH], b[LENGTH][LENGTH];

static void prepare(void) {
    for (int i = 0; i < LENGTH; i++) {
        for (int j = 0; j < LENGTH; j++) {
            a[i][j] = ((double)i * (j + 2) + 2) / LENGTH;
            b[i][j] = ((double)i * (j + 3) + 3) / LENGTH;
        }
    }
}

static void run(void) {
    for (int t = 0; t < STEPS; t++) {
        for (int i = 1; i < LENGTH - 1; i++) {
            for (int j = 1; j < LENGTH - 1; j++) {
                b[i][j] = 0.2 * (a[i][j] + a[i][j - 1] + a[i][j + 1] + a[i + 1][j] + a[i - 1][j]);
            }
        }
        for (int i = 1; i < LENGTH - 1; i++) {
            for (int j = 1; j < LENGTH - 1; j++) {
                a[i][j] = 0.2 * (b[i][j] + b[i][j - 1] + b[i][j + 1] + b[i + 1][j] + b[i - 1][j]);
            }
        }
    }
}

static uint64_t checksum(void) {
    return sum_doubles(NO_SUM, &a[0][0], LENGTH * LENGTH);
}
