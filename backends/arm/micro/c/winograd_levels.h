/* Winograd's convolution for 8-bit quantized values, bit-exact.
 *
 * A kernel's file defines before it includes this file: WINOGRAD(what), the names of its functions;
 * multiply_4, _8 and _12(pixels, pitch, weights, next, channels, sums), which add the products of
 * channels to the sums of 4, 8 or 12 tiles, where channels are a multiple of four and their weights
 * are `next` elements apart; plus_times and times, products of integers. It can define ADD_POINT
 * instead of the former, which does the same as add_point. If it has a faster transform for nine
 * taps with stride 1 or 2, NINE_TAPS does that.
 *
 * A filter with stride 2 is four filters with stride 1, one per phase of rows and columns: tap 2 *
 * i + u of a filter is tap i of its phase u, which reads every second pixel. Phases are summed like
 * channels. With three taps per side, points are 0, 1, -1, 2, -2 and infinity, as for floats, and
 * tiles have 4x4 outputs; with four taps, the same points give 3x3 outputs. 3x3 taps with stride 2
 * have two taps per side in the first phase, for which points 0, 1, -1, 2 and infinity give four
 * outputs, and one tap in the second phase, whose products are outputs: 9 points in all, of which
 * the last four share one weight, and no sum over phases.
 *
 * The rows of the weights' transform are scaled to integers, so that everything is an integer.
 * Outputs are 24 * 24 times the sums, or 6 * 6 times with 9 points. They are computed modulo 2^32,
 * where 9 has an inverse; the result is 64 or 4 times the sums. It is exact if the sums are within
 * 2^25 or 2^29, however large intermediate values are. The caller ensures that by summing channels
 * in several passes. With values from -128 to 255, points of pixels are within 17,340, and with
 * weights up to 127, theirs are within 15 * 15 * 127: both fit in 16 bits.
 */
#include "requantize.h"
#include "winograd_tiles.h"

enum {
    MAX_POINTS = 9, /* per side */
    WEIGHTS = 6,     /* of them with separate weights */
    AREA = WEIGHTS * WEIGHTS,
    TAPS = 9,
    SUMS = MAX_POINTS * MAX_POINTS * 32 * FILTERS, /* for 28 tiles of 9 points, and a vector */
    CHANNELS = 64,      /* channels with weights transformed at once */
    NINTH = 0x38E38E39, /* 9 * NINTH is 1 modulo 2^32 */
};

/* Before a loop that must not be unrolled: registers hold the values of one iteration only. */
#define ROLLED _Pragma("GCC unroll 1")

/* Return the taps per side of a phase; 2 stands for 3x3 taps with stride 2. */
static inline int count_taps(const micro_window *w)
{
    return (w->kernel_width + w->stride_x - 1) / w->stride_x;
}

static inline int count_points(int taps) { return taps == 2 ? MAX_POINTS : WEIGHTS; }

static inline int get_tile_side(int taps) { return taps == 4 ? 3 : SIDE; }

/* Return the phases of rows that are summed per channel; columns have as many. */
static inline int count_phases(const micro_window *w, int taps)
{
    return taps == 2 ? 1 : w->stride_x;
}

/* ---- input of tiles */

ALWAYS_INLINE void points_of_pixels(const int16x8_t *d, int16x8_t *t, int taps)
{
    if (taps == 2) {
        int16x8_t odd = vsubq_s16(d[6], d[2]), sum = vaddq_s16(d[2], d[4]);
        int16x8_t less = vsubq_s16(d[2], d[4]), near = vsubq_s16(d[0], d[4]);
        t[0] = vaddq_s16(vshlq_n_s16(near, 1), odd);
        t[1] = vsubq_s16(odd, sum);
        t[2] = vaddq_s16(vaddq_s16(odd, less), vshlq_n_s16(less, 1));
        t[3] = odd;
        t[4] = vsubq_s16(vsubq_s16(d[8], d[4]), vshlq_n_s16(odd, 1));
        UNROLL
        for (int i = 0; i < SIDE; i++)
            t[5 + i] = d[2 * i + 1];
        return;
    }
    int16x8_t near = vsubq_s16(d[4], d[2]), third = vsubq_s16(d[3], d[1]);
    int16x8_t far = vshlq_n_s16(third, 1), wide = vshlq_n_s16(third, 2);
    int16x8_t even = vsubq_s16(d[4], vshlq_n_s16(d[2], 2));
    int16x8_t odd = vsubq_s16(d[3], vshlq_n_s16(d[1], 2));
    t[0] = vaddq_s16(vshlq_n_s16(vsubq_s16(d[0], d[2]), 2), near);
    t[1] = vaddq_s16(even, odd);
    t[2] = vsubq_s16(even, odd);
    t[3] = vaddq_s16(near, far);
    t[4] = vsubq_s16(near, far);
    t[5] = vsubq_s16(vsubq_s16(d[5], d[3]), wide);
}

/* Write `size` values of a row from column `x` on as 16 bits, with zeros for columns outside. */
static inline void widen_row(const micro_window *w, const uint8_t *row, int x, int size,
                             int16_t *to)
{
    int first = micro_min(micro_max(0, -x), size);
    int end = micro_max(micro_min(size, w->width - x), first), k = first;
    int16x8_t offset = vdupq_n_s16((int16_t)w->offset);
    uint8x8_t shift = vdup_n_u8((uint8_t)w->offset);
    row += x;
    memset(to, 0, sizeof *to * (size_t)first);
    for (; k + 16 <= end; k += 16) {
        uint8x8_t a = vsub_u8(vld1_u8(row + k), shift), b = vsub_u8(vld1_u8(row + k + 8), shift);
        vst1q_s16(to + k, vaddw_s8(offset, vreinterpret_s8_u8(a)));
        vst1q_s16(to + k + 8, vaddw_s8(offset, vreinterpret_s8_u8(b)));
    }
    for (int has_more = k < end && end - first >= 8; has_more; has_more = k < end) {
        k = micro_min(k, end - 8);
        uint8x8_t a = vsub_u8(vld1_u8(row + k), shift);
        vst1q_s16(to + k, vaddw_s8(offset, vreinterpret_s8_u8(a)));
        k += 8;
    }
    for (; k < end; k++)
        to[k] = (int16_t)read_value(row[k], w->offset);
    memset(to + end, 0, sizeof *to * (size_t)(size - end));
}

/* Load `columns` columns of each phase of a row of the map; `columns` is a multiple of eight. */
static void read_row(const micro_window *w, const uint8_t *plane, int y, int x, int columns,
                     int16_t *even, int16_t *odd)
{
    int16_t wide[2 * COLUMNS];
    const uint8_t *row = plane + (ptrdiff_t)y * w->width;
    if (y < 0 || y >= w->height) {
        memset(even, 0, sizeof *even * (size_t)columns);
        if (w->stride_x > 1)
            memset(odd, 0, sizeof *odd * (size_t)columns);
    } else if (w->stride_x == 1) {
        widen_row(w, row, x, columns, even);
    } else {
        widen_row(w, row, x, 2 * columns, wide);
        for (int k = 0; k < columns; k += 8) {
            int16x8x2_t pairs = vld2q_s16(wide + 2 * k);
            vst1q_s16(even + k, pairs.val[0]);
            vst1q_s16(odd + k, pairs.val[1]);
        }
    }
}

/* Replace the columns of rows by the columns of their points. */
ALWAYS_INLINE void transform_columns(int16_t (*rows)[COLUMNS], int columns, int taps)
{
    for (int x = 0; x < columns; x += 8) {
        int16x8_t d[MAX_POINTS], t[MAX_POINTS];
        UNROLL
        for (int i = 0; i < count_points(taps); i++)
            d[i] = vld1q_s16(rows[i] + x);
        points_of_pixels(d, t, taps);
        UNROLL
        for (int i = 0; i < count_points(taps); i++)
            vst1q_s16(rows[i] + x, t[i]);
    }
}

/* Load the input of eight tiles from a row; `odd` is its second phase. */
ALWAYS_INLINE void load_tiles(const int16_t *even, const int16_t *odd, int16x8_t *d, int taps)
{
    if (taps == 4) {
        int16x8x3_t a = vld3q_s16(even), b = vld3q_s16(even + 3);
        UNROLL
        for (int i = 0; i < 3; i++) {
            d[i] = a.val[i];
            d[3 + i] = b.val[i];
        }
        return;
    }
    int16x8x4_t a = vld4q_s16(even), b = vld4q_s16(even + SIDE);
    if (taps == 3) {
        UNROLL
        for (int i = 0; i < SIDE; i++)
            d[i] = a.val[i];
        d[4] = b.val[0];
        d[5] = b.val[1];
        return;
    }
    int16x8x4_t between = vld4q_s16(odd);
    UNROLL
    for (int i = 0; i < SIDE; i++) {
        d[2 * i] = a.val[i];
        d[2 * i + 1] = between.val[i];
    }
    d[8] = b.val[0];
}

typedef struct {
    const micro_window *window;
    const uint8_t *plane;
    int16_t *to;
    int first, tiles, pitch;
} winograd_channel;

ALWAYS_INLINE void write_points(const winograd_channel *c, int taps)
{
    const micro_window *w = c->window;
    const int points = count_points(taps), side = get_tile_side(taps);
    int phases = count_phases(w, taps), stride = w->stride_x;
    ptrdiff_t step = (ptrdiff_t)w->channels * phases * phases * c->pitch;
    int16_t rows[2][MAX_POINTS][COLUMNS];
    for (int at = 0; at < c->tiles;) {
        tile_run run = find_run(w, c->first, at, c->tiles, side);
        int columns = (run.count + 7) / 8 * 8 * side + 8;
        for (int u = 0; u < phases; u++) {
            int y = run.y * stride + u - w->top, x = run.x * stride - w->left;
            for (int i = 0; i < points; i++)
                read_row(w, c->plane, y + i * phases, x, columns, rows[0][i], rows[1][i]);
            for (int v = 0; v < stride; v++)
                transform_columns(rows[v], columns, taps);
            for (int v = 0; v < phases; v++)
                /* the last eight of a row may write too many; the next row overwrites these */
                for (int k = 0; k < run.count; k += 8) {
                    int16_t *tile = c->to + (u * phases + v) * c->pitch + at + k;
                    for (int i = 0; i < points; i++) {
                        int16x8_t d[MAX_POINTS], t[MAX_POINTS];
                        load_tiles(rows[v][i] + k * side, rows[1][i] + k * side, d, taps);
                        points_of_pixels(d, t, taps);
                        UNROLL
                        for (int j = 0; j < points; j++, tile += step)
                            vst1q_s16(tile, t[j]);
                    }
                }
        }
        at += run.count;
    }
}

/* Write the points of one channel of `tiles` tiles from `first` on: `pitch` elements per point and
 * phase of a channel, at least seven more than tiles. */
int32_t WINOGRAD(pixels)(const uint8_t *map, int16_t *to, const int32_t *window, int first,
                         int tiles, int channel, int pitch)
{
    const micro_window *w = (const micro_window *)window;
    int taps = count_taps(w), phases = count_phases(w, taps);
    const uint8_t *plane = map + (ptrdiff_t)channel * w->height * w->width;
    to += (ptrdiff_t)channel * phases * phases * pitch;
    winograd_channel c = {w, plane, to, first, tiles, pitch};
    if (taps == 2)
        write_points(&c, 2);
    else if (taps == 3)
        write_points(&c, 3);
    else
        write_points(&c, 4);
    return 0;
}

/* ---- weights */

ALWAYS_INLINE void points_of_taps(const int16x4_t *g, int16x4_t *t, int taps)
{
    int16x4_t ends = vadd_s16(g[0], g[2]), wide = vadd_s16(g[0], vshl_n_s16(g[2], 2));
    int16x4_t middle = g[1], twice = vshl_n_s16(g[1], 1);
    t[0] = g[0];
    t[5] = g[2];
    if (taps == 2) {
        t[1] = ends;
        t[2] = vsub_s16(g[0], g[2]);
        t[3] = vadd_s16(ends, g[2]);
        t[4] = g[2];
        t[5] = vadd_s16(vshl_n_s16(twice, 1), twice);
        return;
    }
    if (taps == 4) {
        middle = vadd_s16(g[1], g[3]);
        twice = vadd_s16(twice, vshl_n_s16(g[3], 3));
        t[5] = g[3];
    }
    t[1] = vadd_s16(ends, middle);
    t[2] = vsub_s16(ends, middle);
    t[3] = vadd_s16(wide, twice);
    t[4] = vsub_s16(wide, twice);
}

/* Load the taps of one phase of a channel, zero where the filter has none. */
static void load_phase(const micro_window *w, const int8_t *weights, int phase, int16x4_t (*g)[4])
{
    int stride = w->stride_x;
    for (int n = 0; n < 16; n++) {
        int y = n / 4 * stride + phase / stride, x = n % 4 * stride + phase % stride;
        int32_t bytes = 0;
        if (y < w->kernel_height && x < w->kernel_width)
            memcpy(&bytes, weights + (y * w->kernel_width + x) * FILTERS, sizeof bytes);
        g[n / 4][n % 4] = vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(bytes))));
    }
}

ALWAYS_INLINE void transform_taps(int16x4_t (*g)[4], int16_t *to, int taps)
{
    int rows = taps == 4 ? 4 : 3;
    int16x4_t between[4][WEIGHTS];
    UNROLL
    for (int i = 0; i < rows; i++)
        points_of_taps(g[i], between[i], taps);
    UNROLL
    for (int j = 0; j < WEIGHTS; j++) {
        int16x4_t column[4], t[WEIGHTS];
        UNROLL
        for (int i = 0; i < rows; i++)
            column[i] = between[i][j];
        points_of_taps(column, t, taps);
        UNROLL
        for (int i = 0; i < WEIGHTS; i++)
            vst1_s16(to + (j * WEIGHTS + i) * FILTERS, t[i]);
    }
}

static void transform_phase(const micro_window *w, const int8_t *weights, int phase, int16_t *to)
{
    int16x4_t g[4][4];
    load_phase(w, weights, phase, g);
    if (count_taps(w) == 3)
        transform_taps(g, to, 3);
    else
        transform_taps(g, to, 4);
}

#ifndef NINE_TAPS
#define NINE_TAPS transform_nine

/* Load nine adjacent taps of a channel. */
static inline void load_nine(const int8_t *weights, int16x4_t (*g)[4])
{
    int8x16_t first = vld1q_s8(weights), second = vld1q_s8(weights + 16);
    int16x8_t pairs[] = {vmovl_s8(vget_low_s8(first)), vmovl_s8(vget_high_s8(first)),
                         vmovl_s8(vget_low_s8(second)), vmovl_s8(vget_high_s8(second))};
    int32_t bytes;
    memcpy(&bytes, weights + 32, sizeof bytes);
    UNROLL
    for (int n = 0; n < 8; n++)
        g[n / 3][n % 3] = n % 2 ? vget_high_s16(pairs[n / 2]) : vget_low_s16(pairs[n / 2]);
    g[2][2] = vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(bytes))));
}

static void transform_nine(const int8_t *weights, int16_t *to, int channels, int taps)
{
    for (; channels; channels--, weights += TAPS * FILTERS, to += AREA * FILTERS) {
        int16x4_t g[4][4];
        load_nine(weights, g);
        if (taps == 2)
            transform_taps(g, to, 2);
        else
            transform_taps(g, to, 3);
    }
}

#endif

/* Transform the weights of some phases of channels of a block, padded with zeros to a multiple of
   four. */
static void transform_weights(const micro_window *w, const int8_t *weights, int first, int count,
                              int16_t *to)
{
    int taps = count_taps(w), phases = count_phases(w, taps);
    int area = w->kernel_height * w->kernel_width;
    phases *= phases;
    weights += (ptrdiff_t)first / phases * area * FILTERS;
    memset(to + count * AREA * FILTERS, 0, sizeof *to * AREA * FILTERS * (size_t)(-count & 3));
    if (phases == 1 && area == TAPS) {
        NINE_TAPS(weights, to, count, taps);
        return;
    }
    for (; count > 0; count -= phases, weights += area * FILTERS)
        for (int phase = 0; phase < phases; phase++, to += AREA * FILTERS)
            transform_phase(w, weights, phase, to);
}

/* ---- products */

#ifndef ADD_POINT
#define ADD_POINT add_point

/* Some vectors of tiles of one point; `vectors` is a constant of each call. Channels are a multiple
 * of four. */
ALWAYS_INLINE void add_products(const int16_t *pixels, int pitch, const int16_t *weights,
                                int channels, int begins, int32_t *to, int plane, int vectors)
{
    enum { next = AREA * FILTERS };
    int32x4_t sums[FILTERS][3];
    UNROLL
    for (int i = 0; i < FILTERS; i++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            sums[i][v] = begins ? vdupq_n_s32(0) : vld1q_s32(to + i * plane + 4 * v);
    switch (vectors) {
    case 1:
        multiply_4(pixels, pitch, weights, next, channels, sums);
        break;
    case 2:
        multiply_8(pixels, pitch, weights, next, channels, sums);
        break;
    default:
        multiply_12(pixels, pitch, weights, next, channels, sums);
    }
    UNROLL
    for (int i = 0; i < FILTERS; i++)
        UNROLL
        for (int v = 0; v < vectors; v++)
            vst1q_s32(to + i * plane + 4 * v, sums[i][v]);
}

static void add_point(const int16_t *pixels, int pitch, const int16_t *weights, int channels,
                      int begins, int32_t *to, int plane, int tiles)
{
    for (; tiles > 8; tiles -= 12, pixels += 12, to += 12)
        add_products(pixels, pitch, weights, channels, begins, to, plane, 3);
    if (tiles > 4)
        add_products(pixels, pitch, weights, channels, begins, to, plane, 2);
    else if (tiles > 0)
        add_products(pixels, pitch, weights, channels, begins, to, plane, 1);
}

#endif

/* ---- results */

/* Compute 24 times the outputs, with 9 points 6 times. */
ALWAYS_INLINE void outputs_of_points(const int32x4_t *m, int32x4_t *y, int taps)
{
    if (taps == 2) {
        int32x4_t first = vaddq_s32(vshlq_n_s32(m[1], 1), m[1]);
        int32x4_t sum = vaddq_s32(first, m[2]), less = vsubq_s32(m[2], first);
        y[0] = plus_times(vsubq_s32(vaddq_s32(m[3], m[5]), sum), m[0], 3);
        y[1] = vaddq_s32(vaddq_s32(less, m[6]), vshlq_n_s32(m[3], 1));
        y[2] = vaddq_s32(vsubq_s32(m[7], sum), vshlq_n_s32(m[3], 2));
        y[3] = plus_times(vaddq_s32(vaddq_s32(less, m[8]), vshlq_n_s32(m[3], 3)), m[4], 6);
        return;
    }
    int32x4_t even = vshlq_n_s32(vaddq_s32(m[1], m[2]), 2), wide = vaddq_s32(m[3], m[4]);
    int32x4_t odd = vshlq_n_s32(vsubq_s32(m[1], m[2]), 2), far = vsubq_s32(m[3], m[4]);
    y[0] = plus_times(vsubq_s32(wide, even), m[0], 6);
    y[1] = vsubq_s32(vshlq_n_s32(far, 1), odd);
    y[2] = vsubq_s32(vshlq_n_s32(wide, 2), even);
    if (taps == 4)
        y[2] = plus_times(y[2], m[5], 24);
    else
        y[3] = plus_times(vsubq_s32(vshlq_n_s32(far, 3), odd), m[5], 24);
}

/* Compute the sums of four tiles, and add *bias to each. */
ALWAYS_INLINE void outputs_of_tiles(const int32_t *points, int step, const int32_t *bias,
                                    int32x4_t (*outputs)[SIDE], int taps)
{
    const int count = count_points(taps), side = get_tile_side(taps);
    int32x4_t between[MAX_POINTS][SIDE];
#ifdef TILE_SUMS_3
    if (taps == 3) {
        TILE_SUMS_3(points, 4 * step, bias, outputs[0]);
        return;
    }
    if (taps == 4) {
        TILE_SUMS_4(points, 4 * step, bias, outputs[0]);
        return;
    }
#endif
    int32x4_t start = vdupq_n_s32(*bias);
    ROLLED
    for (int i = 0; i < count; i++) {
        int32x4_t m[MAX_POINTS];
        UNROLL
        for (int j = 0; j < count; j++)
            m[j] = vld1q_s32(points + (i * count + j) * step);
        outputs_of_points(m, between[i], taps);
    }
    ROLLED
    for (int k = 0; k < side; k++) {
        int32x4_t m[MAX_POINTS], column[SIDE];
        UNROLL
        for (int i = 0; i < count; i++)
            m[i] = between[i][k];
        outputs_of_points(m, column, taps);
        UNROLL
        for (int i = 0; i < side; i++) {
            int32x4_t sums = times(column[i], NINTH);
            outputs[i][k] = taps == 2 ? vsraq_n_s32(start, sums, 2) : vsraq_n_s32(start, sums, 6);
        }
    }
}

typedef struct {
    const micro_window *window;
    const int32_t *bias;
    requantization requant;
    int plane; /* distance between the sums of two filters */
} winograd_result;

/* Add the sums of some channels to the stored sums, in FILTERS planes per output of a tile. */
ALWAYS_INLINE void store_sums(const int32_t *points, int32_t *partial_sums, int begins, int plane,
                              int tiles, int taps)
{
    const int side = get_tile_side(taps);
    int32_t no_bias = 0;
    ptrdiff_t step = FILTERS * plane;
    for (int f = 0; f < FILTERS; f++, points += plane, partial_sums += plane)
        for (int at = 0; at < tiles; at += 4) {
            int32x4_t outputs[SIDE][SIDE];
            outputs_of_tiles(points + at, step, &no_bias, outputs, taps);
            for (int i = 0; i < side * side; i++) {
                int32_t *partial_sum = partial_sums + at + i * step;
                int32x4_t addend = outputs[i / side][i % side];
                vst1q_s32(partial_sum, begins ? addend : vaddq_s32(vld1q_s32(partial_sum), addend));
            }
        }
}

/* Write the quantized values of a row of four tiles; tiles of three outputs write twelve bytes
   more. */
ALWAYS_INLINE void write_row(const requantization *requant, const int32x4_t *row, uint8_t *to,
                             int side)
{
    uint8x8_t levels[2];
    requantize_sixteen(row[0], row[2], row[1], row[side - 1], requant->factor, requant->factor,
                       requant->low, requant->high, levels);
    if (side == 3) {
        uint8x8x3_t three = {{levels[0], levels[1], vext_u8(levels[0], levels[0], 4)}};
        vst3_u8(to, three);
        return;
    }
    uint8x8x2_t pairs = vzip_u8(levels[0], levels[1]);
    uint16x4x2_t fours =
        vzip_u16(vreinterpret_u16_u8(pairs.val[0]), vreinterpret_u16_u8(pairs.val[1]));
    vst1q_u8(to, vcombine_u8(vreinterpret_u8_u16(fours.val[0]), vreinterpret_u8_u16(fours.val[1])));
}

/* Write four tiles of a row, without columns outside of the output. `partial_sums` may be NULL. */
ALWAYS_INLINE void write_tiles(const winograd_result *r, const int32_t *points,
                               const int32_t *partial_sums, uint8_t *plane, int y, int x,
                               int columns, int taps)
{
    const int side = get_tile_side(taps);
    ptrdiff_t step = FILTERS * r->plane;
    int32x4_t outputs[SIDE][SIDE];
    outputs_of_tiles(points, step, r->bias, outputs, taps);
    for (int i = 0; partial_sums && i < side * side; i++, partial_sums += step)
        outputs[i / side][i % side] =
            vaddq_s32(outputs[i / side][i % side], vld1q_s32(partial_sums));
    int rows = micro_min(side, r->window->out_height - y), width = r->window->out_width;
    /* bytes written after a row's tiles belong to tiles that are written later */
    int has_room = side == 3 ? x + 8 * side <= width : columns == 4 * side;
    uint8_t *to = plane + (ptrdiff_t)y * width + x, partial[32];
    for (int i = 0; i < rows; i++, to += width) {
        write_row(&r->requant, outputs[i], has_room ? to : partial, side);
        if (!has_room)
            memcpy(to, partial, (size_t)columns);
    }
}

/* Write the quantized values of a filter. */
ALWAYS_INLINE void write_filter(const winograd_result *r, const int32_t *sums,
                                const int32_t *partial_sums, uint8_t *y, int first, int tiles,
                                int taps)
{
    const micro_window *w = r->window;
    const int side = get_tile_side(taps);
    for (int at = 0; at < tiles;) {
        tile_run run = find_run(w, first, at, tiles, side);
        int end = micro_min(run.x + run.count * side, w->out_width);
        for (int k = 0; k < run.count; k += 4) {
            int x = run.x + k * side;
            write_tiles(r, sums + at + k, partial_sums ? partial_sums + at + k : NULL, y, run.y, x,
                        micro_min(4 * side, end - x), taps);
        }
        at += run.count;
    }
}

/* Compute the quantized values of `tiles` tiles from `first` on for a block of filters, from the
 * output of `pixels`, of which up to three rows after the last may be read. The result has
 * `filters` of these filters. Sums of `part` phases of channels, a multiple of CHANNELS, are
 * computed at once. Weights: for each channel and tap, one per filter. */
int32_t WINOGRAD(block)(const int16_t *pixels, const int8_t *weights, const int32_t *bias,
                        const float *factor, uint8_t *y, const int32_t *window, int first,
                        int tiles, int pitch, int filters, int pass_phases, int low, int high)
{
    const micro_window *w = (const micro_window *)window;
    int32_t sums[SUMS], partial_sums[SIDE * SIDE * FILTERS * (TILES + 4)];
    int16_t transformed[CHANNELS * AREA * FILTERS];
    int taps = count_taps(w), points = count_points(taps), plane = (tiles + 3) / 4 * 4 + 4;
    int phases = w->channels * count_phases(w, taps) * count_phases(w, taps);
    for (int channel = 0; channel < phases; channel += CHANNELS) {
        int count = micro_min(CHANNELS, phases - channel), begins = channel % pass_phases == 0;
        if (channel && begins && taps == 2)
            store_sums(sums, partial_sums, channel == pass_phases, plane, tiles, 2);
        else if (channel && begins && taps == 3)
            store_sums(sums, partial_sums, channel == pass_phases, plane, tiles, 3);
        else if (channel && begins)
            store_sums(sums, partial_sums, channel == pass_phases, plane, tiles, 4);
        transform_weights(w, weights, channel, count, transformed);
        const int16_t *from = pixels + (ptrdiff_t)channel * pitch;
        int32_t *to = sums;
        for (int i = 0; i < points; i++)
            for (int j = 0; j < points;
                 j++, from += (ptrdiff_t)phases * pitch, to += FILTERS * plane) {
                int n = micro_min(j, WEIGHTS - 1) * WEIGHTS + micro_min(i, WEIGHTS - 1);
                ADD_POINT(from, pitch, transformed + n * FILTERS, (count + 3) / 4 * 4, begins, to,
                          plane, tiles);
            }
    }
    for (int f = 0; f < filters; f++, y += (ptrdiff_t)w->out_height * w->out_width) {
        winograd_result result = {w, bias + f, make_requantization(factor[f], low, high),
                                  plane};
        const int32_t *channel_sums = sums + f * plane;
        const int32_t *earlier_sums = phases > pass_phases ? partial_sums + f * plane : NULL;
        if (taps == 2)
            write_filter(&result, channel_sums, earlier_sums, y, first, tiles, 2);
        else if (taps == 3)
            write_filter(&result, channel_sums, earlier_sums, y, first, tiles, 3);
        else
            write_filter(&result, channel_sums, earlier_sums, y, first, tiles, 4);
    }
    return 0;
}
