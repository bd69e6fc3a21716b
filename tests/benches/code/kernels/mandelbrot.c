// The Mandelbrot set as an image with one bit per pixel, as in the Computer Language Benchmarks Game.

#include "../kernel.h"

enum { SIDE = 400, STEPS = 50 };

static uint8_t picture[SIDE][SIDE / 8];

static void prepare(void) {
    memset(picture, 0, sizeof picture);
}

static void run(void) {
    for (int y = 0; y < SIDE; y++) {
        double ci = 2.0 * y / SIDE - 1.0;
        for (int x = 0; x < SIDE; x++) {
            double cr = 2.0 * x / SIDE - 1.5, zr = 0, zi = 0, tr = 0, ti = 0;
            int steps = 0;
            while (steps < STEPS && tr + ti <= 4.0) {
                zi = 2.0 * zr * zi + ci;
                zr = tr - ti + cr;
                tr = zr * zr;
                ti = zi * zi;
                steps++;
            }
            if (tr + ti <= 4.0) {
                picture[y][x / 8] |= (uint8_t)(0x80 >> x % 8);
            }
        }
    }
}

static uint64_t checksum(void) {
    return sum_bytes(NO_SUM, picture, sizeof picture);
}
