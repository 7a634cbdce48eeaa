#include <arm_neon.h>
#include <stdint.h>

/* Write the panel of a quad: pairs of taps 0 and 1 of eight pixels, then of taps 2 and 3. */
static inline void interleave(const uint8_t *a, const uint8_t *b, const uint8_t *c,
                              const uint8_t *d, int flip, uint8_t *panel)
{
    uint8x8_t sign = vdup_n_u8((uint8_t)flip);
    uint8x8x2_t first = {{veor_u8(vld1_u8(a), sign), veor_u8(vld1_u8(b), sign)}};
    uint8x8x2_t second = {{veor_u8(vld1_u8(c), sign), veor_u8(vld1_u8(d), sign)}};
    vst2_u8(panel, first);
    vst2_u8(panel + 16, second);
}
