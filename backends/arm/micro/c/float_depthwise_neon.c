/* Depthwise convolutions of floats for 32-bit NEON: windows of 3x3 and 5x5, two rows of outputs at
 * once, so that what both read is loaded once.
 *
 * vmla reads weights by lane, which a compiler makes of no intrinsic here; see
 * float_neon_products.h.
 */
#include "float_rows.h"

#define DEPTHWISE(what) micro_float_depthwise_neon_##what

enum {
    BAND = 8192, /* numbers of a band: rows of the map with their border */
    NEAR = 4096, /* that lie well in a first cache beside the rest */
    BESIDE = 3,  /* numbers of a row that may be written beside it */
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
    const float *bounds;
    four weights[MOST_WEIGHTS], bias;
    int columns; /* of a band's row, or of each of two that it is dealt into */
} depthwise_plane;

/* Weights of a window, by lane. */
#define W0 "%e[w0][0]"
#define W1 "%e[w0][1]"
#define W2 "%f[w0][0]"
#define W3 "%f[w0][1]"
#define W4 "%e[w1][0]"
#define W5 "%e[w1][1]"
#define W6 "%f[w1][0]"
#define W7 "%f[w1][1]"
#define W8 "%e[w2][0]"
#define W9 "%e[w2][1]"
#define W10 "%f[w2][0]"
#define W11 "%f[w2][1]"
#define W12 "%e[w3][0]"
#define W13 "%e[w3][1]"
#define W14 "%f[w3][0]"
#define W15 "%f[w3][1]"
#define W16 "%e[w4][0]"
#define W17 "%e[w4][1]"
#define W18 "%f[w4][0]"
#define W19 "%f[w4][1]"
#define W20 "%e[w5][0]"
#define W21 "%e[w5][1]"
#define W22 "%f[w5][0]"
#define W23 "%f[w5][1]"
#define W24 "%e[w6][0]"

/* Products of one vector for the row above, the row below, or both. */
#define ABOVE(q, w) "vmla.f32 %q[above], q" #q ", " w "\n"
#define BELOW(q, w) "vmla.f32 %q[below], q" #q ", " w "\n"
#define BOTH(q, w, v) ABOVE(q, w) BELOW(q, v)
/* The vector at hand, and then by how many bytes the next one lies behind it. */
#define LOAD(q, by) "vld1.32 {q" #q "}, [%[at]], %[" #by "]\n"
/* A row's vectors are loaded two steps ahead. They are those of columns 0, 1, 2, or dealt 0, 2, 1. */
#define THREE_BEGIN LOAD(8, one) LOAD(9, turn)
#define THREE(a, b, c) a LOAD(10, next) b LOAD(8, one) c LOAD(9, turn)
#define THREE_LAST(a, b, c) a LOAD(10, back) b c
/* Columns 0 to 4, or dealt 0, 2, 4, 1, 3. */
#define FIVE_BEGIN LOAD(8, one) LOAD(9, one)
#define FIVE(a, b, c, d, e) \
    a LOAD(10, turn) b LOAD(11, one) c LOAD(12, next) d LOAD(8, one) e LOAD(9, one)
#define FIVE_LAST(a, b, c, d, e) a LOAD(10, turn) b LOAD(11, one) c LOAD(12, back) d e

/* clang-format off */
#define THREE_BY_THREE \
    THREE_BEGIN \
    THREE(ABOVE(8, W0), ABOVE(9, W1), ABOVE(10, W2)) \
    THREE(BOTH(8, W3, W0), BOTH(9, W4, W1), BOTH(10, W5, W2)) \
    THREE(BOTH(8, W6, W3), BOTH(9, W7, W4), BOTH(10, W8, W5)) \
    THREE_LAST(BELOW(8, W6), BELOW(9, W7), BELOW(10, W8))
#define THREE_BY_THREE_DEALT \
    THREE_BEGIN \
    THREE(ABOVE(8, W0), ABOVE(9, W2), ABOVE(10, W1)) \
    THREE(ABOVE(8, W3), ABOVE(9, W5), ABOVE(10, W4)) \
    THREE(BOTH(8, W6, W0), BOTH(9, W8, W2), BOTH(10, W7, W1)) \
    THREE(BELOW(8, W3), BELOW(9, W5), BELOW(10, W4)) \
    THREE_LAST(BELOW(8, W6), BELOW(9, W8), BELOW(10, W7))
#define FIVE_BY_FIVE \
    FIVE_BEGIN \
    FIVE(ABOVE(8, W0), ABOVE(9, W1), ABOVE(10, W2), ABOVE(11, W3), ABOVE(12, W4)) \
    FIVE(BOTH(8, W5, W0), BOTH(9, W6, W1), BOTH(10, W7, W2), \
         BOTH(11, W8, W3), BOTH(12, W9, W4)) \
    FIVE(BOTH(8, W10, W5), BOTH(9, W11, W6), BOTH(10, W12, W7), \
         BOTH(11, W13, W8), BOTH(12, W14, W9)) \
    FIVE(BOTH(8, W15, W10), BOTH(9, W16, W11), BOTH(10, W17, W12), \
         BOTH(11, W18, W13), BOTH(12, W19, W14)) \
    FIVE(BOTH(8, W20, W15), BOTH(9, W21, W16), BOTH(10, W22, W17), \
         BOTH(11, W23, W18), BOTH(12, W24, W19)) \
    FIVE_LAST(BELOW(8, W20), BELOW(9, W21), BELOW(10, W22), BELOW(11, W23), BELOW(12, W24))
#define FIVE_BY_FIVE_DEALT \
    FIVE_BEGIN \
    FIVE(ABOVE(8, W0), ABOVE(9, W2), ABOVE(10, W4), ABOVE(11, W1), ABOVE(12, W3)) \
    FIVE(ABOVE(8, W5), ABOVE(9, W7), ABOVE(10, W9), ABOVE(11, W6), ABOVE(12, W8)) \
    FIVE(BOTH(8, W10, W0), BOTH(9, W12, W2), BOTH(10, W14, W4), \
         BOTH(11, W11, W1), BOTH(12, W13, W3)) \
    FIVE(BOTH(8, W15, W5), BOTH(9, W17, W7), BOTH(10, W19, W9), \
         BOTH(11, W16, W6), BOTH(12, W18, W8)) \
    FIVE(BOTH(8, W20, W10), BOTH(9, W22, W12), BOTH(10, W24, W14), \
         BOTH(11, W21, W11), BOTH(12, W23, W13)) \
    FIVE(BELOW(8, W15), BELOW(9, W17), BELOW(10, W19), BELOW(11, W16), BELOW(12, W18)) \
    FIVE_LAST(BELOW(8, W20), BELOW(9, W22), BELOW(10, W24), BELOW(11, W21), BELOW(12, W23))
/* clang-format on */

#define SUM(steps, ...) \
    __asm__(steps \
            : [above] "+w"(sums[0]), [below] "+w"(sums[1]), [at] "+r"(*at) \
            : [one] "r"(4), [turn] "r"(s->turn), [next] "r"(s->next), [back] "r"(s->back), \
              [w0] "t"(weights[0]), [w1] "t"(weights[1]), [w2] "t"(weights[2]), ##__VA_ARGS__ \
            : "q8", "q9", "q10", "q11", "q12", "memory")
#define MORE_WEIGHTS \
    [w3] "t"(weights[3]), [w4] "t"(weights[4]), [w5] "t"(weights[5]), [w6] "t"(weights[6])

/* Bytes from some vectors of a band to the next in turn: where columns are dealt or end; where a
 * row ends; and from the last to the first four columns further on. */
typedef struct {
    int turn, next, back;
} band_steps;

static band_steps steps_of(int side, int stride, int columns)
{
    int row = columns * (int)sizeof(float), last = (side - 1 + stride) * stride * row;
    int wide = side == 5 ? 4 : 0;
    if (stride == 1)
        return (band_steps){4, row - 8 - 2 * wide, 8 - last - 2 * wide};
    return (band_steps){row - 4 - wide, row - wide, 16 - last - row - wide};
}

/* Add the products of four columns to the sums of two rows, and step to the next four; `side` and
 * `stride` are constants of each call. */
ALWAYS_INLINE void add_products(const four *weights, const float **at, const band_steps *s,
                                four *sums, int side, int stride)
{
    if (side == 3 && stride == 1)
        SUM(THREE_BY_THREE);
    else if (side == 3)
        SUM(THREE_BY_THREE_DEALT);
    else if (stride == 1)
        SUM(FIVE_BY_FIVE, MORE_WEIGHTS);
    else
        SUM(FIVE_BY_FIVE_DEALT, MORE_WEIGHTS);
}

ALWAYS_INLINE void sum_rows(const depthwise_plane *p, const float *band, float *above, float *below,
                            int side, int stride, int how)
{
    int width = p->window->out_width;
    band_steps steps = steps_of(side, stride, p->columns);
    four weights[MOST_WEIGHTS], bias = p->bias;
    four least = vdupq_n_f32(p->bounds[0]), most = vdupq_n_f32(p->bounds[1]);
    UNROLL
    for (int v = 0; v < (side * side + 3) / 4; v++)
        weights[v] = p->weights[v];
    for (int x = 0;;) {
        four sums[] = {bias, bias};
        add_products(weights, &band, &steps, sums, side, stride);
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

#define VARIANT(name, side, stride, how) \
    static __attribute__((noinline)) void name(const depthwise_plane *p, const float *band, \
                                               float *above, float *below) \
    { \
        sum_rows(p, band, above, below, side, stride, how); \
    }
#define VARIANTS(name, side, stride) \
    VARIANT(name##_any, side, stride, 0) \
    VARIANT(name##_least, side, stride, LEAST) \
    VARIANT(name##_both, side, stride, LEAST | MOST)
VARIANTS(three, 3, 1)
VARIANTS(three_dealt, 3, 2)
VARIANTS(five, 5, 1)
VARIANTS(five_dealt, 5, 2)

typedef void (*pair_of_rows)(const depthwise_plane *, const float *, float *, float *);
#define FORMS(name) {name##_any, name##_least, name##_both}
static const pair_of_rows pairs_of_rows[2][2][3] = {{FORMS(three), FORMS(three_dealt)},
                                                    {FORMS(five), FORMS(five_dealt)}};

/* The same for rows of less than four columns, of which others are written too. */
static void sum_narrow(pair_of_rows form, const depthwise_plane *p, const float *band, float *above,
                       float *below)
{
    int width = p->window->out_width;
    float rows[2][4];
    form(p, band, rows[0], rows[1]);
    memcpy(below, rows[1], sizeof *below * (size_t)width);
    memcpy(above, rows[0], sizeof *above * (size_t)width);
}

/* Rows of the map from `y` on that rows of the output read, with their border. */
static void read_band(const micro_window *w, const float *plane, int y, int rows, int columns,
                      float *band)
{
    int stride = w->stride_x;
    int size = columns - BESIDE;
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

/* One filter's plane. Weights: the window's, filled up to whole vectors. */
int32_t DEPTHWISE(plane)(const float *map, const float *weights, const float *bias,
                         const float *bounds, float *y, const int32_t *window, int how)
{
    const micro_window *w = (const micro_window *)window;
    int side = w->kernel_width, stride = w->stride_x, vectors = (side * side + 3) / 4;
    depthwise_plane p = {.window = w, .bounds = bounds, .bias = vdupq_n_f32(*bias)};
    for (int v = 0; v < vectors; v++)
        p.weights[v] = vld1q_f32(weights + 4 * v);
    p.columns = micro_most(w->out_width, 4) + (side - 1) / stride + BESIDE;
    /* two rows of the output at least */
    int fit = NEAR / (stride * p.columns) - side, height = micro_most(2, fit / stride / 2 * 2);
    float band[BAND];
    pair_of_rows form = pairs_of_rows[side == 5][stride == 2][how == 0 ? 0 : how == LEAST ? 1 : 2];
    for (int top = 0; top < w->out_height; top += height) {
        int rows = micro_least(height, w->out_height - top);
        read_band(w, map, top * stride - w->top, (rows + 1) / 2 * 2 * stride + side - stride,
                  p.columns, band);
        for (int r = 0; r < rows; r += 2) {
            const float *from = band + r * stride * stride * p.columns;
            float *above = y + (ptrdiff_t)(top + r) * w->out_width;
            float *below = r + 1 < rows ? above + w->out_width : above;
            if (w->out_width < 4)
                sum_narrow(form, &p, from, above, below);
            else
                form(&p, from, above, below);
        }
    }
    return 0;
}
