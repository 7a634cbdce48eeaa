/* From sums to levels: clamp(rint((float)sum * factor), low, high), both steps in float32.
 *
 * Every form gives the same bits. Nothing here may be contracted into one rounding.
 */
#ifndef REQUANTIZE_H
#define REQUANTIZE_H

#include "micro.h"

#if defined(__ARM_NEON)
#include <arm_neon.h>

/* Four levels before the clamp, saturated to 16 bits. */
static inline int16x4_t requantize_four(int32x4_t sum, float32x4_t factor)
{
    float32x4_t real = vcvtq_f32_s32(sum);
#if defined(__aarch64__)
    return vqmovn_s32(vcvtnq_s32_f32(vmulq_f32(real, factor)));
#else
    /* ARMv7 has no rounding to nearest. 3 * 2**22 leaves no bits for a fraction: adding it rounds,
     * ties to even. vmla rounds the product before it adds, unlike vfma. What is too large for this
     * leaves the exponent, in order, so that the difference saturates on the right side. */
    float32x4_t placed = vdupq_n_f32(12582912.0f);
    __asm__("vmla.f32 %q0, %q1, %q2" : "+w"(placed) : "w"(real), "w"(factor));
    return vqmovn_s32(vqsubq_s32(vreinterpretq_s32_f32(placed), vdupq_n_s32(0x4B400000)));
#endif
}

/* Eight levels as bytes. */
static inline uint8x8_t requantize_eight(int32x4_t a, int32x4_t b, float32x4_t factor,
                                         int16x8_t low, int16x8_t high)
{
    int16x8_t both = vcombine_s16(requantize_four(a, factor), requantize_four(b, factor));
    return vreinterpret_u8_s8(vmovn_s16(vminq_s16(vmaxq_s16(both, low), high)));
}
#endif

static inline uint8_t requantize_one(int32_t sum, float factor, int low, int high)
{
    /* the bounds are whole numbers, so that rounding cannot leave them; it needs no library where
     * 3 * 2**22, which leaves no bits for a fraction, is added and taken away */
    float real = (float)sum * factor;
    real = real > (float)low ? real : (float)low;
    real = real < (float)high ? real : (float)high;
    return (uint8_t)(int)((real + 12582912.0f) - 12582912.0f);
}

#endif
