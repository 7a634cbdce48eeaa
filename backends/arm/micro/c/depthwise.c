/* A depthwise convolution of one channel, whose levels are widened to 16 bits.
 *
 * A band of the map's rows is copied with its border, as int16, its columns dealt into as many
 * phases as the stride is: then each tap reads neighbours. Two rows of the output share what they
 * read.
 */
#include "requantize.h"

enum { PIXELS = 8, MOST_TAPS = 28 };

/* Where a band's elements lie. */
typedef struct {
    int phases, columns; /* of a row; phases * columns elements */
    int rows;
} band_form;

static band_form form_of(const micro_window *w)
{
    band_form form;
    int wide = (w->out_width + PIXELS - 1) / PIXELS * PIXELS;
    form.phases = w->stride_x;
    form.columns = wide + (w->kernel_width - 1) * w->dilation_x / w->stride_x;
    form.rows = (w->band - 1) * w->stride_y + (w->kernel_height - 1) * w->dilation_y + 1;
    return form;
}

/* Widen every `step`th level, `count` of them. */
static inline void band_levels(const uint8_t *from, int step, int flip, int count, int16_t *to)
{
    int p = 0, sign = flip ? 0 : 0x80; /* (x ^ 0x80) - 0x80 widens a signed level */
#if defined(__ARM_NEON)
    int16x8_t zero = vdupq_n_s16((int16_t)sign);
    uint8x8_t turn = vdup_n_u8((uint8_t)sign);
    if (step == 1)
        for (; p + 8 <= count; p += 8) {
            uint16x8_t wide = vmovl_u8(veor_u8(vld1_u8(from + p), turn));
            vst1q_s16(to + p, vsubq_s16(vreinterpretq_s16_u16(wide), zero));
        }
    if (step == 2)
        for (; p + 9 <= count; p += 8) { /* it reads one byte beyond the last that it uses */
            uint16x8_t wide = vmovl_u8(veor_u8(vld2_u8(from + 2 * p).val[0], turn));
            vst1q_s16(to + p, vsubq_s16(vreinterpretq_s16_u16(wide), zero));
        }
#endif
    for (; p < count; p++)
        to[p] = (int16_t)((from[p * step] ^ sign) - sign);
}

/* Write a row of the band. */
static void band_row(const uint8_t *row, const micro_window *w, const band_form *form, int16_t *to)
{
    for (int phase = 0; phase < form->phases; phase++, to += form->columns) {
        /* element p is the map's column p * stride + phase - left */
        int shift = w->left - phase, step = w->stride_x, first = 0, last = 0;
        if (row) {
            first = shift > 0 ? (shift + step - 1) / step : 0;
            last = w->width - 1 + shift < 0 ? 0 : (w->width - 1 + shift) / step + 1;
            first = micro_least(first, form->columns);
            last = micro_most(first, micro_least(last, form->columns));
        }
        for (int p = 0; p < first; p++)
            to[p] = 0;
        if (row)
            band_levels(row + first * step - shift, step, w->flip, last - first, to + first);
        for (int p = last; p < form->columns; p++)
            to[p] = 0;
    }
}

/* Two rows of eight sums. */
#if defined(__ARM_NEON)
typedef struct {
    int32x4_t of[2][2];
} pair;

typedef struct {
    int16x4_t of[MOST_TAPS / 4];
} taps;

static inline void taps_read(taps *all, const int16_t *weights, int count)
{
    UNROLL
    for (int i = 0; 4 * i < count; i++)
        all->of[i] = vld1_s16(weights + 4 * i);
}

#define ADD(row, tap) \
    do { \
        int16x4_t four = weights->of[((tap) & 31) / 4]; \
        s->of[row][0] = vmlal_lane_s16(s->of[row][0], vget_low_s16(x), four, (tap) & 3); \
        s->of[row][1] = vmlal_lane_s16(s->of[row][1], vget_high_s16(x), four, (tap) & 3); \
    } while (0)
#define READ(from) int16x8_t x = vld1q_s16(from)

static inline void pair_start(pair *s, int32_t bias)
{
    UNROLL
    for (int i = 0; i < 4; i++)
        s->of[i / 2][i % 2] = vdupq_n_s32(bias);
}

static inline void pair_add(pair *s, int row, const int16_t *from, int16_t weight)
{
    int16x8_t x = vld1q_s16(from);
    s->of[row][0] = vmlal_n_s16(s->of[row][0], vget_low_s16(x), weight);
    s->of[row][1] = vmlal_n_s16(s->of[row][1], vget_high_s16(x), weight);
}

static inline void pair_write(const pair *s, int row, uint8_t *to, int count, float factor, int low,
                              int high)
{
    float32x4_t scale = vdupq_n_f32(factor);
    int16x8_t least = vdupq_n_s16((int16_t)low), most = vdupq_n_s16((int16_t)high);
    uint8x8_t levels = requantize_eight(s->of[row][0], s->of[row][1], scale, least, most);
    if (count == PIXELS) {
        vst1_u8(to, levels);
    } else {
        uint8_t all[PIXELS];
        vst1_u8(all, levels);
        memcpy(to, all, (size_t)count);
    }
}
#else
typedef struct {
    int32_t of[2][PIXELS];
} pair;

typedef struct {
    int16_t of[MOST_TAPS];
} taps;

static inline void taps_read(taps *all, const int16_t *weights, int count)
{
    memcpy(all->of, weights, sizeof *weights * (size_t)count);
}

#define ADD(row, tap) pair_add(s, row, x, weights->of[(tap) & 31])
#define READ(from) const int16_t *x = from

static inline void pair_start(pair *s, int32_t bias)
{
    for (int u = 0; u < PIXELS; u++)
        s->of[0][u] = s->of[1][u] = bias;
}

static inline void pair_add(pair *s, int row, const int16_t *from, int16_t weight)
{
    for (int u = 0; u < PIXELS; u++)
        s->of[row][u] += from[u] * weight;
}

static inline void pair_write(const pair *s, int row, uint8_t *to, int count, float factor, int low,
                              int high)
{
    uint8_t all[PIXELS];
    for (int u = 0; u < PIXELS; u++)
        all[u] = requantize_one(s->of[row][u], factor, low, high);
    memcpy(to, all, (size_t)count);
}
#endif

/* One tap of row i of the band, which is row i of the first window and i - stride of the second. */
#define TAP(i, j, size, stride, offset) \
    do { \
        READ(at + (i) * line + (offset)); \
        if ((i) < (size)) \
            ADD(0, (i) * (size) + (j)); \
        if ((i) >= (stride)) \
            ADD(1, ((i) - (stride)) * (size) + (j)); \
    } while (0)
#define ROW3(i, stride, odd) \
    do { \
        TAP(i, 0, 3, stride, 0); \
        TAP(i, 1, 3, stride, (stride) == 1 ? 1 : (odd)); \
        TAP(i, 2, 3, stride, (stride) == 1 ? 2 : 1); \
    } while (0)
#define ROW5(i, stride, odd) \
    do { \
        TAP(i, 0, 5, stride, 0); \
        TAP(i, 1, 5, stride, (stride) == 1 ? 1 : (odd)); \
        TAP(i, 2, 5, stride, (stride) == 1 ? 2 : 1); \
        TAP(i, 3, 5, stride, (stride) == 1 ? 3 : (odd) + 1); \
        TAP(i, 4, 5, stride, (stride) == 1 ? 4 : 2); \
    } while (0)

/* `at` is where the first window begins in the band, `line` the length of a row. */
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

/* Any window, a tap after another. */
static void add_any(pair *s, const int16_t *weights, const int16_t *at, int line,
                    const micro_window *w, const band_form *form)
{
    for (int i = 0; i < w->kernel_height; i++)
        for (int j = 0; j < w->kernel_width; j++, weights++) {
            int across = j * w->dilation_x;
            const int16_t *from = at + i * w->dilation_y * line;
            from += across % form->phases * form->columns + across / form->phases;
            pair_add(s, 0, from, *weights);
            if (w->band > 1)
                pair_add(s, 1, from + w->stride_y * line, *weights);
        }
}

static int kind_of(const micro_window *w)
{
    int size = w->kernel_height, stride = w->stride_y;
    int square = w->kernel_width == size && w->stride_x == stride;
    int plain = square && w->dilation_x == 1 && w->dilation_y == 1 && stride <= 2 && w->band > 1;
    return plain && (size == 3 || size == 5) ? 10 * size + stride : 0;
}

typedef struct {
    const micro_window *window;
    const int16_t *weights;
    float factor;
    int32_t bias;
    int low, high;
} channel;

/* Write two rows of levels, the second of which may lie beyond the map's end. */
#define STRIP(name, add, size) \
    static void name(const channel *c, const band_form *form, const int16_t *band, int both, \
                     uint8_t *to) \
    { \
        const micro_window *w = c->window; \
        taps own; \
        taps_read(&own, c->weights, (size) * (size)); \
        for (int x = 0; x < w->out_width; x += PIXELS) { \
            int count = micro_least(PIXELS, w->out_width - x); \
            pair s; \
            pair_start(&s, c->bias); \
            add(&s, &own, band + x, form->phases * form->columns); \
            pair_write(&s, 0, to + x, count, c->factor, c->low, c->high); \
            if (both) \
                pair_write(&s, 1, to + w->out_width + x, count, c->factor, c->low, c->high); \
        } \
    }
STRIP(strip_3x3_s1, add_3x3_s1, 3)
STRIP(strip_3x3_s2, add_3x3_s2, 3)
STRIP(strip_5x5_s1, add_5x5_s1, 5)
STRIP(strip_5x5_s2, add_5x5_s2, 5)

static void strip_any(const channel *c, const band_form *form, const int16_t *band, int both,
                      uint8_t *to)
{
    const micro_window *w = c->window;
    for (int x = 0; x < w->out_width; x += PIXELS) {
        int count = micro_least(PIXELS, w->out_width - x);
        pair s;
        pair_start(&s, c->bias);
        add_any(&s, c->weights, band + x, form->phases * form->columns, w, form);
        pair_write(&s, 0, to + x, count, c->factor, c->low, c->high);
        if (both)
            pair_write(&s, 1, to + w->out_width + x, count, c->factor, c->low, c->high);
    }
}

static void strip(const channel *c, const band_form *form, const int16_t *band, int both,
                  uint8_t *to)
{
    switch (kind_of(c->window)) {
    case 31:
        strip_3x3_s1(c, form, band, both, to);
        break;
    case 32:
        strip_3x3_s2(c, form, band, both, to);
        break;
    case 51:
        strip_5x5_s1(c, form, band, both, to);
        break;
    case 52:
        strip_5x5_s2(c, form, band, both, to);
        break;
    default:
        strip_any(c, form, band, both, to);
    }
}

/* Write the levels of one filter's plane. Weights are int16, filled up with zeros to whole fours;
 * `band` is memory for the window's band, of an even number of rows or of one. */
int32_t micro_depthwise_levels(const uint8_t *map, const int16_t *weights, const int32_t *bias,
                               const float *factor, uint8_t *y, const int32_t *window,
                               int16_t *band, int low, int high)
{
    const micro_window *w = (const micro_window *)window;
    channel c = {w, weights, *factor, *bias, low, high};
    band_form form = form_of(w);
    int line = form.phases * form.columns, step = w->band > 1 ? 2 : 1;
    for (int top = 0; top < w->out_height; top += w->band) {
        for (int i = 0; i < form.rows; i++) {
            int row = top * w->stride_y - w->top + i;
            const uint8_t *from = row < 0 || row >= w->height ? NULL : map + (ptrdiff_t)row * w->width;
            band_row(from, w, &form, band + (ptrdiff_t)i * line);
        }
        for (int r = 0; r < w->band && top + r < w->out_height; r += step) {
            int both = step == 2 && top + r + 1 < w->out_height;
            strip(&c, &form, band + (ptrdiff_t)r * w->stride_y * line, both,
                  y + (ptrdiff_t)(top + r) * w->out_width);
        }
    }
    return 0;
}
