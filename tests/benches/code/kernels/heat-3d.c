// The heat equation in a cube, as in PolyBench/C.

#include "../kernel.h"

enum { LENGTH = 40, STEPS = 120 };

static double a[LENGTH][LENGTH][LENGTH], b[LENGTH][LENGTH][LENGTH];

static void prepare(void) {
    for (int i = 0; i < LENGTH; i++) {
        for (int j = 0; j < LENGTH; j++) {
            for (int k = 0; k < LENGTH; k++) {
                a[i][j][k] = b[i][j][k] = (double)(i + j + (LENGTH - k)) * 10 / LENGTH;
            }
        }
    }
}

static inline void step(double (*from)[LENGTH][LENGTH], double (*to)[LENGTH][LENGTH]) {
    for (int i = 1; i < LENGTH - 1; i++) {
        for (int j = 1; j < LENGTH - 1; j++) {
            for (int k = 1; k < LENGTH - 1; k++) {
                to[i][j][k] = 0.125 * (from[i + 1][j][k] - 2.0 * from[i][j][k] + from[i - 1][j][k])
                    + 0.125 * (from[i][j + 1][k] - 2.0 * from[i][j][k] + from[i][j - 1][k])
                    + 0.125 * (from[i][j][k + 1] - 2.0 * from[i][j][k] + from[i][j][k - 1])
                    + from[i][j][k];
            }
        }
    }
}

static void run(void) {
    for (int t = 0; t < STEPS; t++) {
        step(a, b);
        step(b, a);
    }
}

static uint64_t checksum(void) {
    return sum_doubles(NO_SUM, &a[0][0][0], LENGTH * LENGTH * LENGTH);
}
