// The frame of each kernel: measures itself and prints what it computed.
//
//     PROGRAM [REPEATS [cpu]]    prints "CHECKSUM NANOSECONDS"
//
// A kernel defines the three functions below. Only `run` is measured. It does the same work REPEATS times, and the
// shortest time counts, because interrupts and other programs only ever add time. The checksum covers every result of
// `run`, so that the program of each compiler can be required to compute the same bits. With `cpu` it measures the
// processor's time instead of the wall clock's, which other programs disturb less; wasmtime has no such clock.
//
// Kernels use no function of the C library whose result a standard leaves open (sqrt is exact) and no type whose size
// depends on the target, except pointers.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __wasm__
#include <wasi/api.h>
#endif

// Sets all inputs of `run`.
static void prepare(void);
// The work that is measured.
static void run(void);
// A checksum over all results of `run`.
static uint64_t checksum(void);

// A generator of numbers for inputs: xorshift64*, the same sequence after each `seed`.
static uint64_t random_state;

static inline void seed(uint64_t value) {
    random_state = value;
}

static inline uint32_t random_u32(void) {
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 0x2545f4914f6cdd1du) >> 32);
}

// FNV-1a, by words of 64 bits.
static inline uint64_t sum_u64(uint64_t sum, uint64_t value) {
    return (sum ^ value) * 0x100000001b3u;
}

static inline uint64_t sum_doubles(uint64_t sum, const double *values, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint64_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        sum = sum_u64(sum, bits);
    }
    return sum;
}

static inline uint64_t sum_bytes(uint64_t sum, const void *bytes, size_t count) {
    const uint8_t *next = bytes;
    for (size_t i = 0; i < count; i++) {
        sum = sum_u64(sum, next[i]);
    }
    return sum;
}

static const uint64_t NO_SUM = 0xcbf29ce484222325u;

static int64_t now(int cpu) {
#ifdef __wasm__
    __wasi_timestamp_t time;
    if (__wasi_clock_time_get(cpu ? __WASI_CLOCKID_PROCESS_CPUTIME_ID : __WASI_CLOCKID_MONOTONIC, 0, &time) == 0) {
        return (int64_t)time;
    }
#else
    struct timespec time;
    if (clock_gettime(cpu ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time) == 0) {
        return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
    }
#endif
    fputs("there is no such clock\n", stderr);
    exit(2);
}

// Not inlined, so that the compiler cannot know the inputs.
__attribute__((noinline)) static void prepare_once(void) {
    prepare();
    __asm__ volatile("" ::: "memory");
}

__attribute__((noinline)) static void run_once(void) {
    run();
    __asm__ volatile("" ::: "memory");
}

int main(int argc, char **argv) {
    int repeats = argc > 1 ? atoi(argv[1]) : 1;
    int cpu = argc > 2 && strcmp(argv[2], "cpu") == 0;
    int64_t best = INT64_MAX;
    uint64_t sum = 0;
    for (int i = 0; i < repeats; i++) {
        prepare_once();
        int64_t start = now(cpu);
        run_once();
        int64_t took = now(cpu) - start;
        uint64_t found = checksum();
        if (i > 0 && found != sum) {
            fputs("two runs of one program differ\n", stderr);
            return 3;
        }
        sum = found;
        if (took < best) {
            best = took;
        }
    }
    printf("%016llx %lld\n", (unsigned long long)sum, (long long)best);
    return 0;
}
