#include <arm_neon.h>
#include <stdint.h>

/* Write the panel of a quad: four taps per pixel, pixel by pixel. */
static inline void interleave(const uint8_t *a, const uint8_t *b, const uint8_t *c,
                              const uint8_t *d, int flip, uint8_t *panel)
{
    uint8x8_t sign = vdup_n_u8((uint8_t)flip);
    uint8x8x4_t all = {{veor_u8(vld1_u8(a), sign), veor_u8(vld1_u8(b), sign),
                        veor_u8(vld1_u8(c), sign), veor_u8(vld1_u8(d), sign)}};
    vst4_u8(panel, all);
}
