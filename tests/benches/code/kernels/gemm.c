// C = alpha * A * B + beta * C, as in PolyBench/C: the innermost loop runs along rows.

#include "../kernel.h"

enum { ROWS = 320, COLUMNS = 352, INNER = 384 };

static double a[ROWS][INNER], b[INNER][COLUMNS], c[ROWS][COLUMNS];

static void prepare(void) {
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < COLUMNS; j++) {
            c[i][j] = (double)((i * j + 1) % ROWS) / ROWS;
        }
        for (int k = 0; k < INNER; k++) {
            a[i][k] = (double)(i * (k + 1) % INNER) / INNER;
        }
    }
    for (int k = 0; k < INNER; k++) {
        for (int j = 0; j < COLUMNS; j++) {
            b[k][j] = (double)(k * (j + 2) % COLUMNS) / COLUMNS;
        }
    }
}

static void run(void) {
    const double alpha = 1.5, beta = 1.2;
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < COLUMNS; j++) {
            c[i][j] *= beta;
        }
        for (int k = 0; k < INNER; k++) {
            for (int j = 0; j < COLUMNS; j++) {
                c[i][j] += alpha * a[i][k] * b[k][j];
            }
        }
    }
}

static uint64_t checksum(void) {
    return sum_doubles(NO_SUM, &c[0][0], ROWS * COLUMNS);
}
