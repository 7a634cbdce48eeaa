/* A float convolution as a matrix product: tiles of up to twelve pixels by FILTERS filters.
 *
 * A kernel's file defines before it includes this file:
 *
 *   FLOATS(what)      the names of its functions
 *   FILTERS           filters per block
 *   multiply_4, _8, _12(...)   add the products of some taps to the sums of 4, 8 or 12 pixels
 *
 * A panel has twelve floats per tap, the input of twelve pixels' windows. Taps are ordered by
 * channel, row and column of the window. Weights are blocks of FILTERS filters, each (taps,
 * FILTERS); there is one bias per filter. Both are padded with zeros to full blocks.
 */
enum { PIXELS = 12 };

#include "float_gather.h"

/* Flags for sums. */
enum {
    ADDS = 1,  /* start from the result's values, not from the bias */
    LOWER_BOUND = 2, /* clamp to at least bounds[0] */
    UPPER_BOUND = 4,  /* clamp to at most bounds[1] */
};

typedef struct {
    const float *panel, *weights, *bias, *bounds;
    int pitch, taps, flags;
} float_block;

/* Some vectors of pixels of a full block; `vectors` is a constant of each call. */
ALWAYS_INLINE void sum_vectors(const float_block *b, float *y, ptrdiff_t plane, int vectors)
{
    float32x4_t sums[FILTERS][3];
    UNROLL
    for (int i = 0; i < FILTERS; i++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            sums[i][v] = b->flags & ADDS ? vld1q_f32(y + i * plane + 4 * v)
                                         : vdupq_n_f32(b->bias[i]);
    switch (vectors) {
    case 1:
        multiply_4(b->panel, b->pitch, b->weights, b->taps, sums);
        break;
    case 2:
        multiply_8(b->panel, b->pitch, b->weights, b->taps, sums);
        break;
    default:
        multiply_12(b->panel, b->pitch, b->weights, b->taps, sums);
    }
    if (b->flags & LOWER_BOUND)
        UNROLL
        for (int i = 0; i < FILTERS; i++)
            UNROLL
            for (int v = 0; v < vectors; v++)
                sums[i][v] = vmaxq_f32(sums[i][v], vdupq_n_f32(b->bounds[0]));
    if (b->flags & UPPER_BOUND)
        UNROLL
        for (int i = 0; i < FILTERS; i++)
            UNROLL
            for (int v = 0; v < vectors; v++)
                sums[i][v] = vminq_f32(sums[i][v], vdupq_n_f32(b->bounds[1]));
    UNROLL
    for (int i = 0; i < FILTERS; i++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            vst1q_f32(y + i * plane + 4 * v, sums[i][v]);
}

/* A partial block, at the last filter or pixel. */
static void sum_partial_block(const float_block *b, float *y, ptrdiff_t plane, int filters,
                              int count)
{
    float block[FILTERS][PIXELS] = {{0}};
    size_t size = sizeof *y * (size_t)count;
    if (b->flags & ADDS)
        for (int i = 0; i < filters; i++)
            memcpy(block[i], y + i * plane, size);
    if (count <= 4)
        sum_vectors(b, block[0], PIXELS, 1);
    else if (count <= 8)
        sum_vectors(b, block[0], PIXELS, 2);
    else
        sum_vectors(b, block[0], PIXELS, 3);
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
    for (int f = 0; f < filters; f += FILTERS, b.weights += block, b.bias += FILTERS) {
        int block_filters = micro_min(FILTERS, filters - f);
        float *to = y + (ptrdiff_t)f * plane;
        if (block_filters == FILTERS && count == PIXELS)
            sum_vectors(&b, to, plane, 3);
        else
            sum_partial_block(&b, to, plane, block_filters, count);
    }
    return 0;
}
