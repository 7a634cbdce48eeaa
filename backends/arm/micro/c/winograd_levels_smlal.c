/* Winograd's convolution for 8-bit quantized values, on 64-bit NEON. */
#include "winograd_tiles.h"
#include <arm_neon.h>

#define WINOGRAD(what) micro_winograd_levels_smlal_##what

typedef struct {
    const int16_t *pixels, *weights;
    int vectors; /* a constant of each call */
} levels_channel;

#define FILTER(i) \
    do { \
        sums[i][0] = vmlal_lane_s16(sums[i][0], vget_low_s16(x), w, i); \
        if (c.vectors > 1) \
            sums[i][1] = vmlal_high_lane_s16(sums[i][1], x, w, i); \
        if (c.vectors > 2) \
            sums[i][2] = vmlal_lane_s16(sums[i][2], last, w, i); \
    } while (0)

ALWAYS_INLINE void add_channel(levels_channel c, int32x4_t (*sums)[3])
{
    int16x4_t w = vld1_s16(c.weights), last = w;
    int16x8_t x;
    if (c.vectors > 1)
        x = vld1q_s16(c.pixels);
    else
        x = vcombine_s16(vld1_s16(c.pixels), last);
    if (c.vectors > 2)
        last = vld1_s16(c.pixels + 8);
    FILTER(0);
    FILTER(1);
    FILTER(2);
    FILTER(3);
}

#define MULTIPLY(n) \
    static inline void multiply_##n(const int16_t *pixels, int pitch, const int16_t *weights, \
                                    int next, int channels, int32x4_t (*sums)[3]) \
    { \
        for (; channels; channels -= 2, pixels += 2 * pitch, weights += 2 * next) { \
            add_channel((levels_channel){pixels, weights, (n) / 4}, sums); \
            add_channel((levels_channel){pixels + pitch, weights + next, (n) / 4}, sums); \
        } \
    }
MULTIPLY(4)
MULTIPLY(8)
MULTIPLY(12)

static inline int32x4_t plus_times(int32x4_t a, int32x4_t b, int32_t c)
{
    return vmlaq_s32(a, b, vdupq_n_s32(c));
}

static inline int32x4_t times(int32x4_t a, int32_t b) { return vmulq_s32(a, vdupq_n_s32(b)); }

#include "winograd_levels.h"
