// Correlations of all columns of a table, as in PolyBench/C: the innermost loops run along columns.

#include "../kernel.h"

#include <math.h>

enum { COLUMNS = 240, ROWS = 260 };

static double data[ROWS][COLUMNS], corr[COLUMNS][COLUMNS], mean[COLUMNS], deviation[COLUMNS];

static void prepare(void) {
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < COLUMNS; j++) {
            data[i][j] = (double)(i * j) / COLUMNS + i;
        }
    }
}

static void run(void) {
    for (int j = 0; j < COLUMNS; j++) {
        mean[j] = 0.0;
        for (int i = 0; i < ROWS; i++) {
            mean[j] += data[i][j];
        }
        mean[j] /= ROWS;
    }
    for (int j = 0; j < COLUMNS; j++) {
        deviation[j] = 0.0;
        for (int i = 0; i < ROWS; i++) {
            deviation[j] += (data[i][j] - mean[j]) * (data[i][j] - mean[j]);
        }
        deviation[j] = sqrt(deviation[j] / ROWS);
        deviation[j] = deviation[j] <= 0.1 ? 1.0 : deviation[j];
    }
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < COLUMNS; j++) {
            data[i][j] -= mean[j];
            data[i][j] /= sqrt((double)ROWS) * deviation[j];
        }
    }
    for (int i = 0; i < COLUMNS - 1; i++) {
        corr[i][i] = 1.0;
        for (int j = i + 1; j < COLUMNS; j++) {
            corr[i][j] = 0.0;
            for (int k = 0; k < ROWS; k++) {
                corr[i][j] += data[k][i] * data[k][j];
            }
            corr[j][i] = corr[i][j];
        }
    }
    corr[COLUMNS - 1][COLUMNS - 1] = 1.0;
}

static uint64_t checksum(void) {
    return sum_doubles(NO_SUM, &corr[0][0], COLUMNS * COLUMNS);
}
