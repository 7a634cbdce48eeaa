/* Depthwise convolutions of floats for 32-bit NEON: windows of 3x3 and 5x5, two rows of outputs at
 * once, which share their loads.
 *
 * vmla reads weights by lane. Compilers use that only with relaxed floating-point rules.
 */
#include "float_rows.h"
#include "float_three_neon.h"

#define DEPTHWISE(what) micro_float_depthwise_neon_##what

enum {
    BAND = 8192, /* floats in a band: rows of the map with their border */
    L1_BAND = 4096, /* floats in a band that stay in the first-level cache */
    ROW_PADDING = 3,  /* floats after a row that may be written */
    BAND_PADDING = 32, /* floats after a band that are read or written, but not used */
    MAX_WEIGHTS = 7, /* vectors of a window's weights */
};

/* Flags for the results. */
enum {
    LOWER_BOUND = 2, /* clamp to at least bounds[0] */
    UPPER_BOUND = 4,  /* clamp to at most bounds[1] */
};

typedef float32x4_t four;

typedef struct {
    const micro_window *window;
    const float *weights, *bias, *bounds;
    int columns; /* per row of a band, or per phase of two */
} depthwise_plane;

/* The weights of a window, by lane. */
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
/* Load the current vector, and advance by a number of bytes. */
#define LOAD(q, by) "vld1.32 {q" #q "}, [%[at]], %[" #by "]\n"
/* A row's vectors are loaded two steps ahead: columns 0 to 4, or with stride 2 columns 0, 2, 4, 1,
   3. */
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
#define FIVE_BY_FIVE_SPLIT \
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

/* Distances in bytes between vectors of a band: at the end of a phase or of the columns, at the end
 * of a row, and from the last vector to the next four columns. */
typedef struct {
    int turn, next, back;
} band_steps;

static band_steps compute_steps(int stride, int columns)
{
    int row = columns * (int)sizeof(float), last = (4 + stride) * stride * row;
    if (stride == 1)
        return (band_steps){4, row - 16, -last};
    return (band_steps){row - 8, row - 4, 12 - last - row};
}

/* Add the products of four columns to the sums of two rows, and advance to the next four; `stride`
 * is a constant of each call. */
ALWAYS_INLINE void add_products(const four *weights, const float **at, const band_steps *s,
                                four *sums, int stride)
{
    if (stride == 1)
        SUM(FIVE_BY_FIVE);
    else
        SUM(FIVE_BY_FIVE_SPLIT);
}

ALWAYS_INLINE void sum_rows(const depthwise_plane *p, const float *band, float *above, float *below,
                            int stride, int flags)
{
    int width = p->window->out_width;
    band_steps steps = compute_steps(stride, p->columns);
    four weights[MAX_WEIGHTS], bias = vdupq_n_f32(*p->bias);
    four lower = vdupq_n_f32(p->bounds[0]), upper = vdupq_n_f32(p->bounds[1]);
    UNROLL
    for (int v = 0; v < MAX_WEIGHTS; v++)
        weights[v] = vld1q_f32(p->weights + 4 * v);
    for (int x = 0;;) {
        four sums[] = {bias, bias};
        add_products(weights, &band, &steps, sums, stride);
        UNROLL
        for (int i = 0; i < 2; i++) {
            if (flags & LOWER_BOUND)
                sums[i] = vmaxq_f32(sums[i], lower);
            if (flags & UPPER_BOUND)
                sums[i] = vminq_f32(sums[i], upper);
        }
        /* without a second row, both pointers are the same */
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

/* Compute the rows of a band in pairs; `add` computes one pair. Rows with fewer columns than `add`
 * writes go through a buffer. */
#define VARIANT(name, max_width, add) \
    static __attribute__((noinline)) void name(const depthwise_plane *p, const float *band, \
                                               float *y, int rows) \
    { \
        int width = p->window->out_width, stride = p->window->stride_x; \
        float tail[2][max_width]; \
        for (; rows > 0; rows -= 2, y += 2 * width, band += 2 * stride * stride * p->columns) { \
            float *above = y, *below = rows > 1 ? y + width : y; \
            if (width < (max_width)) { \
                above = tail[0]; \
                below = tail[1]; \
            } \
            add; \
            if (width < (max_width)) \
                memcpy(y, tail, sizeof *y * (size_t)width); \
            if (width < (max_width) && rows > 1) \
                memcpy(y + width, tail[1], sizeof *y * (size_t)width); \
        } \
    }
#define FIVE_ROWS(name, stride) \
    VARIANT(name##_unbounded, 4, sum_rows(p, band, above, below, stride, 0)) \
    VARIANT(name##_lower_bound, 4, sum_rows(p, band, above, below, stride, LOWER_BOUND)) \
    VARIANT(name##_both_bounds, 4, \
            sum_rows(p, band, above, below, stride, LOWER_BOUND | UPPER_BOUND))
FIVE_ROWS(five, 1)
FIVE_ROWS(five_stride2, 2)

/* A row of a band always has the elements that eight columns read. */
#define ROWS_OF(form, stride) \
    form(p->weights, p->bias, p->bounds, band, above, below, \
         (stride) * p->columns * (int)sizeof(float), micro_max(width, 8))
#define ROWS_OF_THREE(name, rows, stride) \
    VARIANT(name##_unbounded, 8, ROWS_OF(rows##_unbounded, stride)) \
    VARIANT(name##_lower_bound, 8, ROWS_OF(rows##_lower_bound, stride)) \
    VARIANT(name##_both_bounds, 8, ROWS_OF(rows##_both_bounds, stride))
ROWS_OF_THREE(three, stride1, 1)
ROWS_OF_THREE(three_stride2, stride2, 2)

typedef void (*rows_form)(const depthwise_plane *, const float *, float *, int);
#define FORMS(name) {name##_unbounded, name##_lower_bound, name##_both_bounds}
static const rows_form forms[2][2][3] = {{FORMS(three), FORMS(three_stride2)},
                                         {FORMS(five), FORMS(five_stride2)}};

/* Copy rows of at least four columns, with a zero on the left and at least one on the right. */
static void copy_padded(const float *row, int width, int rows, int columns, float *to)
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

/* Split rows of 2 * `pairs` columns, at least eight, into even and odd ones, with a zero on the
   left. */
static void split_padded(const float *row, int pairs, int rows, int columns, float *to)
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
            int back = micro_min(0, left - 4);
            float32x4x2_t pairs = vld2q_f32(from + 2 * back);
            vst1q_f32(odd + back, pairs.val[0]);
            vst1q_f32(even + back, pairs.val[1]);
        }
    }
}

/* Copy `rows` rows of the map from `y` on, with their border, to the band. */
static void read_band(const micro_window *w, const float *plane, int y, int rows, int columns,
                      float *band)
{
    int stride = w->stride_x, size = columns - ROW_PADDING;
    for (int i = 0; i < rows; i++, y++, band += stride * columns) {
        const float *row = plane + (ptrdiff_t)y * w->width;
        if (y < 0 || y >= w->height)
            memset(band, 0, sizeof *band * (size_t)(stride * columns));
        else if (stride == 1)
            copy_row(row, w->width, -w->left, size, band);
        else
            split_row(row, w->width, -w->left, size, band, band + columns);
    }
}

/* Like `read_band`, for a 3x3 window with a border of one column: the output has the map's size, or
 * half of it. */
static void read_padded_band(const micro_window *w, const float *plane, int y, int rows,
                             int columns, float *band)
{
    int pitch = w->stride_x * columns, first_row = micro_min(micro_max(0, -y), rows);
    int end_row = micro_max(first_row, micro_min(rows, w->height - y));
    fill_zeros(band, 0, first_row * pitch);
    plane += (ptrdiff_t)(y + first_row) * w->width;
    if (w->stride_x == 1)
        copy_padded(plane, w->width, end_row - first_row, columns, band + first_row * pitch);
    else
        split_padded(plane, w->out_width, end_row - first_row, columns, band + first_row * pitch);
    fill_zeros(band, end_row * pitch, rows * pitch);
}

/* One filter's plane. Weights: those of the window, padded to full vectors. */
int32_t DEPTHWISE(plane)(const float *map, const float *weights, const float *bias,
                         const float *bounds, float *y, const int32_t *window, int flags)
{
    const micro_window *w = (const micro_window *)window;
    int side = w->kernel_width, stride = w->stride_x;
    int is_padded = side == 3 && w->left == 1 && w->width == stride * w->out_width &&
                    w->out_width >= 4;
    depthwise_plane p = {.window = w, .weights = weights, .bias = bias, .bounds = bounds};
    p.columns = micro_max(w->out_width, side == 3 ? 8 : 4) + (side - 1) / stride + ROW_PADDING;
    /* at least two rows of the output */
    int fit = L1_BAND / (stride * p.columns) - side, height = micro_max(2, fit / stride / 2 * 2);
    float band[BAND + BAND_PADDING];
    rows_form form = forms[side == 5][stride == 2][flags == 0 ? 0 : flags == LOWER_BOUND ? 1 : 2];
    for (int top = 0; top < w->out_height; top += height) {
        int rows = micro_min(height, w->out_height - top), from = top * stride - w->top;
        int row_count = (rows + 1) / 2 * 2 * stride + side - stride;
        if (is_padded)
            read_padded_band(w, map, from, row_count, p.columns, band);
        else
            read_band(w, map, from, row_count, p.columns, band);
        form(&p, band, y + (ptrdiff_t)top * w->out_width, rows);
    }
    return 0;
}
