/* Requantizes sums: clamp(rint((float)sum * factor), low, high), both steps in float32.
 *
 * Every variant gives the same bits. A multiplication and an addition must not be contracted into
 * one rounding.
 */
#ifndef REQUANTIZE_H
#define REQUANTIZE_H

#include "micro.h"

#if defined(__ARM_NEON)
#include <arm_neon.h>

/* Return four quantized values before the clamp, saturated to 16 bits. */
static inline int16x4_t requantize_four(int32x4_t sum, float32x4_t factor)
{
    float32x4_t real = vcvtq_f32_s32(sum);
#if defined(__aarch64__)
    return vqmovn_s32(vcvtnq_s32_f32(vmulq_f32(real, factor)));
#else
    /* ARMv7 has no rounding to nearest. 3 * 2**22 leaves no bits for a fraction: adding it rounds,
     * ties to even. vmla rounds the product before it adds, unlike vfma. Values that are too large
     * change the exponent; their order stays, so the difference saturates on the right side. */
    float32x4_t placed = vdupq_n_f32(12582912.0f);
    __asm__("vmla.f32 %q0, %q1, %q2" : "+w"(placed) : "w"(real), "w"(factor));
    return vqmovn_s32(vqsubq_s32(vreinterpretq_s32_f32(placed), vdupq_n_s32(0x4B400000)));
#endif
}

/* Return eight quantized values as bytes. */
static inline uint8x8_t requantize_eight(int32x4_t a, int32x4_t b, float32x4_t factor,
                                         int16x8_t low, int16x8_t high)
{
    int16x8_t both = vcombine_s16(requantize_four(a, factor), requantize_four(b, factor));
    return vreinterpret_u8_s8(vmovn_s16(vminq_s16(vmaxq_s16(both, low), high)));
}

/* The requantization of a filter's sums. */
typedef struct {
    float32x4_t factor;
    int16x8_t low, high;
} requantization;

static inline requantization make_requantization(float factor, int low, int high)
{
    return (requantization){vdupq_n_f32(factor), vdupq_n_s16((int16_t)low),
                            vdupq_n_s16((int16_t)high)};
}

/* Write eight quantized values of a and b and eight of c and d, with two factors, to `to`. Each
 * step of four vectors is consecutive, so that none waits for the step before. */
static inline void requantize_sixteen(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d,
                                      float32x4_t first, float32x4_t second, int16x8_t low,
                                      int16x8_t high, uint8x8_t *to)
{
#if defined(__aarch64__)
    to[0] = requantize_eight(a, b, first, low, high);
    to[1] = requantize_eight(c, d, second, low, high);
#else
    float32x4_t e, f, g, h, placed = vdupq_n_f32(12582912.0f);
    int32x4_t place = vdupq_n_s32(0x4B400000);
    __asm__("vcvt.f32.s32 %q[a], %q[a]\n vcvt.f32.s32 %q[b], %q[b]\n"
            "vcvt.f32.s32 %q[c], %q[c]\n vcvt.f32.s32 %q[d], %q[d]\n"
            "vmov %q[e], %q[placed]\n vmov %q[f], %q[placed]\n"
            "vmov %q[g], %q[placed]\n vmov %q[h], %q[placed]\n"
            "vmla.f32 %q[e], %q[a], %q[first]\n vmla.f32 %q[f], %q[b], %q[first]\n"
            "vmla.f32 %q[g], %q[c], %q[second]\n vmla.f32 %q[h], %q[d], %q[second]\n"
            "vqsub.s32 %q[e], %q[e], %q[place]\n vqsub.s32 %q[f], %q[f], %q[place]\n"
            "vqsub.s32 %q[g], %q[g], %q[place]\n vqsub.s32 %q[h], %q[h], %q[place]\n"
            "vqmovn.s32 %e[a], %q[e]\n vqmovn.s32 %f[a], %q[f]\n"
            "vqmovn.s32 %e[c], %q[g]\n vqmovn.s32 %f[c], %q[h]\n"
            "vmax.s16 %q[a], %q[a], %q[low]\n vmax.s16 %q[c], %q[c], %q[low]\n"
            "vmin.s16 %q[a], %q[a], %q[high]\n vmin.s16 %q[c], %q[c], %q[high]\n"
            "vmovn.i16 %P[to], %q[a]\n vmovn.i16 %P[next], %q[c]\n"
            : [a] "+w"(a), [b] "+w"(b), [c] "+w"(c), [d] "+w"(d), [e] "=&w"(e), [f] "=&w"(f),
              [g] "=&w"(g), [h] "=&w"(h), [to] "=&w"(to[0]), [next] "=w"(to[1])
            : [placed] "w"(placed), [place] "w"(place), [first] "w"(first), [second] "w"(second),
              [low] "w"(low), [high] "w"(high));
#endif
}
#else
/* The requantization of a filter's sums. */
typedef struct {
    float factor;
    int low, high;
} requantization;

static inline requantization make_requantization(float factor, int low, int high)
{
    return (requantization){factor, low, high};
}
#endif

static inline uint8_t requantize_one(int32_t sum, float factor, int low, int high)
{
    /* The bounds are integers, so rounding cannot leave them. Adding and subtracting 3 * 2**22,
     * which leaves no bits for a fraction, rounds without a library. */
    float real = (float)sum * factor;
    real = real > (float)low ? real : (float)low;
    real = real < (float)high ? real : (float)high;
    return (uint8_t)(int)((real + 12582912.0f) - 12582912.0f);
}

#endif
