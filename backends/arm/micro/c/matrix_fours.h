#include <arm_neon.h>
#include <stdint.h>

/* Write the panel of a quad: four taps per pixel, pixel by pixel. */
static inline void interleave(const uint8_t *a, const uint8_t *b, const uint8_t *c,
                              const uint8_t *d, int offset, uint8_t *panel)
{
    uint8x8_t shift = vdup_n_u8((uint8_t)offset);
    uint8x8x4_t all = {{vsub_u8(vld1_u8(a), shift), vsub_u8(vld1_u8(b), shift),
                        vsub_u8(vld1_u8(c), shift), vsub_u8(vld1_u8(d), shift)}};
    vst4_u8(panel, all);
}
