// The spectral norm of an infinite matrix, as in the Computer Language Benchmarks Game.

#include "../kernel.h"

enum { LENGTH = 500, STEPS = 5 };

static double u[LENGTH], v[LENGTH], between[LENGTH];

static void prepare(void) {
    for (int i = 0; i < LENGTH; i++) {
        u[i] = 1.0;
    }
}

static inline double element(int i, int j) {
    return 1.0 / ((i + j) * (i + j + 1) / 2 + i + 1);
}

static void multiply(const double *from, double *to) {
    for (int i = 0; i < LENGTH; i++) {
        double sum = 0;
        for (int j = 0; j < LENGTH; j++) {
            sum += element(i, j) * from[j];
        }
        to[i] = sum;
    }
}

static void multiply_transposed(const double *from, double *to) {
    for (int i = 0; i < LENGTH; i++) {
        double sum = 0;
        for (int j = 0; j < LENGTH; j++) {
            sum += element(j, i) * from[j];
        }
        to[i] = sum;
    }
}

static void run(void) {
    for (int step = 0; step < STEPS; step++) {
        multiply(u, between);
        multiply_transposed(between, v);
        multiply(v, between);
        multiply_transposed(between, u);
    }
}

static uint64_t checksum(void) {
    return sum_doubles(sum_doubles(NO_SUM, u, LENGTH), v, LENGTH);
}
