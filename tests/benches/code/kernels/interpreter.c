// A bytecode interpreter with a stack: a switch in a loop. Its program sieves prime numbers.

#include "../kernel.h"

enum { LIMIT = 240000, STACK = 16, LOCALS = 4 };

enum op { PUSH, GET, SET, ADD, MULTIPLY, LESS, JUMP, JUMP_IF_NOT, LOAD, STORE, END };

enum local { NUMBER, MULTIPLE, COUNT };

static const int32_t PROGRAM[] = {
    // 0: number = 2; count = 0
    PUSH, 2, SET, NUMBER, PUSH, 0, SET, COUNT,
    // 8: while number < LIMIT
    GET, NUMBER, PUSH, LIMIT, LESS, JUMP_IF_NOT, 67,
    // 15: if not memory[number]
    GET, NUMBER, LOAD, PUSH, 1, LESS, JUMP_IF_NOT, 58,
    // 23: count = count + 1; multiple = number * 2
    GET, COUNT, PUSH, 1, ADD, SET, COUNT, GET, NUMBER, PUSH, 2, MULTIPLY, SET, MULTIPLE,
    // 37: while multiple < LIMIT
    GET, MULTIPLE, PUSH, LIMIT, LESS, JUMP_IF_NOT, 58,
    // 44: memory[multiple] = 1; multiple = multiple + number
    PUSH, 1, GET, MULTIPLE, STORE, GET, MULTIPLE, GET, NUMBER, ADD, SET, MULTIPLE,
    // 56
    JUMP, 37,
    // 58: number = number + 1
    GET, NUMBER, PUSH, 1, ADD, SET, NUMBER, JUMP, 8,
    // 67
    END,
};

// Checks the size that the jump targets assume.
_Static_assert(sizeof PROGRAM / sizeof *PROGRAM == 68, "END is at 67");

static int32_t code[sizeof PROGRAM / sizeof *PROGRAM], memory[LIMIT], locals[LOCALS];

static void prepare(void) {
    memcpy(code, PROGRAM, sizeof PROGRAM);
    memset(memory, 0, sizeof memory);
    memset(locals, 0, sizeof locals);
}

static void run(void) {
    int32_t stack[STACK], *top = stack;
    for (const int32_t *next = code;;) {
        switch (*next++) {
        case PUSH:
            *top++ = *next++;
            break;
        case GET:
            *top++ = locals[*next++];
            break;
        case SET:
            locals[*next++] = *--top;
            break;
        case ADD:
            top--;
            top[-1] += top[0];
            break;
        case MULTIPLY:
            top--;
            top[-1] *= top[0];
            break;
        case LESS:
            top--;
            top[-1] = top[-1] < top[0];
            break;
        case JUMP:
            next = code + *next;
            break;
        case JUMP_IF_NOT:
            next = *--top ? next + 1 : code + *next;
            break;
        case LOAD:
            top[-1] = memory[top[-1]];
            break;
        case STORE:
            top -= 2;
            memory[top[1]] = top[0];
            break;
        case END:
            return;
        }
    }
}

static uint64_t checksum(void) {
    return sum_bytes(sum_u64(NO_SUM, (uint64_t)locals[COUNT]), memory, sizeof memory);
}
