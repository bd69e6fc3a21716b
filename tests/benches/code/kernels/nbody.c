// The motion of five planets, as in the Computer Language Benchmarks Game.

#include "../kernel.h"

#include <math.h>

enum { BODIES = 5, STEPS = 200000 };

struct body {
    double x, y, z, vx, vy, vz, mass;
};

static struct body bodies[BODIES];

static void prepare(void) {
    seed(5);
    for (int i = 0; i < BODIES; i++) {
        double values[7];
        for (int j = 0; j < 7; j++) {
            values[j] = random_u32() / 4294967296.0;
        }
        // The bodies are far apart and slow, and one is heavier than all others together.
        bodies[i] = (struct body){
            .x = (values[0] - 0.5) * 10 + 10 * i,
            .y = (values[1] - 0.5) * 10,
            .z = values[2] - 0.5,
            .vx = values[3] * 0.1,
            .vy = values[4] - 0.5,
            .vz = values[5] * 0.1,
            .mass = i == 0 ? 39.47841760435743 : values[6] * 0.04,
        };
    }
}

static void run(void) {
    const double dt = 0.001;
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < BODIES; i++) {
            struct body *one = &bodies[i];
            for (int j = i + 1; j < BODIES; j++) {
                struct body *other = &bodies[j];
                double dx = one->x - other->x, dy = one->y - other->y, dz = one->z - other->z;
                double squared = dx * dx + dy * dy + dz * dz;
                double magnitude = dt / (squared * sqrt(squared));
                one->vx -= dx * other->mass * magnitude;
                one->vy -= dy * other->mass * magnitude;
                one->vz -= dz * other->mass * magnitude;
                other->vx += dx * one->mass * magnitude;
                other->vy += dy * one->mass * magnitude;
                other->vz += dz * one->mass * magnitude;
            }
        }
        for (int i = 0; i < BODIES; i++) {
            bodies[i].x += dt * bodies[i].vx;
            bodies[i].y += dt * bodies[i].vy;
            bodies[i].z += dt * bodies[i].vz;
        }
    }
}

static uint64_t checksum(void) {
    return sum_doubles(NO_SUM, &bodies[0].x, BODIES * 7);
}
