/* Matrix products for 64-bit NEON without dot products: four filters by eight pixels, in pairs of
 * quads.
 *
 * smull and smlal multiply four taps of two pixels each with those of one filter. With |x| <= 128
 * and |w| <= 127, the sum of two products fits in 16 bits. sadalp adds adjacent products to the
 * sums; each pixel has two sums until the end. In assembly, because compilers spill the sums: .25
 * instructions per product, with intrinsics .37.
 */
#define MATRIX(what) micro_matrix_smull_##what
#include "matrix_fours.h"
#include "requantize.h"

enum { FILTERS = 4, PAIRS = 4 /* of pixels */ };

typedef struct {
    int32x4_t row[FILTERS][2];
} sums;

#define FILTER(i, a, b, c, d) \
    "dup v22.4s, v20.s[" #i "]\n dup v23.4s, v21.s[" #i "]\n" \
    "smull v24.8h, v16.8b, v22.8b\n smull2 v25.8h, v16.16b, v22.16b\n" \
    "smull v26.8h, v17.8b, v22.8b\n smull2 v27.8h, v17.16b, v22.16b\n" \
    "smlal v24.8h, v18.8b, v23.8b\n smlal2 v25.8h, v18.16b, v23.16b\n" \
    "smlal v26.8h, v19.8b, v23.8b\n smlal2 v27.8h, v19.16b, v23.16b\n" \
    "sadalp %[" #a "].4s, v24.8h\n sadalp %[" #b "].4s, v25.8h\n" \
    "sadalp %[" #c "].4s, v26.8h\n sadalp %[" #d "].4s, v27.8h\n"
#define SUMS(i, a, b, c, d) \
    [a] "+w"(p[i][0]), [b] "+w"(p[i][1]), [c] "+w"(p[i][2]), [d] "+w"(p[i][3])

/* The last quad, if their number is odd. */
static inline void multiply_last(const int8_t *panel, const int8_t *weights, int32x4_t (*p)[PAIRS])
{
    int8x16_t x0 = vld1q_s8(panel), x1 = vld1q_s8(panel + 16);
    int32x4_t all = vreinterpretq_s32_s8(vld1q_s8(weights));
    int8x16_t w[] = {vreinterpretq_s8_s32(vdupq_laneq_s32(all, 0)),
                     vreinterpretq_s8_s32(vdupq_laneq_s32(all, 1)),
                     vreinterpretq_s8_s32(vdupq_laneq_s32(all, 2)),
                     vreinterpretq_s8_s32(vdupq_laneq_s32(all, 3))};
    UNROLL
    for (int i = 0; i < FILTERS; i++) {
        p[i][0] = vpadalq_s16(p[i][0], vmull_s8(vget_low_s8(x0), vget_low_s8(w[i])));
        p[i][1] = vpadalq_s16(p[i][1], vmull_high_s8(x0, w[i]));
        p[i][2] = vpadalq_s16(p[i][2], vmull_s8(vget_low_s8(x1), vget_low_s8(w[i])));
        p[i][3] = vpadalq_s16(p[i][3], vmull_high_s8(x1, w[i]));
    }
}

/* Weights: for each quad, four taps of four filters. */
static inline sums multiply(const int8_t *panel, const int8_t *weights, const int32_t *bias,
                            int quads)
{
    int32x4_t p[FILTERS][PAIRS];
    int turns = quads / 2;
    UNROLL
    for (int i = 0; i < FILTERS; i++)
        UNROLL
        for (int k = 0; k < PAIRS; k++)
            p[i][k] = vdupq_n_s32(0);
    if (turns)
        __asm__("1:\n ldp q16, q17, [%[panel]]\n ldp q18, q19, [%[panel], #32]\n"
                "ldp q20, q21, [%[weights]], #32\n add %[panel], %[panel], #64\n"
                "subs %w[turns], %w[turns], #1\n"
                FILTER(0, a0, a1, a2, a3) FILTER(1, b0, b1, b2, b3)
                FILTER(2, c0, c1, c2, c3) FILTER(3, d0, d1, d2, d3)
                "b.ne 1b\n"
                : SUMS(0, a0, a1, a2, a3), SUMS(1, b0, b1, b2, b3), SUMS(2, c0, c1, c2, c3),
                  SUMS(3, d0, d1, d2, d3), [panel] "+r"(panel), [weights] "+r"(weights),
                  [turns] "+r"(turns)
                :
                : "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26",
                  "v27", "cc", "memory");
    if (quads % 2)
        multiply_last(panel, weights, p);
    sums found;
    UNROLL
    for (int i = 0; i < FILTERS; i++)
        UNROLL
        for (int k = 0; k < 2; k++) {
            int32x4_t both = vpaddq_s32(p[i][2 * k], p[i][2 * k + 1]);
            found.row[i][k] = vaddq_s32(both, vdupq_n_s32(bias[i]));
        }
    return found;
}

#include "matrix_neon_store.h"
#include "matrix.h"
