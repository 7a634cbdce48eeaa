/* Winograd's convolution of levels, to the bit.
 *
 * A kernel's file defines before it includes this: WINOGRAD(what), its functions' names;
 * multiply_4, _8 and _12(pixels, pitch, weights, next, channels, sums), which add to the sums of as many
 * tiles the products of channels, whole fours, whose weights lie `next` numbers apart, or in their
 * place ADD_POINT, which does as add_point; plus_times and times, products of whole numbers. Where it
 * has a faster way to transform nine taps of stride 1, or of stride 2, NINE_TAPS does that.
 *
 * A filter of stride 2 is four of stride 1, one for each phase of rows and columns: tap 2 * i + u of
 * a filter is tap i of its phase u, which reads every second pixel. Phases are summed as channels are.
 * With three taps a side, points are 0, 1, -1, 2, -2 and infinity, as for floats, and tiles have 4x4
 * outputs; with four the same points do for 3x3. Of 3x3 taps of stride 2 a side has two of the first
 * phase, for which points 0, 1, -1, 2 and infinity give four outputs, and one of the second, whose
 * products are outputs: in all 9 points, of which the last four have one weight, and no phases.
 *
 * The rows of the weights' transform are multiplied by what makes them whole, so that everything is
 * whole numbers, and outputs are 24 * 24 times the sums, of 9 points 6 * 6 times. They are computed
 * modulo 2^32, in which 9 has an inverse; what is left is 64 or 4 times the sums, exact where those
 * are within 2^25 or 2^29, however large what lies between is. Who calls sees to it, by summing some
 * channels after others. Levels from -128 to 255 leave pixels' points within 17,340, and weights of
 * 127 theirs within 15 * 15 * 127, so that both have room in 16 bits.
 */
#include "requantize.h"
#include "winograd_tiles.h"

enum {
    MOST_POINTS = 9, /* of a side */
    WEIGHTS = 6,     /* of them with weights of their own */
    AREA = WEIGHTS * WEIGHTS,
    TAPS = 9,
    SUMS = MOST_POINTS * MOST_POINTS * 32 * FILTERS, /* as many tiles of 9 points are 28, and a vector */
    CHANNELS = 64,      /* whose weights are transformed at once */
    NINTH = 0x38E38E39, /* 9 * NINTH is 1 modulo 2^32 */
};

/* Before a loop of few turns whose numbers registers have room for in one turn alone. */
#define ROLLED _Pragma("GCC unroll 1")

/* What follows from the taps of a phase's side: 2 are those of 3x3 taps of stride 2. */
static inline int taps_of(const micro_window *w)
{
    return (w->kernel_width + w->stride_x - 1) / w->stride_x;
}

static inline int points_of(int taps) { return taps == 2 ? MOST_POINTS : WEIGHTS; }

static inline int side_of(int taps) { return taps == 4 ? 3 : SIDE; }

/* Phases of a channel that are summed: those of rows are as many as those of columns. */
static inline int phases_of(const micro_window *w, int taps)
{
    return taps == 2 ? 1 : w->stride_x;
}

/* ---- what tiles read */

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

/* Write what `columns` of each phase read of a row of the map; columns are whole eights. */
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
            int16x8x2_t both = vld2q_s16(wide + 2 * k);
            vst1q_s16(even + k, both.val[0]);
            vst1q_s16(odd + k, both.val[1]);
        }
    }
}

/* Columns of rows become columns of their points. */
ALWAYS_INLINE void transform_columns(int16_t (*rows)[COLUMNS], int columns, int taps)
{
    for (int x = 0; x < columns; x += 8) {
        int16x8_t d[MOST_POINTS], t[MOST_POINTS];
        UNROLL
        for (int i = 0; i < points_of(taps); i++)
            d[i] = vld1q_s16(rows[i] + x);
        points_of_pixels(d, t, taps);
        UNROLL
        for (int i = 0; i < points_of(taps); i++)
            vst1q_s16(rows[i] + x, t[i]);
    }
}

/* What eight tiles read of a row, `odd` being its second phase. */
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
    const int points = points_of(taps), side = side_of(taps);
    int phases = phases_of(w, taps), stride = w->stride_x;
    ptrdiff_t step = (ptrdiff_t)w->channels * phases * phases * c->pitch;
    int16_t rows[2][MOST_POINTS][COLUMNS];
    for (int at = 0; at < c->tiles;) {
        tile_run run = run_of(w, c->first, at, c->tiles, side);
        int columns = (run.count + 7) / 8 * 8 * side + 8;
        for (int u = 0; u < phases; u++) {
            int y = run.y * stride + u - w->top, x = run.x * stride - w->left;
            for (int i = 0; i < points; i++)
                read_row(w, c->plane, y + i * phases, x, columns, rows[0][i], rows[1][i]);
            for (int v = 0; v < stride; v++)
                transform_columns(rows[v], columns, taps);
            for (int v = 0; v < phases; v++)
                /* what the last eight of a row have too many, the next row's overwrite */
                for (int k = 0; k < run.count; k += 8) {
                    int16_t *tile = c->to + (u * phases + v) * c->pitch + at + k;
                    for (int i = 0; i < points; i++) {
                        int16x8_t d[MOST_POINTS], t[MOST_POINTS];
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

/* Write the points of one channel of `tiles` tiles from `first` on: for each point and phase of a
 * channel `pitch` numbers, at least seven more than tiles. */
int32_t WINOGRAD(pixels)(const uint8_t *map, int16_t *to, const int32_t *window, int first,
                         int tiles, int channel, int pitch)
{
    const micro_window *w = (const micro_window *)window;
    int taps = taps_of(w), phases = phases_of(w, taps);
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

/* Those of one phase of a channel, zero where the filter has none. */
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
    if (taps_of(w) == 3)
        transform_taps(g, to, 3);
    else
        transform_taps(g, to, 4);
}

#ifndef NINE_TAPS
#define NINE_TAPS transform_nine

/* Nine taps of a channel, as they lie. */
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

/* Transform the weights of some phases of channels of a block, and zeros up to a whole four. */
static void transform_weights(const micro_window *w, const int8_t *weights, int first, int count,
                              int16_t *to)
{
    int taps = taps_of(w), phases = phases_of(w, taps), area = w->kernel_height * w->kernel_width;
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

#endif

/* ---- results */

/* 24 times the outputs, of 9 points 6 times. */
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

/* The sums of four tiles, each added to *bias. */
ALWAYS_INLINE void outputs_of_tiles(const int32_t *points, int step, const int32_t *bias,
                                    int32x4_t (*found)[SIDE], int taps)
{
    const int count = points_of(taps), side = side_of(taps);
    int32x4_t between[MOST_POINTS][SIDE];
#ifdef TILE_SUMS_3
    if (taps == 3) {
        TILE_SUMS_3(points, 4 * step, bias, found[0]);
        return;
    }
    if (taps == 4) {
        TILE_SUMS_4(points, 4 * step, bias, found[0]);
        return;
    }
#endif
    int32x4_t start = vdupq_n_s32(*bias);
    ROLLED
    for (int i = 0; i < count; i++) {
        int32x4_t m[MOST_POINTS];
        UNROLL
        for (int j = 0; j < count; j++)
            m[j] = vld1q_s32(points + (i * count + j) * step);
        outputs_of_points(m, between[i], taps);
    }
    ROLLED
    for (int k = 0; k < side; k++) {
        int32x4_t m[MOST_POINTS], column[SIDE];
        UNROLL
        for (int i = 0; i < count; i++)
            m[i] = between[i][k];
        outputs_of_points(m, column, taps);
        UNROLL
        for (int i = 0; i < side; i++) {
            int32x4_t sums = times(column[i], NINTH);
            found[i][k] = taps == 2 ? vsraq_n_s32(start, sums, 2) : vsraq_n_s32(start, sums, 6);
        }
    }
}

typedef struct {
    const micro_window *window;
    const int32_t *bias;
    requantization how;
    int plane; /* from the sums of a filter to the next one's */
} winograd_result;

/* Add the sums of some channels to those that are kept, for each output of a tile FILTERS planes. */
ALWAYS_INLINE void keep_sums(const int32_t *points, int32_t *kept, int begins, int plane, int tiles,
                             int taps)
{
    const int side = side_of(taps);
    int32_t nothing = 0;
    ptrdiff_t step = FILTERS * plane;
    for (int f = 0; f < FILTERS; f++, points += plane, kept += plane)
        for (int at = 0; at < tiles; at += 4) {
            int32x4_t found[SIDE][SIDE];
            outputs_of_tiles(points + at, step, &nothing, found, taps);
            for (int i = 0; i < side * side; i++) {
                int32_t *own = kept + at + i * step;
                int32x4_t more = found[i / side][i % side];
                vst1q_s32(own, begins ? more : vaddq_s32(vld1q_s32(own), more));
            }
        }
}

/* Write the levels of four tiles' row, of tiles of three outputs twelve more than these. */
ALWAYS_INLINE void write_row(const requantization *how, const int32x4_t *row, uint8_t *to, int side)
{
    uint8x8_t levels[2];
    requantize_sixteen(row[0], row[2], row[1], row[side - 1], how->factor, how->factor, how->low,
                       how->high, levels);
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

/* Four tiles of a row: those levels of them that the output has. `kept` may be NULL. */
ALWAYS_INLINE void write_tiles(const winograd_result *r, const int32_t *points, const int32_t *kept,
                               uint8_t *plane, int y, int x, int columns, int taps)
{
    const int side = side_of(taps);
    ptrdiff_t step = FILTERS * r->plane;
    int32x4_t found[SIDE][SIDE];
    outputs_of_tiles(points, step, r->bias, found, taps);
    for (int i = 0; kept && i < side * side; i++, kept += step)
        found[i / side][i % side] = vaddq_s32(found[i / side][i % side], vld1q_s32(kept));
    int rows = micro_least(side, r->window->out_height - y), width = r->window->out_width;
    /* what is written beside a row's tiles is that of those behind them, which come later */
    int room = side == 3 ? x + 8 * side <= width : columns == 4 * side;
    uint8_t *to = plane + (ptrdiff_t)y * width + x, some[32];
    for (int i = 0; i < rows; i++, to += width) {
        write_row(&r->how, found[i], room ? to : some, side);
        if (!room)
            memcpy(to, some, (size_t)columns);
    }
}

/* The levels of a filter. */
ALWAYS_INLINE void write_filter(const winograd_result *r, const int32_t *sums, const int32_t *kept,
                                uint8_t *y, int first, int tiles, int taps)
{
    const micro_window *w = r->window;
    const int side = side_of(taps);
    for (int at = 0; at < tiles;) {
        tile_run run = run_of(w, first, at, tiles, side);
        int end = micro_least(run.x + run.count * side, w->out_width);
        for (int k = 0; k < run.count; k += 4) {
            int x = run.x + k * side;
            write_tiles(r, sums + at + k, kept ? kept + at + k : NULL, y, run.y, x,
                        micro_least(4 * side, end - x), taps);
        }
        at += run.count;
    }
}

/* Compute the levels of `tiles` tiles from `first` on of a block of filters, of which the result has
 * `filters`, from what `pixels` wrote; up to three rows behind it may be read. Sums of `part` phases
 * of channels, a multiple of CHANNELS, are computed at once. Weights: for each channel and tap one
 * of each filter. */
int32_t WINOGRAD(block)(const int16_t *pixels, const int8_t *weights, const int32_t *bias,
                        const float *factor, uint8_t *y, const int32_t *window, int first,
                        int tiles, int pitch, int filters, int part, int low, int high)
{
    const micro_window *w = (const micro_window *)window;
    int32_t sums[SUMS], kept[SIDE * SIDE * FILTERS * (TILES + 4)];
    int16_t transformed[CHANNELS * AREA * FILTERS];
    int taps = taps_of(w), points = points_of(taps), plane = (tiles + 3) / 4 * 4 + 4;
    int all = w->channels * phases_of(w, taps) * phases_of(w, taps);
    for (int channel = 0; channel < all; channel += CHANNELS) {
        int count = micro_least(CHANNELS, all - channel), begins = channel % part == 0;
        if (channel && begins && taps == 2)
            keep_sums(sums, kept, channel == part, plane, tiles, 2);
        else if (channel && begins && taps == 3)
            keep_sums(sums, kept, channel == part, plane, tiles, 3);
        else if (channel && begins)
            keep_sums(sums, kept, channel == part, plane, tiles, 4);
        transform_weights(w, weights, channel, count, transformed);
        const int16_t *from = pixels + (ptrdiff_t)channel * pitch;
        int32_t *to = sums;
        for (int i = 0; i < points; i++)
            for (int j = 0; j < points; j++, from += (ptrdiff_t)all * pitch, to += FILTERS * plane) {
                int n = micro_least(j, WEIGHTS - 1) * WEIGHTS + micro_least(i, WEIGHTS - 1);
                ADD_POINT(from, pitch, transformed + n * FILTERS, (count + 3) / 4 * 4, begins, to,
                          plane, tiles);
            }
    }
    for (int f = 0; f < filters; f++, y += (ptrdiff_t)w->out_height * w->out_width) {
        winograd_result result = {w, bias + f, requantization_of(factor[f], low, high),
                                  plane};
        const int32_t *own = sums + f * plane, *before = all > part ? kept + f * plane : NULL;
        if (taps == 2)
            write_filter(&result, own, before, y, first, tiles, 2);
        else if (taps == 3)
            write_filter(&result, own, before, y, first, tiles, 3);
        else
            write_filter(&result, own, before, y, first, tiles, 4);
    }
    return 0;
}
