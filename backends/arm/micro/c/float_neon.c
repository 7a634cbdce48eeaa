/* Matrix products of floats for 32-bit NEON: six filters by eight pixels.
 *
 * A panel has eight floats per tap. Weights are blocks of six filters, each (taps, 6); there is one
 * bias per filter. Both are padded with zeros to full blocks. A partial block multiplies two or
 * four filters.
 *
 * Sums need twelve of sixteen registers, pixels two and weights one and a half: 7 loads for 48
 * products, where 4x12 would need 8. In assembly, because compilers use vmla by lane only with
 * relaxed floating-point rules, and then spill the sums. No product waits for a load: the next tap
 * is loaded while the products of the current one are computed.
 */
#define FLOATS(what) micro_float_neon_##what
enum { FILTERS = 6, PIXELS = 8 };

#include "micro.h"
#include <arm_neon.h>

/* Load the input of eight pixels with stride 2 for three taps of a row: seventeen floats. */
static inline void load_three_taps(const float *from, float32x4_t (*taps)[2])
{
    float32x4x2_t low_pairs = vld2q_f32(from), high_pairs = vld2q_f32(from + 8);
    float32x4_t tail = vld1q_dup_f32(from + 16);
    for (int j = 0; j < 2; j++) {
        taps[j][0] = low_pairs.val[j];
        taps[j][1] = high_pairs.val[j];
    }
    taps[2][0] = vextq_f32(low_pairs.val[0], high_pairs.val[0], 1);
    taps[2][1] = vextq_f32(high_pairs.val[0], tail, 1);
}

/* Write it tap by tap. In assembly, because compilers make each address wait for the one before
   it. */
static inline void float_copy_full(const float *from, float *to)
{
    float *behind = to + 12;
    __asm__("vld2.32 {d16-d19}, [%[from]]\n vld2.32 {d20-d23}, [%[far]]\n"
            "vld1.32 {d28[], d29[]}, [%[last]]\n vext.32 q12, q8, q10, #1\n"
            "vst1.32 {d16-d17}, [%[to]]!\n vst1.32 {d22-d23}, [%[behind]]!\n"
            "vst1.32 {d20-d21}, [%[to]]!\n vst1.32 {d24-d25}, [%[behind]]!\n"
            "vext.32 q13, q10, q14, #1\n"
            "vst1.32 {d18-d19}, [%[to]]\n vst1.32 {d26-d27}, [%[behind]]\n"
            : [to] "+r"(to), [behind] "+r"(behind)
            : [from] "r"(from), [far] "r"(from + 8), [last] "r"(from + 16)
            : "q8", "q9", "q10", "q11", "q12", "q13", "q14", "memory");
}

/* Like `float_copy_full` for a tile that spans two rows: the first `split` pixels, fewer than
 * eight, read from `from`, the others from `next_row`. Writes seven floats too many. */
static inline void float_copy_split(const float *from, const float *next_row, int split, float *to)
{
    float32x4_t begin[3][2], end[3][2];
    load_three_taps(from, begin);
    load_three_taps(next_row, end);
    UNROLL
    for (int j = 0; j < 3; j++, to += 8) {
        vst1q_f32(to, begin[j][0]);
        vst1q_f32(to + 4, begin[j][1]);
        vst1q_f32(to + split, end[j][0]);
        vst1q_f32(to + split + 4, end[j][1]);
    }
}

/* Write a tile of 3x3 windows with stride 2 that are all inside of the map, in one or two rows of
 * the output; return whether the tile is of that kind. */
static inline int gather_3x3_stride_2(const micro_window *w, const float *map, float *panel,
                                      int first, int channels)
{
    int x = first % w->out_width, split = w->out_width - x, is_split = split < 8;
    int top = first / w->out_width * 2 - w->top, left = x * 2 - w->left;
    if (w->kernel_height != 3 || w->kernel_width != 3 || w->stride_y != 2 || w->stride_x != 2 ||
        w->dilation_y != 1 || w->dilation_x != 1)
        return 0;
    if (top < 0 || left < 0 || top + 3 + 2 * is_split > w->height)
        return 0;
    if (is_split ? w->left || w->width < 17 || 2 * w->out_width >= w->width : left + 17 > w->width)
        return 0;
    const float *from = map + (ptrdiff_t)top * w->width + left;
    ptrdiff_t width = w->width, next = (ptrdiff_t)w->height * width - 2 * width;
    for (; !is_split && channels; channels--, from += next, panel += 72) {
        float_copy_full(from, panel);
        float_copy_full(from += width, panel + 24);
        float_copy_full(from += width, panel + 48);
    }
    for (; channels; channels--, from += next + 2 * width)
        for (int i = 0; i < 3; i++, panel += 24) {
            const float *row = from + i * width, *next_row = row - left + 2 * width;
            float buffer[32];
            int is_last = channels == 1 && i == 2;
            float_copy_split(row, next_row, split, is_last ? buffer : panel);
            if (is_last)
                memcpy(panel, buffer, 24 * sizeof *buffer);
        }
    return 1;
}

#define FAST_GATHER gather_3x3_stride_2
#include "float_gather.h"

/* Flags for sums. */
enum {
    ADDS = 1,  /* start from the result's values, not from the bias */
    LOWER_BOUND = 2, /* clamp to at least bounds[0], which is not negative */
    UPPER_BOUND = 4,  /* clamp to at most bounds[1] */
};

typedef struct {
    const float *panel, *weights, *bias, *bounds;
    int pitch, taps, flags;
} float_block;

/* Apply `what` to the sums of two filters: two vectors each, or one for four pixels. */
#define PAIR_1(what) what(q4, q5, d4[0]) what(q6, q7, d4[1])
#define PAIR_2(what) what(q8, q9, d5[0]) what(q10, q11, d5[1])
#define PAIR_3(what) what(q12, q13, d6[0]) what(q14, q15, d6[1])
#define FILTERS_2(what) PAIR_1(what)
#define FILTERS_4(what) PAIR_1(what) PAIR_2(what)
#define FILTERS_6(what) PAIR_1(what) PAIR_2(what) PAIR_3(what)

#define MUL_LEFT(a, b, w) "vmla.f32 " #a ", q0, " #w "\n"
#define MUL_RIGHT(a, b, w) "vmla.f32 " #b ", q1, " #w "\n"
#define BEGIN_8(a, b, w) "vdup.32 " #a ", " #w "\n vdup.32 " #b ", " #w "\n"
#define BEGIN_4(a, b, w) "vdup.32 " #a ", " #w "\n"
#define READ_8(a, b, w) "vld1.32 {" #a ", " #b "}, [%[from]], %[plane]\n"
#define READ_4(a, b, w) "vld1.32 {" #a "}, [%[from]], %[plane]\n"
/* Floats below zero are also below zero as integers, and integer comparisons take half the time.
 * NaN is NEON's default NaN, which is above all numbers. */
#define CLAMP_LOW_8(a, b, w) "vmax.s32 " #a ", " #a ", q0\n vmax.s32 " #b ", " #b ", q0\n"
#define CLAMP_LOW_4(a, b, w) "vmax.s32 " #a ", " #a ", q0\n"
#define CLAMP_HIGH_8(a, b, w) "vmin.f32 " #a ", " #a ", q1\n vmin.f32 " #b ", " #b ", q1\n"
#define CLAMP_HIGH_4(a, b, w) "vmin.f32 " #a ", " #a ", q1\n"
#define WRITE_8(a, b, w) "vst1.32 {" #a ", " #b "}, [%[to]], %[plane]\n"
#define WRITE_4(a, b, w) "vst1.32 {" #a "}, [%[to]], %[plane]\n"

#define LOAD_LEFT "vld1.32 {d0-d1}, [%[panel]]!\n"
#define LOAD_RIGHT "vld1.32 {d2-d3}, [%[panel]], %[rest]\n"
#define LOAD_FOUR "vld1.32 {d0-d1}, [%[panel]], %[rest]\n"
#define COUNT "subs %[taps], %[taps], #1\n"
#define WEIGHTS_2 "vld1.32 {d4}, [%[weights]], %[block]\n"
#define WEIGHTS_4 "vld1.32 {d4-d5}, [%[weights]], %[block]\n"
#define WEIGHTS_6 "vld1.32 {d4-d6}, [%[weights]]!\n"
#define WEIGHT(d) "vld1.32 {" #d "}, [%[weights]]!\n"

/* The products of a tap, while the next tap's pixels and weights are loaded; and of the last
   tap. */
#define TAP_8_2 LOAD_RIGHT PAIR_1(MUL_LEFT) LOAD_LEFT COUNT PAIR_1(MUL_RIGHT) WEIGHTS_2
#define TAP_8_4 \
    PAIR_1(MUL_LEFT) LOAD_RIGHT PAIR_2(MUL_LEFT) LOAD_LEFT COUNT PAIR_1(MUL_RIGHT) \
    PAIR_2(MUL_RIGHT) WEIGHTS_4
#define TAP_8_6 \
    PAIR_1(MUL_LEFT) LOAD_RIGHT PAIR_2(MUL_LEFT) PAIR_3(MUL_LEFT) LOAD_LEFT PAIR_1(MUL_RIGHT) \
    WEIGHT(d4) COUNT PAIR_2(MUL_RIGHT) WEIGHT(d5) PAIR_3(MUL_RIGHT) WEIGHT(d6)
#define LAST_8(n) LOAD_RIGHT FILTERS_##n(MUL_LEFT) FILTERS_##n(MUL_RIGHT)
#define TAP_4_2 PAIR_1(MUL_LEFT) COUNT LOAD_FOUR WEIGHTS_2
#define TAP_4_4 PAIR_1(MUL_LEFT) PAIR_2(MUL_LEFT) COUNT LOAD_FOUR WEIGHTS_4
#define TAP_4_6 \
    PAIR_1(MUL_LEFT) WEIGHT(d4) PAIR_2(MUL_LEFT) WEIGHT(d5) PAIR_3(MUL_LEFT) LOAD_FOUR COUNT \
    WEIGHT(d6)
#define LAST_4(n) FILTERS_##n(MUL_LEFT)
#define FIRST_8 LOAD_LEFT
#define FIRST_4 LOAD_FOUR

/* `n` filters for `p` pixels. */
#define BLOCK(p, n) \
    static inline void block_##p##_##n(const float_block *b, float *y, ptrdiff_t plane) \
    { \
        const float *panel = b->panel, *weights = b->weights, *bias = b->bias, *from = y; \
        int taps = b->taps; \
        __asm__ volatile( \
            "tst %[flags], #1\n bne 1f\n" \
            "vld1.32 {d4-d6}, [%[bias]]\n" FILTERS_##n(BEGIN_##p) "b 2f\n" \
            "1:\n" FILTERS_##n(READ_##p) \
            "2:\n" FIRST_##p WEIGHTS_##n COUNT "beq 4f\n" \
            "3:\n" TAP_##p##_##n "bne 3b\n" \
            "4:\n" LAST_##p(n) \
            "tst %[flags], #2\n beq 5f\n" \
            "vld1.32 {d0[], d1[]}, [%[bounds]]\n" FILTERS_##n(CLAMP_LOW_##p) \
            "5:\n tst %[flags], #4\n beq 6f\n add %[from], %[bounds], #4\n" \
            "vld1.32 {d2[], d3[]}, [%[from]]\n" FILTERS_##n(CLAMP_HIGH_##p) \
            "6:\n" FILTERS_##n(WRITE_##p) \
            : [panel] "+r"(panel), [weights] "+r"(weights), [taps] "+r"(taps), [from] "+r"(from), \
              [to] "+r"(y) \
            : [bias] "r"(bias), [flags] "r"(b->flags), [bounds] "r"(b->bounds), \
              [plane] "r"(plane * 4), [rest] "r"(b->pitch * 4 - (p == 8 ? 16 : 0)), \
              [block] "r"(FILTERS * 4) \
            : "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q12", \
              "q13", "q14", "q15", "cc", "memory"); \
    }
BLOCK(8, 6)
BLOCK(8, 4)
BLOCK(8, 2)
BLOCK(4, 6)
BLOCK(4, 4)
BLOCK(4, 2)

#define WIDE(p, filters, b, y, plane) \
    do { \
        if ((filters) > 4) \
            block_##p##_6(b, y, plane); \
        else if ((filters) > 2) \
            block_##p##_4(b, y, plane); \
        else \
            block_##p##_2(b, y, plane); \
    } while (0)

/* A partial block, at the last filter or pixel. */
static __attribute__((noinline)) void sum_partial_block(const float_block *b, float *y,
                                                        ptrdiff_t plane, int filters, int count)
{
    float block[FILTERS][PIXELS] = {{0}};
    size_t size = sizeof *y * (size_t)count;
    if (b->flags & ADDS)
        for (int i = 0; i < filters; i++)
            memcpy(block[i], y + i * plane, size);
    if (count <= 4)
        WIDE(4, filters, b, block[0], PIXELS);
    else
        WIDE(8, filters, b, block[0], PIXELS);
    for (int i = 0; i < filters; i++)
        memcpy(y + i * plane, block[i], size);
}

/* Sum some taps of `filters` filters for the first `count` pixels of a panel. Taps of the panel are
 * `pitch` floats apart, planes of filters `plane` floats, weights of blocks `block` floats. */
int32_t FLOATS(sums)(const float *panel, int pitch, const float *weights, const float *bias,
                     const float *bounds, float *y, int taps, int block, int filters, int plane,
                     int count, int flags)
{
    float_block b = {panel, weights, bias, bounds, pitch, taps, flags};
    int is_full = count == PIXELS;
    for (; filters >= FILTERS && is_full; filters -= FILTERS, y += FILTERS * (ptrdiff_t)plane) {
        block_8_6(&b, y, plane);
        b.weights += block;
        b.bias += FILTERS;
    }
    if (is_full && filters == 4)
        block_8_4(&b, y, plane);
    else if (is_full && filters == 2)
        block_8_2(&b, y, plane);
    else
        for (; filters > 0; filters -= FILTERS, y += FILTERS * (ptrdiff_t)plane) {
            sum_partial_block(&b, y, plane, micro_min(FILTERS, filters), count);
            b.weights += block;
            b.bias += FILTERS;
        }
    return 0;
}
