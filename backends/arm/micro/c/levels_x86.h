/* Vectors of integers for x86-64: `vector` with the processor's full width, `short_vector` with at
 * most 32 bytes. */
#ifndef LEVELS_X86_H
#define LEVELS_X86_H

#include "micro.h"
#include <immintrin.h>

#if defined(__AVX512BW__)
enum { LANES = 16 };
typedef __m512i vector;
typedef __m512 reals;
#define OF(what) _mm512_##what
#define BITS(what) _mm512_##what##_si512
#elif defined(__AVX2__)
enum { LANES = 8 };
typedef __m256i vector;
typedef __m256 reals;
#define OF(what) _mm256_##what
#define BITS(what) _mm256_##what##_si256
#else
enum { LANES = 4 };
typedef __m128i vector;
typedef __m128 reals;
#define OF(what) _mm_##what
#define BITS(what) _mm_##what##_si128
#endif

#if defined(__AVX2__)
enum { SHORT_BYTES = 32 };
typedef __m256i short_vector;
typedef __m256 short_reals;
#define OF_SHORT(what) _mm256_##what
#define SHORT_BITS(what) _mm256_##what##_si256
#else
enum { SHORT_BYTES = 16 };
typedef __m128i short_vector;
typedef __m128 short_reals;
#define OF_SHORT(what) _mm_##what
#define SHORT_BITS(what) _mm_##what##_si128
#endif

/* Return the quantized values of sums. Bounds are integers, so rounding cannot leave them. Before
 * the clamp, values may exceed an int32. */
static inline vector requantized_sums(vector sum, reals factor, reals low, reals high)
{
    reals real = OF(mul_ps)(OF(cvtepi32_ps)(sum), factor);
    return OF(cvtps_epi32)(OF(min_ps)(OF(max_ps)(real, low), high));
}

static inline void write_levels(vector sum, reals factor, reals low, reals high, uint8_t *y)
{
    vector levels = requantized_sums(sum, factor, low, high);
#if defined(__AVX512BW__)
    _mm_storeu_si128((__m128i *)y, _mm512_cvtepi32_epi8(levels));
#else
    levels = BITS(and)(levels, OF(set1_epi32)(0xFF));
#if defined(__AVX2__)
    __m128i eight = _mm_packs_epi32(_mm256_castsi256_si128(levels),
                                    _mm256_extracti128_si256(levels, 1));
    _mm_storeu_si64(y, _mm_packus_epi16(eight, eight));
#else
    levels = _mm_packs_epi32(levels, levels);
    _mm_storeu_si32(y, _mm_packus_epi16(levels, levels));
#endif
#endif
}

#endif
