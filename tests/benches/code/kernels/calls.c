// Expression trees whose nodes contain a function pointer: indirect calls, recursion, and pointer chasing.

#include "../kernel.h"

enum { NODES = 4095, STEPS = 2000 };

struct node {
    int32_t (*value)(const struct node *, int32_t);
    const struct node *left, *right;
    int32_t number;
};

static struct node nodes[NODES];
static uint64_t total;

static int32_t number(const struct node *node, int32_t x) {
    return node->number + x;
}

static int32_t sum(const struct node *node, int32_t x) {
    return (int32_t)((uint32_t)node->left->value(node->left, x) + (uint32_t)node->right->value(node->right, x));
}

static int32_t product(const struct node *node, int32_t x) {
    return (int32_t)((uint32_t)node->left->value(node->left, x) * (uint32_t)node->right->value(node->right, x ^ 1));
}

static int32_t choice(const struct node *node, int32_t x) {
    int32_t left = node->left->value(node->left, x);
    return left & 1 ? left : node->right->value(node->right, left >> 8);
}

static int32_t shifted(const struct node *node, int32_t x) {
    return node->left->value(node->left, x) ^ node->right->value(node->right, x + node->number) >> 3;
}

static void prepare(void) {
    static int32_t (*const inner[])(const struct node *, int32_t) = { sum, product, choice, shifted };
    seed(9);
    for (int i = 0; i < NODES; i++) {
        nodes[i].number = (int32_t)(random_u32() >> 8);
        nodes[i].value = 2 * i + 2 < NODES ? inner[random_u32() % 4] : number;
        nodes[i].left = 2 * i + 2 < NODES ? &nodes[2 * i + 1] : NULL;
        nodes[i].right = 2 * i + 2 < NODES ? &nodes[2 * i + 2] : NULL;
    }
    total = 0;
}

static void run(void) {
    for (int step = 0; step < STEPS; step++) {
        total = total * 31 + (uint32_t)nodes[0].value(&nodes[0], step);
    }
}

static uint64_t checksum(void) {
    return sum_u64(NO_SUM, total);
}
