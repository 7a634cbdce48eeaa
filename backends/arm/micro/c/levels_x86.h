/* Vectors of whole numbers for x86-64: `vector` as wide as the processor's, `short_vector` of at most
 * 32 bytes. */
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

#endif
