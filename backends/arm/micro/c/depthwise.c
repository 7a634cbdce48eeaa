/* A depthwise convolution of one channel, with 8-bit values widened to 16 bits.
 *
 * A band of the map's rows is copied with its border as int16. Its columns are split into as many
 * phases as the stride, so that each tap reads consecutive elements. Two rows of the output share
 * their loads.
 */
#include "requantize.h"

enum { PIXELS = 8, MAX_TAPS = 28 };

/* The layout of a band. */
typedef struct {
    int phases, columns; /* per row; phases * columns elements */
    int rows;
} band_form;

static band_form compute_form(const micro_window *w)
{
    band_form form;
    int wide = (w->out_width + PIXELS - 1) / PIXELS * PIXELS;
    form.phases = w->stride_x;
    form.columns = wide + (w->kernel_width - 1) * w->dilation_x / w->stride_x;
    form.rows = (w->band - 1) * w->stride_y + (w->kernel_height - 1) * w->dilation_y + 1;
    return form;
}

#if defined(__ARM_NEON)
static inline int16x8_t widen_eight(uint8x8_t levels, int offset)
{
    if (offset == 0x80)
        return vreinterpretq_s16_u16(vmovl_u8(levels));
    if (offset == 0)
        return vmovl_s8(vreinterpret_s8_u8(levels));
    return vaddw_s8(vdupq_n_s16((int16_t)offset),
                    vreinterpret_s8_u8(vsub_u8(levels, vdup_n_u8((uint8_t)offset))));
}

/* Widen eight or more consecutive values; the last vector overlaps the one before. */
static inline void widen_contiguous(const uint8_t *from, int offset, int count, int16_t *to)
{
    const uint8_t *last = from + count - PIXELS;
    for (; from < last; from += PIXELS, to += PIXELS)
        vst1q_s16(to, widen_eight(vld1_u8(from), offset));
    vst1q_s16(to - (from - last), widen_eight(vld1_u8(last), offset));
}

/* Widen every second of more than eight values. The last vector begins a byte earlier, because
 * bytes after the values must not be read. */
static inline void widen_stride_2(const uint8_t *from, int offset, int count, int16_t *to)
{
    const uint8_t *last = from + 2 * (count - PIXELS);
    for (; from < last; from += 2 * PIXELS, to += PIXELS)
        vst1q_s16(to, widen_eight(vld2_u8(from).val[0], offset));
    vst1q_s16(to - (from - last) / 2, widen_eight(vld2_u8(last - 1).val[1], offset));
}

static const uint8_t lane_masks[2 * PIXELS] = {255, 255, 255, 255, 255, 255, 255, 255};

/* Widen values in vectors; return how many were widened. Up to eight values need as many readable
 * bytes as a full vector, and space for eight. */
static inline int widen_vectors(const uint8_t *from, ptrdiff_t bytes, int step, int offset, int count,
                                int capacity, int16_t *to)
{
    if (step > 2)
        return 0;
    if (step == 1 ? count >= PIXELS : count > PIXELS) {
        if (step == 1 && offset == 0x80)
            widen_contiguous(from, 0x80, count, to);
        else if (step == 1 && offset == 0)
            widen_contiguous(from, 0, count, to);
        else if (step == 1)
            widen_contiguous(from, offset, count, to);
        else
            widen_stride_2(from, offset, count, to);
        return count;
    }
    if (capacity < PIXELS || bytes < step * PIXELS)
        return 0;
    uint8x8_t values = step == 1 ? vld1_u8(from) : vld2_u8(from).val[0];
    values = vand_u8(values, vld1_u8(lane_masks + PIXELS - count));
    vst1q_s16(to, widen_eight(values, offset));
    return count;
}
#endif

/* Widen every `step`th value, `count` of them, from `bytes` readable bytes. The rest of the
 * `capacity` elements is 0, and may be written. */
static inline void widen_values(const uint8_t *from, ptrdiff_t bytes, int step, int offset, int count,
                                int capacity, int16_t *to)
{
    int p = 0;
#if defined(__ARM_NEON)
    p = widen_vectors(from, bytes, step, offset, count, capacity, to);
#else
    (void)bytes, (void)capacity;
#endif
    for (; p < count; p++)
        to[p] = (int16_t)read_value(from[p * step], offset);
}

/* The elements of a phase that are values of the map: element p is its column
 * p * stride + phase - left. */
typedef struct {
    int first, count, column;
} band_span;

static band_span compute_span(const micro_window *w, const band_form *form, int phase)
{
    int shift = w->left - phase, step = w->stride_x;
    int first = shift > 0 ? (shift + step - 1) / step : 0;
    int end = w->width - 1 + shift < 0 ? 0 : (w->width - 1 + shift) / step + 1;
    return (band_span){first, micro_max(0, micro_min(end, form->columns) - first),
                       first * step - shift};
}

/* Write the rows of a band that begins at the map's row `top`; the elements before and after a
 * row's values are already 0. */
static void fill_band(const uint8_t *map, const micro_window *w, const band_form *form, int top,
                      int16_t *band)
{
    const uint8_t *end = map + (ptrdiff_t)w->height * w->width;
    int line = form->phases * form->columns;
    for (int phase = 0; phase < form->phases; phase++) {
        band_span span = compute_span(w, form, phase);
        int16_t *to = band + phase * form->columns + span.first;
        for (int i = 0; i < form->rows && span.count; i++, to += line) {
            const uint8_t *from = map + (ptrdiff_t)(top + i) * w->width + span.column;
            if (top + i >= 0 && top + i < w->height)
                widen_values(from, end - from, w->stride_x, w->offset, span.count,
                             form->columns - span.first, to);
            else
                memset(to, 0, sizeof *to * (size_t)span.count);
        }
    }
}

/* Sums of eight columns of two rows. */
#if defined(__ARM_NEON)
typedef struct {
    int32x4_t values[2][2];
} pair;

typedef struct {
    int16x4_t values[MAX_TAPS / 4];
} taps;

static inline void load_taps(taps *window_taps, const int16_t *weights, int count)
{
    UNROLL
    for (int i = 0; 4 * i < count; i++)
        window_taps->values[i] = vld1_s16(weights + 4 * i);
}

#if defined(__aarch64__)
#define MULTIPLY(sum, half, x, four, lane) \
    sum = vmlal_lane_s16(sum, vget_##half##_s16(x), four, lane)
#else
/* compilers broadcast each lane to a register, and run out of registers */
#define low_half "e"
#define high_half "f"
#define MULTIPLY(sum, half, x, four, lane) \
    __asm__ volatile("vmlal.s16 %q0, %" half##_half "1, %P2[%c3]" \
                     : "+w"(sum) : "w"(x), "x"(four), "i"(lane))
#endif
#define ADD(row, x, tap) \
    do { \
        int16x4_t four = weights->values[((tap) & 31) / 4]; \
        MULTIPLY(s->values[row][0], low, x, four, (tap) & 3); \
        MULTIPLY(s->values[row][1], high, x, four, (tap) & 3); \
    } while (0)
#define READ(x, from) int16x8_t x = vld1q_s16(from)

static inline void start_pair(pair *s, int32_t bias)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        s->values[i / 2][i % 2] = vdupq_n_s32(bias);
}

static inline void add_tap(pair *s, int row, const int16_t *from, int16_t weight)
{
    int16x8_t x = vld1q_s16(from);
    s->values[row][0] = vmlal_n_s16(s->values[row][0], vget_low_s16(x), weight);
    s->values[row][1] = vmlal_n_s16(s->values[row][1], vget_high_s16(x), weight);
}

/* Write both rows, the second before the first. */
static inline void write_pair(const pair *s, const requantization *requant, uint8_t *first,
                              uint8_t *second)
{
    uint8x8_t levels[2];
    requantize_sixteen(s->values[0][0], s->values[0][1], s->values[1][0], s->values[1][1],
                       requant->factor, requant->factor, requant->low, requant->high, levels);
    vst1_u8(second, levels[1]);
    vst1_u8(first, levels[0]);
}
#else
typedef struct {
    int32_t values[2][PIXELS];
} pair;

typedef struct {
    int16_t values[MAX_TAPS];
} taps;

static inline void load_taps(taps *window_taps, const int16_t *weights, int count)
{
    memcpy(window_taps->values, weights, sizeof *weights * (size_t)count);
}

#define ADD(row, x, tap) add_tap(s, row, x, weights->values[(tap) & 31])
#define READ(x, from) const int16_t *x = from

static inline void start_pair(pair *s, int32_t bias)
{
    for (int u = 0; u < PIXELS; u++)
        s->values[0][u] = s->values[1][u] = bias;
}

static inline void add_tap(pair *s, int row, const int16_t *from, int16_t weight)
{
    for (int u = 0; u < PIXELS; u++)
        s->values[row][u] += from[u] * weight;
}

/* Write both rows, the second before the first. */
static inline void write_pair(const pair *s, const requantization *requant, uint8_t *first,
                              uint8_t *second)
{
    for (int u = 0; u < PIXELS; u++)
        second[u] = requantize_one(s->values[1][u], requant->factor, requant->low, requant->high);
    for (int u = 0; u < PIXELS; u++)
        first[u] = requantize_one(s->values[0][u], requant->factor, requant->low, requant->high);
}
#endif

/* One tap of row i of the band: row i of the first window, and row i - stride of the second. */
#define TAP(x, i, j, size, stride) \
    do { \
        if ((i) < (size)) \
            ADD(0, x, (i) * (size) + (j)); \
        if ((i) >= (stride)) \
            ADD(1, x, ((i) - (stride)) * (size) + (j)); \
    } while (0)
/* Load all taps of a row first, so that no product waits for memory. */
#define ROW2(i, stride, odd) \
    do { \
        const int16_t *from = at + (i) * line; \
        READ(x0, from); \
        READ(x1, from + (odd)); \
        TAP(x0, i, 0, 2, stride); \
        TAP(x1, i, 1, 2, stride); \
    } while (0)
#define ROW3(i, stride, odd) \
    do { \
        const int16_t *from = at + (i) * line; \
        READ(x0, from); \
        READ(x1, from + ((stride) == 1 ? 1 : (odd))); \
        READ(x2, from + ((stride) == 1 ? 2 : 1)); \
        TAP(x0, i, 0, 3, stride); \
        TAP(x1, i, 1, 3, stride); \
        TAP(x2, i, 2, 3, stride); \
    } while (0)
#define ROW5(i, stride, odd) \
    do { \
        const int16_t *from = at + (i) * line; \
        READ(x0, from); \
        READ(x1, from + ((stride) == 1 ? 1 : (odd))); \
        READ(x2, from + ((stride) == 1 ? 2 : 1)); \
        READ(x3, from + ((stride) == 1 ? 3 : (odd) + 1)); \
        READ(x4, from + ((stride) == 1 ? 4 : 2)); \
        TAP(x0, i, 0, 5, stride); \
        TAP(x1, i, 1, 5, stride); \
        TAP(x2, i, 2, 5, stride); \
        TAP(x3, i, 3, 5, stride); \
        TAP(x4, i, 4, 5, stride); \
    } while (0)

/* `at` is the start of the first window in the band, `line` the length of a row. */
static inline void add_2x2_s2(pair *s, const taps *weights, const int16_t *at, int line)
{
    int odd = line / 2;
    ROW2(0, 2, odd);
    ROW2(1, 2, odd);
    ROW2(2, 2, odd);
    ROW2(3, 2, odd);
}

static inline void add_3x3_s1(pair *s, const taps *weights, const int16_t *at, int line)
{
    ROW3(0, 1, 0);
    ROW3(1, 1, 0);
    ROW3(2, 1, 0);
    ROW3(3, 1, 0);
}

static inline void add_3x3_s2(pair *s, const taps *weights, const int16_t *at, int line)
{
    int odd = line / 2;
    ROW3(0, 2, odd);
    ROW3(1, 2, odd);
    ROW3(2, 2, odd);
    ROW3(3, 2, odd);
    ROW3(4, 2, odd);
}

static inline void add_5x5_s1(pair *s, const taps *weights, const int16_t *at, int line)
{
    ROW5(0, 1, 0);
    ROW5(1, 1, 0);
    ROW5(2, 1, 0);
    ROW5(3, 1, 0);
    ROW5(4, 1, 0);
    ROW5(5, 1, 0);
}

static inline void add_5x5_s2(pair *s, const taps *weights, const int16_t *at, int line)
{
    int odd = line / 2;
    ROW5(0, 2, odd);
    ROW5(1, 2, odd);
    ROW5(2, 2, odd);
    ROW5(3, 2, odd);
    ROW5(4, 2, odd);
    ROW5(5, 2, odd);
    ROW5(6, 2, odd);
}

/* Add any window, one tap after another. */
static void add_any(pair *s, const int16_t *weights, const int16_t *at, int line,
                    const micro_window *w, const band_form *form)
{
    for (int i = 0; i < w->kernel_height; i++)
        for (int j = 0; j < w->kernel_width; j++, weights++) {
            int across = j * w->dilation_x;
            const int16_t *from = at + i * w->dilation_y * line;
            from += across % form->phases * form->columns + across / form->phases;
            add_tap(s, 0, from, *weights);
            if (w->band > 1) /* a band of one row has no second row */
                add_tap(s, 1, from + w->stride_y * line, *weights);
        }
}

static int get_kind(const micro_window *w)
{
    int size = w->kernel_height, stride = w->stride_y;
    int square = w->kernel_width == size && w->stride_x == stride;
    int is_supported = square && w->dilation_x == 1 && w->dilation_y == 1 && stride <= 2 &&
                       w->band > 1;
    return is_supported ? 10 * size + stride : 0;
}

typedef struct {
    const micro_window *window;
    const int16_t *weights;
    float factor;
    int32_t bias;
    int low, high;
} channel;

/* Write rows of fewer than eight values. */
static void write_narrow_strip(const channel *c, const pair *s, const requantization *requant,
                               uint8_t *first, uint8_t *second)
{
    uint8_t rows[2][PIXELS];
    size_t count = (size_t)c->window->out_width;
    write_pair(s, requant, rows[0], rows[1]);
    memcpy(second, rows[1], count);
    memcpy(first, rows[0], count);
}

/* Write two rows of values, tile by tile; the last tile overlaps the one before it. The second row
 * goes to `second`. If there is none, `second` is `first`, which is written last. */
#define STRIP(name, add, size) \
    static void name(const channel *c, const band_form *form, const int16_t *band, uint8_t *first, \
                     uint8_t *second) \
    { \
        int width = c->window->out_width, line = form->phases * form->columns; \
        int32_t bias = c->bias; \
        requantization requant = make_requantization(c->factor, c->low, c->high); \
        taps tap_weights; \
        load_taps(&tap_weights, c->weights, (size) * (size)); \
        for (int x = 0; x < width; x += PIXELS) { \
            int at = micro_max(0, micro_min(x, width - PIXELS)); \
            pair s; \
            start_pair(&s, bias); \
            add(&s, &tap_weights, band + at, line); \
            if (width >= PIXELS) \
                write_pair(&s, &requant, first + at, second + at); \
            else \
                write_narrow_strip(c, &s, &requant, first, second); \
        } \
    }
STRIP(write_2x2_s2, add_2x2_s2, 2)
STRIP(write_3x3_s1, add_3x3_s1, 3)
STRIP(write_3x3_s2, add_3x3_s2, 3)
STRIP(write_5x5_s1, add_5x5_s1, 5)
STRIP(write_5x5_s2, add_5x5_s2, 5)

static void write_any(const channel *c, const band_form *form, const int16_t *band, uint8_t *first,
                      uint8_t *second)
{
    int width = c->window->out_width, line = form->phases * form->columns;
    requantization requant = make_requantization(c->factor, c->low, c->high);
    for (int x = 0; x < width; x += PIXELS) {
        int at = micro_max(0, micro_min(x, width - PIXELS));
        pair s;
        start_pair(&s, c->bias);
        add_any(&s, c->weights, band + at, line, c->window, form);
        if (width >= PIXELS)
            write_pair(&s, &requant, first + at, second + at);
        else
            write_narrow_strip(c, &s, &requant, first, second);
    }
}

typedef void (*strip)(const channel *, const band_form *, const int16_t *, uint8_t *, uint8_t *);

static strip select_strip(const micro_window *w)
{
    switch (get_kind(w)) {
    case 22:
        return write_2x2_s2;
    case 31:
        return write_3x3_s1;
    case 32:
        return write_3x3_s2;
    case 51:
        return write_5x5_s1;
    case 52:
        return write_5x5_s2;
    default:
        return write_any;
    }
}

/* Write a plane of windows with one tap, without bands. */
static void write_1x1_plane(const channel *c, const uint8_t *map, uint8_t *y)
{
    int pixels = c->window->out_height * c->window->out_width, offset = c->window->offset, p = 0;
#if defined(__ARM_NEON)
    requantization requant = make_requantization(c->factor, c->low, c->high);
    int32x4_t bias = vdupq_n_s32(c->bias);
    int16x4_t weight = vdup_n_s16(*c->weights);
    for (; p + 2 * PIXELS <= pixels; p += 2 * PIXELS) {
        uint8x16_t levels = vld1q_u8(map + p);
        int16x8_t x = widen_eight(vget_low_u8(levels), offset);
        int16x8_t z = widen_eight(vget_high_u8(levels), offset);
        uint8x8_t to[2];
        requantize_sixteen(vmlal_s16(bias, vget_low_s16(x), weight),
                           vmlal_s16(bias, vget_high_s16(x), weight),
                           vmlal_s16(bias, vget_low_s16(z), weight),
                           vmlal_s16(bias, vget_high_s16(z), weight), requant.factor,
                           requant.factor, requant.low, requant.high, to);
        vst1_u8(y + p, to[0]);
        vst1_u8(y + p + PIXELS, to[1]);
    }
#endif
    for (; p < pixels; p++) {
        int32_t sum = c->bias + read_value(map[p], offset) * *c->weights;
        y[p] = requantize_one(sum, c->factor, c->low, c->high);
    }
}

#if defined(__ARM_NEON)
/* Return whether windows are means of 2x2 values inside of the map. */
static int is_halving(const channel *c)
{
    const micro_window *w = c->window;
    const int16_t *k = c->weights;
    return get_kind(w) == 22 && w->top == 0 && w->left == 0 && 2 * w->out_height <= w->height &&
           2 * w->out_width <= w->width && w->out_width >= PIXELS && k[0] == k[1] &&
           k[0] == k[2] && k[0] == k[3];
}

/* Return the sums of eight 2x2 windows. */
static inline int16x8_t sum_2x2(const uint8_t *from, int width, int offset)
{
    uint8x16_t a = vld1q_u8(from), b = vld1q_u8(from + width);
    if (offset == 0x80)
        return vreinterpretq_s16_u16(vpadalq_u8(vpaddlq_u8(a), b));
    uint8x16_t shift = vdupq_n_u8((uint8_t)offset);
    int8x16_t c = vreinterpretq_s8_u8(vsubq_u8(a, shift));
    int8x16_t d = vreinterpretq_s8_u8(vsubq_u8(b, shift));
    return vaddq_s16(vpadalq_s8(vpaddlq_s8(c), d), vdupq_n_s16((int16_t)(4 * offset)));
}

/* Compute a plane of such windows without a band, two rows at once. */
static void halve_plane(const channel *c, const uint8_t *map, uint8_t *y)
{
    int width = c->window->width, out = c->window->out_width, rows = c->window->out_height;
    int offset = c->window->offset;
    requantization requant = make_requantization(c->factor, c->low, c->high);
    int32x4_t bias = vdupq_n_s32(c->bias);
    int16x4_t weight = vdup_n_s16(*c->weights);
    for (int r = 0; r < rows; r += 2, map += 4 * width, y += 2 * out) {
        int has_second = r + 1 < rows; /* otherwise both rows are the same */
        for (int x = 0; x < out; x += PIXELS) {
            int at = micro_min(x, out - PIXELS);
            int16x8_t above = sum_2x2(map + 2 * at, width, offset);
            int16x8_t below = sum_2x2(map + 2 * (at + has_second * width), width, offset);
            pair s = {{{vmlal_s16(bias, vget_low_s16(above), weight),
                        vmlal_s16(bias, vget_high_s16(above), weight)},
                       {vmlal_s16(bias, vget_low_s16(below), weight),
                        vmlal_s16(bias, vget_high_s16(below), weight)}}};
            write_pair(&s, &requant, y + at, y + at + has_second * out);
        }
    }
}
#endif

/* Write the quantized values of one filter's plane. Weights are int16, padded with zeros to full
 * quads; `band` is memory for the window's band, which has one row or an even number of rows. */
int32_t micro_depthwise_levels(const uint8_t *map, const int16_t *weights, const int32_t *bias,
                               const float *factor, uint8_t *y, const int32_t *window,
                               int16_t *band, int low, int high)
{
    const micro_window *w = (const micro_window *)window;
    channel c = {w, weights, *factor, *bias, low, high};
    if (w->kernel_height * w->kernel_width * w->stride_y * w->stride_x == 1 &&
        w->out_height == w->height && w->out_width == w->width) {
        write_1x1_plane(&c, map, y);
        return 0;
    }
#if defined(__ARM_NEON)
    if (is_halving(&c)) {
        halve_plane(&c, map, y);
        return 0;
    }
#endif
    band_form form = compute_form(w);
    int line = form.phases * form.columns, step = w->band > 1 ? 2 : 1;
    strip write = select_strip(w);
    memset(band, 0, sizeof *band * (size_t)(form.rows * line));
    for (int top = 0; top < w->out_height; top += w->band) {
        fill_band(map, w, &form, top * w->stride_y - w->top, band);
        for (int r = 0; r < w->band && top + r < w->out_height; r += step) {
            uint8_t *first = y + (ptrdiff_t)(top + r) * w->out_width;
            int has_second = step == 2 && top + r + 1 < w->out_height;
            write(&c, &form, band + (ptrdiff_t)r * w->stride_y * line, first,
                  has_second ? first + w->out_width : first);
        }
    }
    return 0;
}
