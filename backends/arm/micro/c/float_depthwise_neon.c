/* Depthwise convolutions of floats for 32-bit NEON: windows of 3x3 and 5x5, two rows of outputs at
 * once, so that what both read is loaded once.
 *
 * vmla reads weights by lane, which a compiler has only where it may round as it likes.
 */
#include "float_rows.h"
#include "float_three_neon.h"

#define DEPTHWISE(what) micro_float_depthwise_neon_##what

enum {
    BAND = 8192, /* numbers of a band: rows of the map with their border */
    NEAR = 4096, /* that lie well in a first cache beside the rest */
    BESIDE = 3,  /* numbers of a row that may be written beside it */
    BEHIND = 32, /* numbers behind a band that are read or written, and not used */
    MOST_WEIGHTS = 7, /* vectors of a window's weights */
};

/* What becomes of sums. */
enum {
    LEAST = 2, /* they are at least bounds[0] */
    MOST = 4,  /* they are at most bounds[1] */
};

typedef float32x4_t four;

typedef struct {
    const micro_window *window;
    const float *weights, *bias, *bounds;
    int columns; /* of a band's row, or of each of two that it is dealt into */
} depthwise_plane;

/* Weights of a window, by lane. */
#define V0 "%e[w0][0]"
#define V1 "%e[w0][1]"
#define V2 "%f[w0][0]"
#define V3 "%f[w0][1]"
#define V4 "%e[w1][0]"
#define V5 "%e[w1][1]"
#define V6 "%f[w1][0]"
#define V7 "%f[w1][1]"
#define V8 "%e[w2][0]"
#define V9 "%e[w2][1]"
#define V10 "%f[w2][0]"
#define V11 "%f[w2][1]"
#define V12 "%e[w3][0]"
#define V13 "%e[w3][1]"
#define V14 "%f[w3][0]"
#define V15 "%f[w3][1]"
#define V16 "%e[w4][0]"
#define V17 "%e[w4][1]"
#define V18 "%f[w4][0]"
#define V19 "%f[w4][1]"
#define V20 "%e[w5][0]"
#define V21 "%e[w5][1]"
#define V22 "%f[w5][0]"
#define V23 "%f[w5][1]"
#define V24 "%e[w6][0]"

/* Products of one vector for the row above, the row below, or both. */
#define ABOVE(q, w) "vmla.f32 %q[above], q" #q ", " w "\n"
#define BELOW(q, w) "vmla.f32 %q[below], q" #q ", " w "\n"
#define BOTH(q, w, v) ABOVE(q, w) BELOW(q, v)
/* The vector at hand, and then by how many bytes the next one lies behind it. */
#define LOAD(q, by) "vld1.32 {q" #q "}, [%[at]], %[" #by "]\n"
/* A row's vectors are loaded two steps ahead: columns 0 to 4, or dealt 0, 2, 4, 1, 3. */
#define FIVE_BEGIN LOAD(8, one) LOAD(9, one)
#define FIVE(a, b, c, d, e) \
    a LOAD(10, turn) b LOAD(11, one) c LOAD(12, next) d LOAD(8, one) e LOAD(9, one)
#define FIVE_LAST(a, b, c, d, e) a LOAD(10, turn) b LOAD(11, one) c LOAD(12, back) d e

/* clang-format off */
#define FIVE_BY_FIVE \
    FIVE_BEGIN \
    FIVE(ABOVE(8, V0), ABOVE(9, V1), ABOVE(10, V2), ABOVE(11, V3), ABOVE(12, V4)) \
    FIVE(BOTH(8, V5, V0), BOTH(9, V6, V1), BOTH(10, V7, V2), \
         BOTH(11, V8, V3), BOTH(12, V9, V4)) \
    FIVE(BOTH(8, V10, V5), BOTH(9, V11, V6), BOTH(10, V12, V7), \
         BOTH(11, V13, V8), BOTH(12, V14, V9)) \
    FIVE(BOTH(8, V15, V10), BOTH(9, V16, V11), BOTH(10, V17, V12), \
         BOTH(11, V18, V13), BOTH(12, V19, V14)) \
    FIVE(BOTH(8, V20, V15), BOTH(9, V21, V16), BOTH(10, V22, V17), \
         BOTH(11, V23, V18), BOTH(12, V24, V19)) \
    FIVE_LAST(BELOW(8, V20), BELOW(9, V21), BELOW(10, V22), BELOW(11, V23), BELOW(12, V24))
#define FIVE_BY_FIVE_DEALT \
    FIVE_BEGIN \
    FIVE(ABOVE(8, V0), ABOVE(9, V2), ABOVE(10, V4), ABOVE(11, V1), ABOVE(12, V3)) \
    FIVE(ABOVE(8, V5), ABOVE(9, V7), ABOVE(10, V9), ABOVE(11, V6), ABOVE(12, V8)) \
    FIVE(BOTH(8, V10, V0), BOTH(9, V12, V2), BOTH(10, V14, V4), \
         BOTH(11, V11, V1), BOTH(12, V13, V3)) \
    FIVE(BOTH(8, V15, V5), BOTH(9, V17, V7), BOTH(10, V19, V9), \
         BOTH(11, V16, V6), BOTH(12, V18, V8)) \
    FIVE(BOTH(8, V20, V10), BOTH(9, V22, V12), BOTH(10, V24, V14), \
         BOTH(11, V21, V11), BOTH(12, V23, V13)) \
    FIVE(BELOW(8, V15), BELOW(9, V17), BELOW(10, V19), BELOW(11, V16), BELOW(12, V18)) \
    FIVE_LAST(BELOW(8, V20), BELOW(9, V22), BELOW(10, V24), BELOW(11, V21), BELOW(12, V23))
/* clang-format on */

#define SUM(steps) \
    __asm__(steps \
            : [above] "+w"(sums[0]), [below] "+w"(sums[1]), [at] "+r"(*at) \
            : [one] "r"(4), [turn] "r"(s->turn), [next] "r"(s->next), [back] "r"(s->back), \
              [w0] "t"(weights[0]), [w1] "t"(weights[1]), [w2] "t"(weights[2]), \
              [w3] "t"(weights[3]), [w4] "t"(weights[4]), [w5] "t"(weights[5]), \
              [w6] "t"(weights[6]) \
            : "q8", "q9", "q10", "q11", "q12", "memory")

/* Bytes from some vectors of a band to the next in turn: where columns are dealt or end; where a
 * row ends; and from the last to the first four columns further on. */
typedef struct {
    int turn, next, back;
} band_steps;

static band_steps steps_of(int stride, int columns)
{
    int row = columns * (int)sizeof(float), last = (4 + stride) * stride * row;
    if (stride == 1)
        return (band_steps){4, row - 16, -last};
    return (band_steps){row - 8, row - 4, 12 - last - row};
}

/* Add the products of four columns to the sums of two rows, and step to the next four; `stride` is a
 * constant of each call. */
ALWAYS_INLINE void add_products(const four *weights, const float **at, const band_steps *s,
                                four *sums, int stride)
{
    if (stride == 1)
        SUM(FIVE_BY_FIVE);
    else
        SUM(FIVE_BY_FIVE_DEALT);
}

ALWAYS_INLINE void sum_rows(const depthwise_plane *p, const float *band, float *above, float *below,
                            int stride, int how)
{
    int width = p->window->out_width;
    band_steps steps = steps_of(stride, p->columns);
    four weights[MOST_WEIGHTS], bias = vdupq_n_f32(*p->bias);
    four least = vdupq_n_f32(p->bounds[0]), most = vdupq_n_f32(p->bounds[1]);
    UNROLL
    for (int v = 0; v < MOST_WEIGHTS; v++)
        weights[v] = vld1q_f32(p->weights + 4 * v);
    for (int x = 0;;) {
        four sums[] = {bias, bias};
        add_products(weights, &band, &steps, sums, stride);
        UNROLL
        for (int i = 0; i < 2; i++) {
            if (how & LEAST)
                sums[i] = vmaxq_f32(sums[i], least);
            if (how & MOST)
                sums[i] = vminq_f32(sums[i], most);
        }
        /* where there is no second row, both are the same */
        vst1q_f32(below + x, sums[1]);
        vst1q_f32(above + x, sums[0]);
        x += 4;
        if (x >= width)
            return;
        if (x > width - 4) { /* the last four overlap those before them */
            band -= x - (width - 4);
            x = width - 4;
        }
    }
}

/* Rows of a band one after another, in pairs; `add` computes a pair. Rows of fewer columns than are
 * written go another way. */
#define VARIANT(name, most, add) \
    static __attribute__((noinline)) void name(const depthwise_plane *p, const float *band, \
                                               float *y, int rows) \
    { \
        int width = p->window->out_width, stride = p->window->stride_x; \
        float some[2][most]; \
        for (; rows > 0; rows -= 2, y += 2 * width, band += 2 * stride * stride * p->columns) { \
            float *above = y, *below = rows > 1 ? y + width : y; \
            if (width < (most)) { \
                above = some[0]; \
                below = some[1]; \
            } \
            add; \
            if (width < (most)) \
                memcpy(y, some, sizeof *y * (size_t)width); \
            if (width < (most) && rows > 1) \
                memcpy(y + width, some[1], sizeof *y * (size_t)width); \
        } \
    }
#define FIVE_ROWS(name, stride) \
    VARIANT(name##_any, 4, sum_rows(p, band, above, below, stride, 0)) \
    VARIANT(name##_least, 4, sum_rows(p, band, above, below, stride, LEAST)) \
    VARIANT(name##_both, 4, sum_rows(p, band, above, below, stride, LEAST | MOST))
FIVE_ROWS(five, 1)
FIVE_ROWS(five_dealt, 2)

/* A row of a band has all that eight columns read, where there are fewer too. */
#define ROWS_OF(form, of) \
    form(p->weights, p->bias, p->bounds, band, above, below, \
         (of) * p->columns * (int)sizeof(float), micro_most(width, 8))
#define ROWS_OF_THREE(name, plain, of) \
    VARIANT(name##_any, 8, ROWS_OF(plain##_any, of)) \
    VARIANT(name##_least, 8, ROWS_OF(plain##_least, of)) \
    VARIANT(name##_both, 8, ROWS_OF(plain##_both, of))
ROWS_OF_THREE(three, plain, 1)
ROWS_OF_THREE(three_dealt, dealt, 2)

typedef void (*some_rows)(const depthwise_plane *, const float *, float *, int);
#define FORMS(name) {name##_any, name##_least, name##_both}
static const some_rows forms[2][2][3] = {{FORMS(three), FORMS(three_dealt)},
                                         {FORMS(five), FORMS(five_dealt)}};

/* Copy rows of at least four columns, with a zero to their left and at least one to their right. */
static void copy_between(const float *row, int width, int rows, int columns, float *to)
{
    four zeros = vdupq_n_f32(0);
    for (; rows > 0; rows--, row += width, to += columns) {
        const float *from = row;
        float *at = to + 1;
        int left = width;
        *to = 0;
        if (left >= 16)
            __asm__("1:\n vldm %[from]!, {d16-d23}\n sub %[left], %[left], #16\n"
                    "vstm %[at]!, {d16-d23}\n cmp %[left], #16\n bge 1b\n"
                    : [from] "+r"(from), [at] "+r"(at), [left] "+r"(left)
                    :
                    : "q8", "q9", "q10", "q11", "cc", "memory");
        for (; left >= 4; left -= 4, from += 4, at += 4)
            vst1q_f32(at, vld1q_f32(from));
        if (left) /* the last four overlap those before them */
            vst1q_f32(at + left - 4, vld1q_f32(from + left - 4));
        vst1q_f32(at + left, zeros);
    }
}

/* Deal rows of twice as many columns as there are pairs, at least four, with a zero to their left. */
static void deal_behind(const float *row, int pairs, int rows, int columns, float *to)
{
    for (; rows > 0; rows--, row += 2 * pairs, to += 2 * columns) {
        const float *from = row;
        float *even = to + 1, *odd = to + columns;
        int left = pairs;
        *to = 0;
        if (left >= 8)
            __asm__("1:\n vld2.32 {d16-d19}, [%[from]]!\n sub %[left], %[left], #8\n"
                    "vld2.32 {d20-d23}, [%[from]]!\n cmp %[left], #8\n"
                    "vst1.32 {d16-d17}, [%[odd]]!\n vst1.32 {d18-d19}, [%[even]]!\n"
                    "vst1.32 {d20-d21}, [%[odd]]!\n vst1.32 {d22-d23}, [%[even]]!\n bge 1b\n"
                    : [from] "+r"(from), [odd] "+r"(odd), [even] "+r"(even), [left] "+r"(left)
                    :
                    : "q8", "q9", "q10", "q11", "cc", "memory");
        for (; left > 0; left -= 4, from += 8, odd += 4, even += 4) {
            int back = micro_least(0, left - 4);
            float32x4x2_t both = vld2q_f32(from + 2 * back);
            vst1q_f32(odd + back, both.val[0]);
            vst1q_f32(even + back, both.val[1]);
        }
    }
}

/* Rows of the map from `y` on that rows of the output read, with their border. */
static void read_band(const micro_window *w, const float *plane, int y, int rows, int columns,
                      float *band)
{
    int stride = w->stride_x, size = columns - BESIDE;
    for (int i = 0; i < rows; i++, y++, band += stride * columns) {
        const float *row = plane + (ptrdiff_t)y * w->width;
        if (y < 0 || y >= w->height)
            memset(band, 0, sizeof *band * (size_t)(stride * columns));
        else if (stride == 1)
            copy_row(row, w->width, -w->left, size, band);
        else
            deal_row(row, w->width, -w->left, size, band, band + columns);
    }
}

/* The same for a border that is as wide as a window of 3x3 wants for results of the map's size, or of
 * half of it. */
static void read_usual_band(const micro_window *w, const float *plane, int y, int rows, int columns,
                            float *band)
{
    int pitch = w->stride_x * columns, first = micro_least(micro_most(0, -y), rows);
    int last = micro_most(first, micro_least(rows, w->height - y));
    fill_zeros(band, 0, first * pitch);
    plane += (ptrdiff_t)(y + first) * w->width;
    if (w->stride_x == 1)
        copy_between(plane, w->width, last - first, columns, band + first * pitch);
    else
        deal_behind(plane, w->out_width, last - first, columns, band + first * pitch);
    fill_zeros(band, last * pitch, rows * pitch);
}

/* One filter's plane. Weights: the window's, filled up to whole vectors. */
int32_t DEPTHWISE(plane)(const float *map, const float *weights, const float *bias,
                         const float *bounds, float *y, const int32_t *window, int how)
{
    const micro_window *w = (const micro_window *)window;
    int side = w->kernel_width, stride = w->stride_x;
    int usual = side == 3 && w->left == 1 && w->width == stride * w->out_width && w->out_width >= 4;
    depthwise_plane p = {.window = w, .weights = weights, .bias = bias, .bounds = bounds};
    p.columns = micro_most(w->out_width, side == 3 ? 8 : 4) + (side - 1) / stride + BESIDE;
    /* two rows of the output at least */
    int fit = NEAR / (stride * p.columns) - side, height = micro_most(2, fit / stride / 2 * 2);
    float band[BAND + BEHIND];
    some_rows form = forms[side == 5][stride == 2][how == 0 ? 0 : how == LEAST ? 1 : 2];
    for (int top = 0; top < w->out_height; top += height) {
        int rows = micro_least(height, w->out_height - top), from = top * stride - w->top;
        int read = (rows + 1) / 2 * 2 * stride + side - stride;
        if (usual)
            read_usual_band(w, map, from, read, p.columns, band);
        else
            read_band(w, map, from, read, p.columns, band);
        form(&p, band, y + (ptrdiff_t)top * w->out_width, rows);
    }
    return 0;
}
