#include <arm_neon.h>
#include <stdint.h>

/* Write the panel of a quad: pairs of taps 0 and 1 of eight pixels, then of taps 2 and 3. */
static inline void interleave(const uint8_t *a, const uint8_t *b, const uint8_t *c,
                              const uint8_t *d, int offset, uint8_t *panel)
{
    uint8x8_t shift = vdup_n_u8((uint8_t)offset);
    uint8x8x2_t first = {{vsub_u8(vld1_u8(a), shift), vsub_u8(vld1_u8(b), shift)}};
    uint8x8x2_t second = {{vsub_u8(vld1_u8(c), shift), vsub_u8(vld1_u8(d), shift)}};
    vst2_u8(panel, first);
    vst2_u8(panel + 16, second);
}
