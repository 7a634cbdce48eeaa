/* A matrix-vector product: a linear layer, with vectors along the inputs.
 *
 * Weights are in blocks of four filters, each (steps of 16 inputs, filter, 16), padded with zeros.
 * There is one bias and one factor per filter, padded to full blocks.
 */
#include "requantize.h"

enum { FILTERS = 4, STEP = 16 };

#if defined(__ARM_NEON)
typedef struct {
    int32x4_t lanes[FILTERS];
} vector_sums;

static inline void add_step(vector_sums *sums, const uint8_t *x, const int8_t *weights, int offset)
{
    int8x16_t levels = vreinterpretq_s8_u8(vsubq_u8(vld1q_u8(x), vdupq_n_u8((uint8_t)offset)));
    int8x8_t low = vget_low_s8(levels), high = vget_high_s8(levels);
    UNROLL
    for (int i = 0; i < FILTERS; i++) {
        int8x16_t w = vld1q_s8(weights + i * STEP);
        int16x8_t pairs = vmlal_s8(vmull_s8(low, vget_low_s8(w)), high, vget_high_s8(w));
        sums->lanes[i] = vpadalq_s16(sums->lanes[i], pairs);
    }
}

static inline int32_t sum_lanes(const vector_sums *sums, int i)
{
    int32x2_t half = vadd_s32(vget_low_s32(sums->lanes[i]), vget_high_s32(sums->lanes[i]));
    return vget_lane_s32(vpadd_s32(half, half), 0);
}
#else
typedef struct {
    int32_t lanes[FILTERS];
} vector_sums;

static inline void add_step(vector_sums *sums, const uint8_t *x, const int8_t *weights, int offset)
{
    for (int i = 0; i < FILTERS; i++)
        for (int k = 0; k < STEP; k++)
            sums->lanes[i] += (int8_t)(x[k] - offset) * weights[i * STEP + k];
}

static inline int32_t sum_lanes(const vector_sums *sums, int i) { return sums->lanes[i]; }
#endif

static inline void sum_block(const uint8_t *x, const int8_t *weights, const int32_t *bias,
                             int inputs, int offset, int32_t *totals)
{
    vector_sums sums = {0};
    int k = 0;
    for (; k + STEP <= inputs; k += STEP, weights += FILTERS * STEP)
        add_step(&sums, x + k, weights, offset);
    if (k < inputs) {
        uint8_t padded_input[STEP] = {0};
        memcpy(padded_input, x + k, (size_t)(inputs - k));
        add_step(&sums, padded_input, weights, offset);
    }
    for (int i = 0; i < FILTERS; i++)
        totals[i] = (int32_t)((uint32_t)sum_lanes(&sums, i) + (uint32_t)bias[i]);
}

/* Write the quantized values of `filters` filters. */
int32_t micro_vector_levels(const uint8_t *x, const int8_t *weights, const int32_t *bias,
                             const float *factor, uint8_t *y, int inputs, int filters, int offset,
                             int low, int high)
{
    ptrdiff_t block = (ptrdiff_t)FILTERS * ((inputs + STEP - 1) / STEP * STEP);
    for (int f = 0; f < filters; f += FILTERS, weights += block) {
        int32_t sums[FILTERS];
        sum_block(x, weights, bias + f, inputs, offset, sums);
        for (int i = 0; i < micro_min(FILTERS, filters - f); i++)
            y[f + i] = requantize_one(sums[i], factor[f + i], low, high);
    }
    return 0;
}

/* Write the dequantized values, sum * factor. */
int32_t micro_vector_reals(const uint8_t *x, const int8_t *weights, const int32_t *bias,
                            const float *factor, float *y, int inputs, int filters, int offset)
{
    ptrdiff_t block = (ptrdiff_t)FILTERS * ((inputs + STEP - 1) / STEP * STEP);
    for (int f = 0; f < filters; f += FILTERS, weights += block) {
        int32_t sums[FILTERS];
        sum_block(x, weights, bias + f, inputs, offset, sums);
        for (int i = 0; i < micro_min(FILTERS, filters - f); i++)
            y[f + i] = (float)sums[i] * factor[f + i];
    }
    return 0;
}
