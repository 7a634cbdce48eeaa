/* Depthwise convolutions of floats for 64-bit NEON: windows of 3x3 and 5x5, two rows of up to eight
 * outputs at once, so that what both read is loaded once. */
#define DEPTHWISE(what) micro_float_depthwise_fmla_##what

#include "float_depthwise.h"

enum { MOST_VECTORS = 2 };

/* What the sums of some columns are made of; all but `weights` are constants of each call. */
typedef struct {
    const four *weights;
    int side, stride, vectors;
} depthwise_form;

/* a + x * weights[tap], by lane. */
ALWAYS_INLINE four plus(four a, four x, const four *weights, int tap)
{
    four w = weights[tap / 4];
    switch (tap % 4) {
    case 0:
        return vfmaq_laneq_f32(a, x, w, 0);
    case 1:
        return vfmaq_laneq_f32(a, x, w, 1);
    case 2:
        return vfmaq_laneq_f32(a, x, w, 2);
    default:
        return vfmaq_laneq_f32(a, x, w, 3);
    }
}

/* Add the products of some columns to the sums of two rows: row i of the band is row i of the first
 * window and i - stride of the second. */
ALWAYS_INLINE void add_products(depthwise_form f, const float *at, int columns,
                                four (*sums)[MOST_VECTORS])
{
    UNROLL
    for (int i = 0; i < f.side + f.stride; i++)
        UNROLL
        for (int j = 0; j < f.side; j++)
            UNROLL
            for (int v = 0; v < f.vectors; v++) {
                int row = i * f.stride + j % f.stride;
                four x = vld1q_f32(at + row * columns + j / f.stride + 4 * v);
                if (i < f.side)
                    sums[0][v] = plus(sums[0][v], x, f.weights, i * f.side + j);
                if (i >= f.stride)
                    sums[1][v] = plus(sums[1][v], x, f.weights, (i - f.stride) * f.side + j);
            }
}

ALWAYS_INLINE void sum_rows(const depthwise_plane *p, const float *band, float *above, float *below,
                            int side, int stride, int vectors, int how)
{
    int width = p->window->out_width, columns = p->columns, step = 4 * vectors;
    four weights[MOST_WEIGHTS], bias = p->bias;
    four least = vdupq_n_f32(p->bounds[0]), most = vdupq_n_f32(p->bounds[1]);
    UNROLL
    for (int v = 0; v < (side * side + 3) / 4; v++)
        weights[v] = p->weights[v];
    /* the last columns overlap those before them */
    for (int x = 0, more = 1; more; more = x < width - step, x = micro_least(x + step, width - step)) {
        four sums[2][MOST_VECTORS] = {{bias, bias}, {bias, bias}};
        add_products((depthwise_form){weights, side, stride, vectors}, band + x, columns, sums);
        UNROLL
        for (int i = 0; i < 2; i++)
            UNROLL
            for (int v = 0; v < vectors; v++) {
                if (how & LEAST)
                    sums[i][v] = vmaxq_f32(sums[i][v], least);
                if (how & MOST)
                    sums[i][v] = vminq_f32(sums[i][v], most);
            }
        /* where there is no second row, both are the same */
        UNROLL
        for (int i = 1; i >= 0; i--)
            UNROLL
            for (int v = 0; v < vectors; v++)
                vst1q_f32((i ? below : above) + x + 4 * v, sums[i][v]);
    }
}

#define VARIANT(name, side, stride, vectors, how) \
    static __attribute__((noinline)) void name(const depthwise_plane *p, const float *band, \
                                               float *above, float *below) \
    { \
        sum_rows(p, band, above, below, side, stride, vectors, how); \
    }
#define VARIANTS(name, side, stride, vectors) \
    VARIANT(name##_any, side, stride, vectors, 0) \
    VARIANT(name##_least, side, stride, vectors, LEAST) \
    VARIANT(name##_both, side, stride, vectors, LEAST | MOST)
VARIANTS(three, 3, 1, 1)
VARIANTS(three_dealt, 3, 2, 1)
VARIANTS(five, 5, 1, 1)
VARIANTS(five_dealt, 5, 2, 1)
VARIANTS(wide_three, 3, 1, 2)
VARIANTS(wide_three_dealt, 3, 2, 2)
VARIANTS(wide_five, 5, 1, 2)
VARIANTS(wide_five_dealt, 5, 2, 2)

#define FORMS(name) {name##_any, name##_least, name##_both}
static const pair_of_rows pairs_of_rows[2][2][2][3] = {
    {{FORMS(three), FORMS(three_dealt)}, {FORMS(five), FORMS(five_dealt)}},
    {{FORMS(wide_three), FORMS(wide_three_dealt)}, {FORMS(wide_five), FORMS(wide_five_dealt)}},
};

static pair_of_rows form_of(const micro_window *w, int how)
{
    int wide = w->out_width >= 4 * MOST_VECTORS;
    return pairs_of_rows[wide][w->kernel_width == 5][w->stride_x == 2]
                        [how == 0 ? 0 : how == LEAST ? 1 : 2];
}
