/* Matrix products for 64-bit NEON without dot products: eight filters by eight pixels.
 *
 * As matrix_neon.c, in intrinsics: 32 registers hold what LLVM would spill of 16.
 */
#define MATRIX(what) micro_matrix_smull_##what
#include "matrix_neon_pairs.h"
#include "requantize.h"

enum { FILTERS = 8 };

typedef struct {
    int32x4_t row[FILTERS][2];
} sums;

#define FILTER(i) \
    do { \
        int8x16_t first = vreinterpretq_s8_s16(vdupq_laneq_s16(w0, i)); \
        int8x16_t second = vreinterpretq_s8_s16(vdupq_laneq_s16(w1, i)); \
        int16x8_t low = vmull_s8(vget_low_s8(x0), vget_low_s8(first)); \
        int16x8_t high = vmull_high_s8(x0, first); \
        low = vmlal_s8(low, vget_low_s8(x1), vget_low_s8(second)); \
        high = vmlal_high_s8(high, x1, second); \
        a.row[i][0] = vpadalq_s16(a.row[i][0], low); \
        a.row[i][1] = vpadalq_s16(a.row[i][1], high); \
    } while (0)

/* Weights: for each quad eight filters' taps 0 and 1, then their taps 2 and 3. */
static inline sums multiply(const int8_t *panel, const int8_t *weights, const int32_t *bias,
                            int quads)
{
    sums a;
    UNROLL
    for (int i = 0; i < FILTERS; i++)
        a.row[i][0] = a.row[i][1] = vdupq_n_s32(bias[i]);
    for (; quads; quads--, panel += 32, weights += 32) {
        int8x16_t x0 = vld1q_s8(panel), x1 = vld1q_s8(panel + 16);
        int16x8_t w0 = vreinterpretq_s16_s8(vld1q_s8(weights));
        int16x8_t w1 = vreinterpretq_s16_s8(vld1q_s8(weights + 16));
        FILTER(0);
        FILTER(1);
        FILTER(2);
        FILTER(3);
        FILTER(4);
        FILTER(5);
        FILTER(6);
        FILTER(7);
    }
    return a;
}

#include "matrix_neon_store.h"
#include "matrix.h"
