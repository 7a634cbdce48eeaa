/* Matrix products for x86-64-v2: four filters by eight pixels, in pairs of taps.
 *
 * pmaddwd multiplies two taps of four pixels and adds them; it needs 16 bits, to which pmovsxbw
 * widens pixels and weights.
 */
#define MATRIX(what) micro_matrix_sse_##what
#include "requantize.h"

#include <smmintrin.h>

enum { FILTERS = 4 };

typedef struct {
    __m128i row[FILTERS][2];
} sums;

/* A quad's panel: pairs of taps 0 and 1 of eight pixels, then of taps 2 and 3. */
static inline void interleave(const uint8_t *a, const uint8_t *b, const uint8_t *c,
                              const uint8_t *d, int flip, uint8_t *panel)
{
    __m128i sign = _mm_set1_epi8((char)flip);
    __m128i first = _mm_unpacklo_epi8(_mm_loadu_si64(a), _mm_loadu_si64(b));
    __m128i second = _mm_unpacklo_epi8(_mm_loadu_si64(c), _mm_loadu_si64(d));
    _mm_storeu_si128((__m128i *)panel, _mm_xor_si128(first, sign));
    _mm_storeu_si128((__m128i *)(panel + 16), _mm_xor_si128(second, sign));
}

static inline __m128i widened(const int8_t *from)
{
    return _mm_cvtepi8_epi16(_mm_loadu_si64(from));
}

#define FILTER(i, weights) \
    do { \
        __m128i both = _mm_shuffle_epi32(weights, 0x55 * i); \
        a.row[i][0] = _mm_add_epi32(a.row[i][0], _mm_madd_epi16(x0, both)); \
        a.row[i][1] = _mm_add_epi32(a.row[i][1], _mm_madd_epi16(x1, both)); \
    } while (0)

/* Weights: for each quad four filters' taps 0 and 1, then their taps 2 and 3. */
static inline sums multiply(const int8_t *panel, const int8_t *weights, const int32_t *bias,
                            int quads)
{
    sums a;
    UNROLL
    for (int i = 0; i < FILTERS; i++)
        a.row[i][0] = a.row[i][1] = _mm_set1_epi32(bias[i]);
    for (int pairs = 2 * quads; pairs; pairs--, panel += 16, weights += 8) {
        __m128i x0 = widened(panel), x1 = widened(panel + 8), w = widened(weights);
        FILTER(0, w);
        FILTER(1, w);
        FILTER(2, w);
        FILTER(3, w);
    }
    return a;
}

/* Bounds are whole numbers, so that rounding cannot leave them; what is not yet clamped may be out
 * of an int32's reach. */
static inline __m128i requantize_four(__m128i sum, __m128 factor, __m128 low, __m128 high)
{
    __m128 real = _mm_mul_ps(_mm_cvtepi32_ps(sum), factor);
    return _mm_cvtps_epi32(_mm_min_ps(_mm_max_ps(real, low), high));
}

static inline void store(const sums *found, const float *factor, uint8_t *y, ptrdiff_t plane,
                         int low, int high)
{
    __m128 least = _mm_set1_ps((float)low), most = _mm_set1_ps((float)high);
    __m128i bytes = _mm_set1_epi16(0xFF);
    UNROLL
    for (int i = 0; i < FILTERS; i++, y += plane) {
        __m128 scale = _mm_set1_ps(factor[i]);
        __m128i first = requantize_four(found->row[i][0], scale, least, most);
        __m128i second = requantize_four(found->row[i][1], scale, least, most);
        __m128i levels = _mm_and_si128(_mm_packs_epi32(first, second), bytes);
        _mm_storeu_si64(y, _mm_packus_epi16(levels, levels));
    }
}

#include "matrix.h"
