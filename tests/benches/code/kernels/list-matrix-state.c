// A mix similar to CoreMark: a linked list that is sorted and searched, products of matrices of small integers, a
// state machine that parses numbers, and CRC-16 over all results.

#include "../kernel.h"

enum { ITEMS = 400, SIDE = 40, TEXT = 4000, STEPS = 160 };

struct item {
    struct item *next;
    int16_t key, value;
};

static struct item items[ITEMS], *list;
static int16_t a[SIDE][SIDE], b[SIDE][SIDE];
static int32_t c[SIDE][SIDE];
static char text[TEXT];
static uint16_t crc;

static void prepare(void) {
    seed(66);
    list = NULL;
    for (int i = 0; i < ITEMS; i++) {
        items[i] = (struct item){ .next = list, .key = (int16_t)(random_u32() % 4096), .value = (int16_t)i };
        list = &items[i];
    }
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            a[i][j] = (int16_t)(random_u32() % 256);
            b[i][j] = (int16_t)(random_u32() % 256);
        }
    }
    static const char *const numbers[] = { "5012", "-874", "+122", "35.54400", ".1234500", "5.500e+3", "-.123e-2", "T0.3e-1F", "1T3.4e4z" };
    for (int at = 0; at < TEXT;) {
        const char *number = numbers[random_u32() % (sizeof numbers / sizeof *numbers)];
        for (; *number != 0 && at < TEXT; number++) {
            text[at++] = *number;
        }
        if (at < TEXT) {
            text[at++] = ',';
        }
    }
    crc = 0;
}

static void crc_of(uint32_t value) {
    for (int i = 0; i < 32; i++, value >>= 1) {
        crc = (uint16_t)(crc >> 1 ^ ((value ^ crc) & 1 ? 0xa001 : 0));
    }
}

static struct item *merge(struct item *one, struct item *other, int by_value) {
    struct item *first = NULL, **end = &first;
    while (one != NULL && other != NULL) {
        int before = by_value ? one->value <= other->value : one->key <= other->key;
        struct item **from = before ? &one : &other;
        *end = *from;
        end = &(*from)->next;
        *from = *end;
    }
    *end = one != NULL ? one : other;
    return first;
}

static struct item *sort(struct item *first, int count, int by_value) {
    if (count == 1) {
        first->next = NULL;
        return first;
    }
    struct item *middle = first;
    for (int i = 0; i < count / 2; i++) {
        middle = middle->next;
    }
    struct item *end = sort(middle, count - count / 2, by_value);
    return merge(sort(first, count / 2, by_value), end, by_value);
}

static void walk_list(int step) {
    list = sort(list, ITEMS, 0);
    for (int wanted = 0; wanted < 64; wanted++) {
        const struct item *item = list;
        while (item != NULL && item->key != ((wanted * 61 + step) & 4095)) {
            item = item->next;
        }
        crc_of(item != NULL ? (uint32_t)item->value : UINT32_MAX);
    }
    list = sort(list, ITEMS, 1);
    list->key ^= (int16_t)(step & 7);
}

static void multiply(int step) {
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            int32_t sum = 0;
            for (int k = 0; k < SIDE; k++) {
                int32_t product = (int32_t)a[i][k] * (int32_t)b[k][j];
                sum += (product >> 2 & 0x0f) * (product >> 5 & 0x7f);
            }
            c[i][j] = sum;
        }
    }
    uint32_t sum = 0;
    for (int i = 0; i < SIDE; i++) {
        for (int j = 0; j < SIDE; j++) {
            sum += (uint32_t)c[i][j];
            a[i][j] = (int16_t)((a[i][j] + step) & 0xff);
        }
    }
    crc_of(sum);
}

enum state { START, SIGN, INTEGER, POINT, FRACTION, EXPONENT, EXPONENT_SIGN, SCIENTIFIC, INVALID, STATES };

static enum state next_state(enum state state, char byte) {
    int digit = byte >= '0' && byte <= '9';
    switch (state) {
    case START:
        return digit ? INTEGER : byte == '+' || byte == '-' ? SIGN : byte == '.' ? POINT : INVALID;
    case SIGN:
        return digit ? INTEGER : byte == '.' ? POINT : INVALID;
    case INTEGER:
        return digit ? INTEGER : byte == '.' ? FRACTION : byte == 'e' ? EXPONENT : INVALID;
    case POINT:
    case FRACTION:
        return digit ? FRACTION : byte == 'e' ? EXPONENT : INVALID;
    case EXPONENT:
        return digit ? SCIENTIFIC : byte == '+' || byte == '-' ? EXPONENT_SIGN : INVALID;
    case EXPONENT_SIGN:
    case SCIENTIFIC:
        return digit ? SCIENTIFIC : INVALID;
    default:
        return INVALID;
    }
}

static void read_numbers(int step) {
    uint32_t ends[STATES] = { 0 };
    enum state state = START;
    for (int i = 0; i < TEXT; i++) {
        if (text[i] == ',') {
            ends[state]++;
            state = START;
        } else {
            state = next_state(state, text[i]);
        }
    }
    for (int i = 0; i < STATES; i++) {
        crc_of(ends[i]);
    }
    // Changes some of the numbers, and may make them invalid.
    for (int i = step; i < TEXT; i += 97) {
        text[i] = text[i] == ',' ? ',' : (char)(text[i] ^ 1);
    }
}

static void run(void) {
    for (int step = 1; step <= STEPS; step++) {
        walk_list(step);
        multiply(step);
        read_numbers(step);
    }
}

static uint64_t checksum(void) {
    return sum_u64(NO_SUM, crc);
}
