/* Products of floats for 64-bit NEON: FILTERS filters by four, eight or twelve pixels, where
 * FILTERS is four or eight.
 *
 * fmla reads weights by lane. Sums of eight filters need 24 of 32 registers, so that a compiler
 * does not spill them. With four taps per iteration, most instructions are products: .29
 * instructions each.
 */
#ifndef FLOAT_FMLA_PRODUCTS_H
#define FLOAT_FMLA_PRODUCTS_H

#include "micro.h"
#include <arm_neon.h>

/* No loops over filters and vectors: compilers unroll them after they have assigned arrays to
 * memory. `filters` and `vectors` are constants of each call. */
#define FMLA_VECTOR(i, v, w, lane) \
    if (vectors > (v)) \
        sums[i][v] = vfmaq_laneq_f32(sums[i][v], x##v, w, lane)
#define FMLA_FILTER(i, w, lane) \
    do { \
        FMLA_VECTOR(i, 0, w, lane); \
        FMLA_VECTOR(i, 1, w, lane); \
        FMLA_VECTOR(i, 2, w, lane); \
    } while (0)

/* Weights: for each tap, one per filter. */
ALWAYS_INLINE void fmla_tap(const float *panel, const float *weights, float32x4_t (*sums)[3],
                            int filters, int vectors)
{
    float32x4_t first = vld1q_f32(weights), x0 = vld1q_f32(panel), x1 = x0, x2 = x0;
    if (vectors > 1)
        x1 = vld1q_f32(panel + 4);
    if (vectors > 2)
        x2 = vld1q_f32(panel + 8);
    FMLA_FILTER(0, first, 0);
    FMLA_FILTER(1, first, 1);
    FMLA_FILTER(2, first, 2);
    FMLA_FILTER(3, first, 3);
    if (filters > 4) {
        float32x4_t second = vld1q_f32(weights + 4);
        FMLA_FILTER(4, second, 0);
        FMLA_FILTER(5, second, 1);
        FMLA_FILTER(6, second, 2);
        FMLA_FILTER(7, second, 3);
    }
}

ALWAYS_INLINE void fmla_taps(const float *panel, int pitch, const float *weights, int taps,
                             float32x4_t (*sums)[3], int filters, int vectors)
{
    for (; taps >= 4; taps -= 4, panel += 4 * pitch, weights += 4 * filters) {
        fmla_tap(panel, weights, sums, filters, vectors);
        fmla_tap(panel + pitch, weights + filters, sums, filters, vectors);
        fmla_tap(panel + 2 * pitch, weights + 2 * filters, sums, filters, vectors);
        fmla_tap(panel + 3 * pitch, weights + 3 * filters, sums, filters, vectors);
    }
    for (; taps; taps--, panel += pitch, weights += filters)
        fmla_tap(panel, weights, sums, filters, vectors);
}

#define MULTIPLY(n) \
    ALWAYS_INLINE void multiply_##n(const float *panel, int pitch, const float *weights, int taps, \
                                    float32x4_t (*sums)[3]) \
    { \
        fmla_taps(panel, pitch, weights, taps, sums, FILTERS, (n) / 4); \
    }
MULTIPLY(4)
MULTIPLY(8)
MULTIPLY(12)

#endif
