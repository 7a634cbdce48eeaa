/* Winograd's convolution of levels, to the bit: tiles of 4x4 outputs, filters of 3x3 taps.
 *
 * A kernel's file defines before it includes this: WINOGRAD(what), its functions' names;
 * multiply_4, _8 and _12(pixels, pitch, weights, next, channels, sums), which add to the sums of as many
 * tiles the products of channels, whole fours, whose weights lie `next` numbers apart; and
 * plus_times and times, products of whole numbers.
 *
 * Points are 0, 1, -1, 2, -2 and infinity, as for floats, but the rows of the weights' transform are
 * multiplied by what makes them whole: so everything is whole numbers, and outputs are 24 * 24 times
 * the sums. They are computed modulo 2^32, in which 9 has an inverse; what is left is 64 times the
 * sums, exact where those are within 2^25, however large what lies between is. Who calls sees to it,
 * by summing some channels after others. Levels from -128 to 255 leave pixels' points within 17,340,
 * and weights of 127 theirs within 49 * 127, so that both have room in 16 bits.
 */
#include "requantize.h"
#include "winograd_tiles.h"

enum {
    POINTS = 6,
    AREA = POINTS * POINTS,
    TAPS = 9,
    CHANNELS = 64, /* whose weights are transformed at once */
    NINTH = 0x38E38E39, /* 9 * NINTH is 1 modulo 2^32 */
};

/* Before a loop of few turns whose numbers registers have room for in one turn alone. */
#define ROLLED _Pragma("GCC unroll 1")

/* ---- what tiles read */

static inline void points_of_pixels(const int16x8_t *d, int16x8_t *t)
{
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

/* Write `size` levels of a row from column `x` on in 16 bits, with zeros for those that lie outside. */
static inline void widen_row(const micro_window *w, const uint8_t *row, int x, int size, int16_t *to)
{
    int first = micro_least(micro_most(0, -x), size);
    int last = micro_most(micro_least(size, w->width - x), first), k = first;
    int16x8_t up = vdupq_n_s16((int16_t)w->flip);
    uint8x8_t flip = vdup_n_u8((uint8_t)w->flip);
    row += x;
    memset(to, 0, sizeof *to * (size_t)first);
    for (; k + 16 <= last; k += 16) {
        uint8x8_t a = veor_u8(vld1_u8(row + k), flip), b = veor_u8(vld1_u8(row + k + 8), flip);
        vst1q_s16(to + k, vaddw_s8(up, vreinterpret_s8_u8(a)));
        vst1q_s16(to + k + 8, vaddw_s8(up, vreinterpret_s8_u8(b)));
    }
    for (int more = k < last && last - first >= 8; more; more = k < last) {
        k = micro_least(k, last - 8);
        uint8x8_t a = veor_u8(vld1_u8(row + k), flip);
        vst1q_s16(to + k, vaddw_s8(up, vreinterpret_s8_u8(a)));
        k += 8;
    }
    for (; k < last; k++)
        to[k] = (int16_t)((int8_t)(row[k] ^ w->flip) + w->flip);
    memset(to + last, 0, sizeof *to * (size_t)(size - last));
}

/* Columns of six rows become columns of their points. */
static inline void transform_columns(int16_t (*rows)[COLUMNS], int columns)
{
    for (int x = 0; x < columns; x += 8) {
        int16x8_t d[POINTS], t[POINTS];
        UNROLL
        for (int i = 0; i < POINTS; i++)
            d[i] = vld1q_s16(rows[i] + x);
        points_of_pixels(d, t);
        UNROLL
        for (int i = 0; i < POINTS; i++)
            vst1q_s16(rows[i] + x, t[i]);
    }
}

/* Write the points of one channel of `tiles` tiles from `first` on: for each point and channel
 * `pitch` numbers, at least seven more than tiles. */
int32_t WINOGRAD(pixels)(const uint8_t *map, int16_t *to, const int32_t *window, int first,
                         int tiles, int channel, int pitch)
{
    const micro_window *w = (const micro_window *)window;
    const uint8_t *plane = map + (ptrdiff_t)channel * w->height * w->width;
    ptrdiff_t step = (ptrdiff_t)w->channels * pitch;
    int16_t rows[POINTS][COLUMNS];
    to += (ptrdiff_t)channel * pitch;
    for (int at = 0; at < tiles;) {
        tile_run run = run_at(w, first, at, tiles);
        int columns = (run.count + 7) / 8 * 32 + 8;
        for (int i = 0; i < POINTS; i++) {
            int y = run.y + i - w->top;
            if (y < 0 || y >= w->height)
                memset(rows[i], 0, sizeof *rows[i] * (size_t)columns);
            else
                widen_row(w, plane + (ptrdiff_t)y * w->width, run.x - w->left, columns, rows[i]);
        }
        transform_columns(rows, columns);
        /* what the last eight of a row have too many, the next row's overwrite */
        for (int k = 0; k < run.count; k += 8) {
            int16_t *tile = to + at + k;
            for (int i = 0; i < POINTS; i++) {
                int16x8x4_t a = vld4q_s16(rows[i] + k * SIDE);
                int16x8x4_t b = vld4q_s16(rows[i] + (k + 1) * SIDE);
                int16x8_t d[] = {a.val[0], a.val[1], a.val[2], a.val[3], b.val[0], b.val[1]};
                int16x8_t t[POINTS];
                points_of_pixels(d, t);
                UNROLL
                for (int j = 0; j < POINTS; j++, tile += step)
                    vst1q_s16(tile, t[j]);
            }
        }
        at += run.count;
    }
    return 0;
}

/* ---- weights */

static inline void points_of_taps(const int16x4_t *g, int16x4_t *t)
{
    int16x4_t ends = vadd_s16(g[0], g[2]), wide = vadd_s16(g[0], vshl_n_s16(g[2], 2));
    int16x4_t twice = vshl_n_s16(g[1], 1);
    t[0] = g[0];
    t[1] = vadd_s16(ends, g[1]);
    t[2] = vsub_s16(ends, g[1]);
    t[3] = vadd_s16(wide, twice);
    t[4] = vsub_s16(wide, twice);
    t[5] = g[2];
}

/* Taps of one channel of a block. */
static inline void transform_taps(const int8_t *weights, int16_t *to)
{
    int8x16_t first = vld1q_s8(weights), second = vld1q_s8(weights + 16);
    int16x8_t pairs[] = {vmovl_s8(vget_low_s8(first)), vmovl_s8(vget_high_s8(first)),
                         vmovl_s8(vget_low_s8(second)), vmovl_s8(vget_high_s8(second))};
    int32_t bytes;
    memcpy(&bytes, weights + 32, sizeof bytes);
    int16x4_t last = vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(bytes))));
    int16x4_t between[3][POINTS];
    UNROLL
    for (int i = 0; i < 3; i++) {
        int16x4_t g[3];
        UNROLL
        for (int j = 0; j < 3; j++) {
            int n = 3 * i + j;
            g[j] = n == 8 ? last : n % 2 ? vget_high_s16(pairs[n / 2]) : vget_low_s16(pairs[n / 2]);
        }
        points_of_taps(g, between[i]);
    }
    UNROLL
    for (int j = 0; j < POINTS; j++) {
        int16x4_t g[] = {between[0][j], between[1][j], between[2][j]}, t[POINTS];
        points_of_taps(g, t);
        UNROLL
        for (int i = 0; i < POINTS; i++)
            vst1_s16(to + (j * POINTS + i) * FILTERS, t[i]);
    }
}

/* ---- products */

/* Some vectors of tiles of one point; `vectors` is a constant of each call. Channels are whole fours. */
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

/* ---- results */

/* 24 times the outputs. */
static inline void outputs_of_points(const int32x4_t *m, int32x4_t *y)
{
    int32x4_t even = vshlq_n_s32(vaddq_s32(m[1], m[2]), 2), wide = vaddq_s32(m[3], m[4]);
    int32x4_t odd = vshlq_n_s32(vsubq_s32(m[1], m[2]), 2), far = vsubq_s32(m[3], m[4]);
    y[0] = plus_times(vsubq_s32(wide, even), m[0], 6);
    y[1] = vsubq_s32(vshlq_n_s32(far, 1), odd);
    y[2] = vsubq_s32(vshlq_n_s32(wide, 2), even);
    y[3] = plus_times(vsubq_s32(vshlq_n_s32(far, 3), odd), m[5], 24);
}

/* The sums of four tiles, each added to `bias`. */
static inline void outputs_of_tiles(const int32_t *points, ptrdiff_t step, int32x4_t bias,
                                    int32x4_t (*found)[SIDE])
{
    int32x4_t between[POINTS][SIDE];
    ROLLED
    for (int i = 0; i < POINTS; i++) {
        int32x4_t m[POINTS];
        UNROLL
        for (int j = 0; j < POINTS; j++)
            m[j] = vld1q_s32(points + (i * POINTS + j) * step);
        outputs_of_points(m, between[i]);
    }
    ROLLED
    for (int k = 0; k < SIDE; k++) {
        int32x4_t m[POINTS], column[SIDE];
        UNROLL
        for (int i = 0; i < POINTS; i++)
            m[i] = between[i][k];
        outputs_of_points(m, column);
        UNROLL
        for (int i = 0; i < SIDE; i++)
            found[i][k] = vsraq_n_s32(bias, times(column[i], NINTH), 6);
    }
}

/* Add the sums of some channels to those that are kept, for each output of a tile FILTERS planes. */
static void keep_sums(const int32_t *points, int32_t *kept, int begins, int plane, int tiles)
{
    ptrdiff_t step = FILTERS * plane;
    for (int f = 0; f < FILTERS; f++, points += plane, kept += plane)
        for (int at = 0; at < tiles; at += 4) {
            int32x4_t found[SIDE][SIDE];
            outputs_of_tiles(points + at, step, vdupq_n_s32(0), found);
            for (int i = 0; i < SIDE * SIDE; i++) {
                int32_t *own = kept + at + i * step;
                int32x4_t more = found[i / SIDE][i % SIDE];
                vst1q_s32(own, begins ? more : vaddq_s32(vld1q_s32(own), more));
            }
        }
}

typedef struct {
    const micro_window *window;
    int32x4_t bias;
    requantization how;
} winograd_result;

/* Four tiles of a row: those levels of them that the output has. `kept` may be NULL. */
static inline void write_tiles(const winograd_result *r, const int32_t *points, const int32_t *kept,
                               ptrdiff_t step, uint8_t *plane, int y, int x, int columns)
{
    int32x4_t found[SIDE][SIDE];
    outputs_of_tiles(points, step, r->bias, found);
    for (int i = 0; kept && i < SIDE * SIDE; i++, kept += step)
        found[i / SIDE][i % SIDE] = vaddq_s32(found[i / SIDE][i % SIDE], vld1q_s32(kept));
    int rows = micro_least(SIDE, r->window->out_height - y);
    uint8_t *to = plane + (ptrdiff_t)y * r->window->out_width + x;
    for (int i = 0; i < rows; i++, to += r->window->out_width) {
        uint8x8_t levels[2];
        requantize_sixteen(found[i][0], found[i][2], found[i][1], found[i][3], r->how.factor,
                           r->how.factor, r->how.low, r->how.high, levels);
        uint8x8x2_t pairs = vzip_u8(levels[0], levels[1]);
        uint16x4x2_t fours =
            vzip_u16(vreinterpret_u16_u8(pairs.val[0]), vreinterpret_u16_u8(pairs.val[1]));
        uint8x16_t row =
            vcombine_u8(vreinterpret_u8_u16(fours.val[0]), vreinterpret_u8_u16(fours.val[1]));
        if (columns == 4 * SIDE) {
            vst1q_u8(to, row);
        } else {
            uint8_t some[4 * SIDE];
            vst1q_u8(some, row);
            memcpy(to, some, (size_t)columns);
        }
    }
}

/* Compute the levels of `tiles` tiles from `first` on of a block of filters, of which the result has
 * `filters`, from what `pixels` wrote; up to three rows behind it may be read. Sums of `part` channels,
 * a multiple of CHANNELS, are computed at once. Weights: for each channel and tap one of each filter. */
int32_t WINOGRAD(block)(const int16_t *pixels, const int8_t *weights, const int32_t *bias,
                        const float *factor, uint8_t *y, const int32_t *window, int first,
                        int tiles, int pitch, int filters, int part, int low, int high)
{
    const micro_window *w = (const micro_window *)window;
    int32_t sums[AREA * FILTERS * (TILES + 4)], kept[SIDE * SIDE * FILTERS * (TILES + 4)];
    int16_t transformed[CHANNELS * AREA * FILTERS];
    int plane = (tiles + 3) / 4 * 4 + 4;
    for (int channel = 0; channel < w->channels; channel += CHANNELS) {
        int count = micro_least(CHANNELS, w->channels - channel), filled = (count + 3) / 4 * 4;
        if (channel && channel % part == 0)
            keep_sums(sums, kept, channel == part, plane, tiles);
        for (int k = 0; k < count; k++, weights += TAPS * FILTERS)
            transform_taps(weights, transformed + k * AREA * FILTERS);
        memset(transformed + count * AREA * FILTERS, 0,
               sizeof *transformed * AREA * FILTERS * (size_t)(filled - count));
        for (int p = 0; p < AREA; p++)
            add_point(pixels + ((ptrdiff_t)p * w->channels + channel) * pitch, pitch,
                      transformed + (p % POINTS * POINTS + p / POINTS) * FILTERS, filled,
                      channel % part == 0, sums + p * FILTERS * plane, plane, tiles);
    }
    for (int f = 0; f < filters; f++, y += (ptrdiff_t)w->out_height * w->out_width) {
        winograd_result result = {w, vdupq_n_s32(bias[f]), requantization_of(factor[f], low, high)};
        const int32_t *before = w->channels > part ? kept + f * plane : NULL;
        for (int at = 0; at < tiles;) {
            tile_run run = run_at(w, first, at, tiles);
            for (int k = 0; k < run.count; k += 4) {
                int x = run.x + k * SIDE, end = micro_least(run.x + run.count * SIDE, w->out_width);
                write_tiles(&result, sums + f * plane + at + k, before ? before + at + k : NULL,
                            FILTERS * plane, y, run.y, x, micro_least(4 * SIDE, end - x));
            }
            at += run.count;
        }
    }
    return 0;
}
