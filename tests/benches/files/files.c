// Measures host calls from inside: `files read`, `files write FILE`, and as a guest also `files line`. As a function,
// it takes the same words from the request's path. The last line of output is in nanoseconds.

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef __wasm__
#include <wasi/api.h>
#endif

enum { BATCHES = 50, TIMES = 100 };

static void require(int holds, const char *what) {
    if (!holds) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static int64_t now(void) {
    struct timespec time;
    require(clock_gettime(CLOCK_MONOTONIC, &time) == 0, "clock_gettime");
    return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

// Nanoseconds per call, in the best batch.
static double best(void (*call)(void)) {
    int64_t best = INT64_MAX;
    for (int batch = 0; batch < BATCHES; batch++) {
        int64_t start = now();
        for (int i = 0; i < TIMES; i++) {
            call();
        }
        int64_t took = now() - start;
        best = took < best ? took : best;
    }
    return (double)best / TIMES;
}

static void read_file(void) {
    char bytes[4096];
    int file = open("some/directory/file", O_RDONLY);
    require(file >= 0, "open");
    require(read(file, bytes, sizeof bytes) == sizeof bytes, "read");
    require(close(file) == 0, "close");
}

// The first write of this instance, which therefore cannot be repeated.
static double write_once(const char *name) {
    int64_t start = now();
    int file = open(name, O_WRONLY);
    require(file >= 0, "open");
    require(lseek(file, 12345, SEEK_SET) == 12345, "lseek");
    require(write(file, "x", 1) == 1, "write");
    return (double)(now() - start);
}

#ifdef __wasm__
static void write_line(void) {
    static const char line[] = "hello, world\n";
    __wasi_ciovec_t buffer = { (const uint8_t *)line, sizeof line - 1 };
    __wasi_size_t written;
    errno = __wasi_fd_write(1, &buffer, 1, &written);
    require(errno == 0 && written == sizeof line - 1, "fd_write");
}

// A call that does nothing.
static void call_for_nothing(void) {
    static uint8_t byte;
    require(__wasi_random_get(&byte, 0) == 0, "random_get");
}
#endif

int main(int argc, char **argv) {
    const char *path = getenv("Http_Path");
    const char *what = argc > 1 ? argv[1] : path != NULL ? path + 1 : "";
    double nanoseconds;
    if (strcmp(what, "read") == 0) {
        nanoseconds = best(read_file);
    } else if (strcmp(what, "read-beside-changes") == 0) {
        int file = open("some/other", O_CREAT | O_WRONLY, 0644);
        require(file >= 0 && close(file) == 0, "open");
        nanoseconds = best(read_file);
    } else if (strncmp(what, "write-", 6) == 0) {
        nanoseconds = write_once(what + 6);
#ifdef __wasm__
    } else if (strcmp(what, "line") == 0) {
        nanoseconds = best(write_line);
    } else if (strcmp(what, "nothing") == 0) {
        nanoseconds = best(call_for_nothing);
#endif
    } else {
        fputs("usage: files read|read-beside-changes|write-FILE|line|nothing\n", stderr);
        return 2;
    }
    printf("%.1f\n", nanoseconds);
    return 0;
}
