// Shortest paths between all nodes of a graph, as in PolyBench/C.

#include "../kernel.h"

enum { NODES = 320 };

static int32_t path[NODES][NODES];

static void prepare(void) {
    for (int i = 0; i < NODES; i++) {
        for (int j = 0; j < NODES; j++) {
            path[i][j] = i * j % 7 + 1;
            if ((i + j) % 13 == 0 || (i + j) % 7 == 0 || (i + j) % 11 == 0) {
                path[i][j] = 999;
            }
        }
    }
}

static void run(void) {
    for (int k = 0; k < NODES; k++) {
        for (int i = 0; i < NODES; i++) {
            for (int j = 0; j < NODES; j++) {
                int32_t around = path[i][k] + path[k][j];
                path[i][j] = path[i][j] < around ? path[i][j] : around;
            }
        }
    }
}

static uint64_t checksum(void) {
    return sum_bytes(NO_SUM, path, sizeof path);
}
