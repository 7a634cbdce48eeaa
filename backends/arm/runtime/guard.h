/* The guard: does an image belong to those that the network was calibrated on? model.c defines its
 * tables before it includes this file.
 *
 * All numbers are integers below 2^53 and the same in C, Python and JavaScript:
 * compiler/guard/__init__.py has the definition. Right shifts of negative numbers round down.
 */
#ifndef MODEL_GUARD_H
#define MODEL_GUARD_H

#include <stdint.h>

enum {
    GUARD_SUMS = 17,
    GUARD_RING = 17, /* rows of luminance in memory */
    GUARD_RATE = 100000
};

static const char *const guard_features[MODEL_GUARD_FEATURES] = {
    "sharpness", "fine texture", "coarse texture", "blocks of 8 pixels", "flat areas", "detail",
    "contrast of the first channel", "contrast of the second channel",
    "contrast of the third channel", "brightness of the first channel",
    "brightness of the second channel", "brightness of the third channel",
    "variety of colours, first and second channel", "variety of colours, second and third channel",
    "variety of colours, first and third channel", "saturation, first and second channel",
    "saturation, second and third channel", "colour balance, first and second channel",
    "colour balance, second and third channel"};

static uint32_t guard_difference(int32_t a, int32_t b)
{
    return (uint32_t)(a > b ? a - b : b - a);
}

static int64_t guard_clip(int64_t value, int64_t limit)
{
    return value < -limit ? -limit : value > limit ? limit : value;
}

/* Return a / b, rounded down; b is positive. */
static int64_t guard_divide(int64_t a, int64_t b)
{
    int64_t quotient = a / b;
    return quotient - (a % b < 0);
}

/* Return 256 log2 of a number, rounded down in each of 8 squarings. */
static int32_t guard_log2(int64_t number)
{
    if (number < 1)
        number = 1;
    int exponent = 63 - __builtin_clzll((uint64_t)number);
    int64_t mantissa = exponent > 24 ? number >> (exponent - 24) : number << (24 - exponent);
    int32_t fraction = 0;
    for (int i = 0; i < 8; i++) {
        mantissa = mantissa * mantissa >> 24;
        int bit = mantissa >= 1 << 25;
        fraction = 2 * fraction + bit;
        mantissa >>= bit;
    }
    return exponent * 256 + fraction;
}

/* Return a row of R + 2 G + B, from memory if it is there. */
static const uint16_t *guard_row(const uint8_t *pixels, uint16_t *ring, int *ring_rows, int row)
{
    uint16_t *line = ring + (size_t)(row % GUARD_RING) * GUARD_WIDTH;
    if (ring_rows[row % GUARD_RING] == row)
        return line;
    ring_rows[row % GUARD_RING] = row;
    const uint8_t *r = pixels + (size_t)row * GUARD_WIDTH;
    const uint8_t *g = r + GUARD_PLANE, *b = g + GUARD_PLANE;
    for (int x = 0; x < GUARD_WIDTH; x++)
        line[x] = (uint16_t)(r[x] + 2 * g[x] + b[x]);
    return line;
}

static uint32_t guard_compare_rows(const uint16_t *a, const uint16_t *b, int count)
{
    uint32_t sum = 0;
    for (int x = 0; x < count; x++)
        sum += guard_difference(a[x], b[x]);
    return sum;
}

/* Add the colour sums of a row. */
static void guard_add_colours(const uint8_t *pixels, int row, int64_t *sums)
{
    const uint8_t *r = pixels + (size_t)row * GUARD_WIDTH;
    const uint8_t *g = r + GUARD_PLANE, *b = g + GUARD_PLANE;
    uint32_t s[9] = {0}, rg = 0, gb = 0;
    for (int x = 0; x < GUARD_WIDTH; x++) {
        s[0] += r[x], s[1] += g[x], s[2] += b[x];
        rg += guard_difference(r[x], g[x]);
        gb += guard_difference(g[x], b[x]);
    }
    for (int x = 0; x < GUARD_WIDTH; x++) {
        uint32_t red = r[x], green = g[x], blue = b[x];
        s[3] += red * red, s[4] += green * green, s[5] += blue * blue;
        s[6] += red * green, s[7] += green * blue, s[8] += red * blue;
    }
    for (int i = 0; i < 9; i++)
        sums[i] += s[i];
    sums[15] += rg, sums[16] += gb;
}

/* Add the texture sums of a row. */
static void guard_add_texture(const uint8_t *pixels, uint16_t *ring, int *ring_rows, int row,
                              int64_t *sums)
{
    const uint16_t *line = guard_row(pixels, ring, ring_rows, row);
    uint32_t near = 0, flat = 0, blocks = 0;
    for (int x = 0; x + 1 < GUARD_WIDTH; x++) {
        uint32_t step = guard_difference(line[x + 1], line[x]);
        near += step, flat += step == 0;
    }
    for (int x = 7; x + 1 < GUARD_WIDTH; x += 8)
        blocks += guard_difference(line[x + 1], line[x]);
    if (row >= 1) {
        const uint16_t *above = guard_row(pixels, ring, ring_rows, row - 1);
        uint32_t down = 0;
        for (int x = 0; x < GUARD_WIDTH; x++) {
            uint32_t step = guard_difference(line[x], above[x]);
            down += step, flat += step == 0;
        }
        near += down;
        blocks += row % 8 == 0 ? down : 0;
    }
    if (row >= 2) {
        const uint16_t *middle = guard_row(pixels, ring, ring_rows, row - 1);
        const uint16_t *top = guard_row(pixels, ring, ring_rows, row - 2);
        uint32_t laplacian = 0;
        for (int x = 1; x + 1 < GUARD_WIDTH; x++)
            laplacian += guard_difference(4 * middle[x],
                                          top[x] + line[x] + middle[x - 1] + middle[x + 1]);
        sums[10] += laplacian;
    }
    sums[9] += near, sums[13] += blocks, sums[14] += flat;
    for (int gap = 4; gap <= 16; gap += 12) {
        int64_t *sum = &sums[gap == 4 ? 11 : 12];
        if (GUARD_WIDTH > gap)
            *sum += guard_compare_rows(line + gap, line, GUARD_WIDTH - gap);
        if (row >= gap)
            *sum += guard_compare_rows(line, guard_row(pixels, ring, ring_rows, row - gap),
                                       GUARD_WIDTH);
    }
}

/* Compute the 17 sums of the pixels in the input; `ring` has room for 17 rows. */
static void guard_sum_pixels(const uint8_t *pixels, uint16_t *ring, int64_t *sums)
{
    int ring_rows[GUARD_RING];
    for (int i = 0; i < GUARD_RING; i++)
        ring_rows[i] = -1;
    for (int i = 0; i < GUARD_SUMS; i++)
        sums[i] = 0;
    for (int row = 0; row < GUARD_HEIGHT; row += GUARD_ROW_STEP) {
        if (row % (2 * GUARD_ROW_STEP) == 0)
            guard_add_colours(pixels, row, sums);
        guard_add_texture(pixels, ring, ring_rows, row, sums);
    }
}

#if GUARD_CHANNELS
/* Compute the sums of the counted channels of the tapped layer, from the low 8 bits of values. */
static void guard_sum_channels(const uint8_t *codes, int64_t *sums)
{
    for (int c = 0; c < GUARD_CHANNELS; c++) {
        const uint8_t *channel = codes + (size_t)c * GUARD_STRIDE * GUARD_PIXELS;
        int32_t sum = -GUARD_ZERO_POINT * GUARD_PIXELS;
        for (int i = 0; i < GUARD_PIXELS; i++)
            sum += (uint8_t)(channel[i] + GUARD_ZERO_POINT);
        sums[c] = sum;
    }
}

static int32_t guard_layer_score(const int64_t *sums)
{
    int64_t energy = 0;
    int32_t z[GUARD_CHANNELS];
    for (int c = 0; c < GUARD_CHANNELS; c++) {
        int64_t distance = (sums[c] - guard_layer_center[c]) * guard_layer_factors[c];
        z[c] = (int32_t)guard_clip(distance >> GUARD_FACTOR_SHIFT, 2047);
        energy += (int64_t)z[c] * z[c];
    }
    int64_t total = energy * guard_weights[0] >> guard_weight_shifts[0];
    for (int k = 0; k < GUARD_DIRECTIONS; k++) {
        int64_t projection = 0;
        for (int c = 0; c < GUARD_CHANNELS; c++)
            projection += (int64_t)z[c] * guard_directions[k * GUARD_CHANNELS + c];
        projection = guard_clip(projection >> 8, 1 << 22);
        total += (projection * projection >> 8) * guard_weights[k + 1] >> guard_weight_shifts[k + 1];
    }
    return guard_log2(16 + (total > 0 ? total : 0));
}
#endif

static int64_t guard_mean(int64_t sum, int64_t count) { return guard_divide(256 * sum, count); }

static int32_t guard_log_variance(int64_t squares, int64_t sum, int64_t count)
{
    int64_t mean = guard_mean(sum, count);
    int64_t variance = guard_divide(65536 * squares, count) - mean * mean;
    return guard_log2((variance > 0 ? variance : 0) + 4096);
}

/* Compute the features of an image from its sums. */
static void guard_measure(const int64_t *s, int32_t *features)
{
    const int64_t n = (int64_t)GUARD_WIDTH * ((GUARD_HEIGHT - 1) / GUARD_ROW_STEP + 1);
    const int64_t c = (int64_t)GUARD_WIDTH * ((GUARD_HEIGHT - 1) / (2 * GUARD_ROW_STEP) + 1);
    int32_t detail = guard_log2(16 * s[9] + n);
    for (int i = 0; i < 4; i++)
        features[i] = guard_log2(16 * s[10 + i] + n) - detail;
    features[4] = guard_log2(s[14] + n / 64 + 1);
    features[5] = detail;
    for (int i = 0; i < 3; i++) {
        features[6 + i] = guard_log_variance(s[3 + i], s[i], c);
        features[9 + i] = (int32_t)guard_divide(guard_mean(s[i], c), 8);
    }
    features[12] = guard_log_variance(s[3] + s[4] - 2 * s[6], s[0] - s[1], c);
    features[13] = guard_log_variance(s[4] + s[5] - 2 * s[7], s[1] - s[2], c);
    features[14] = guard_log_variance(s[3] + s[5] - 2 * s[8], s[0] - s[2], c);
    features[15] = guard_log2(s[15] + c);
    features[16] = guard_log2(s[16] + c);
    features[17] = (int32_t)guard_divide(guard_mean(s[0] - s[1], c), 4);
    features[18] = (int32_t)guard_divide(guard_mean(s[1] - s[2], c), 4);
}

/* Compute the deviations of features, and return the score of the picture. */
static int32_t guard_picture_score(const int32_t *features, int32_t *deviations)
{
    int64_t total = 16;
    const int16_t *row = guard_rows;
    for (int k = 0; k < MODEL_GUARD_FEATURES; k++) {
        int64_t sum = 0;
        for (int j = 0; j <= k; j++)
            sum += guard_clip(features[j] - guard_center[j], 32767) * *row++;
        int64_t deviation = guard_clip(sum >> (guard_shifts[k] - 4), 1 << 22);
        deviations[k] = (int32_t)deviation;
        total += deviation * deviation;
    }
    return guard_log2(total);
}

/* Return the known change that the trends are most like. */
static int guard_find_change(const int32_t *trend)
{
    int change = 0;
    int64_t largest = 0;
    for (int d = 0; d < GUARD_CHANGES; d++) {
        int64_t likeness = 0;
        for (int k = 0; k < MODEL_GUARD_FEATURES; k++)
            likeness += (int64_t)guard_changes[d][k] * trend[k];
        if (d == 0 || likeness > largest)
            change = d, largest = likeness;
    }
    return change;
}

static int32_t guard_drift_score(int change, const int32_t *deviations)
{
    int64_t total = 0;
    for (int k = 0; k < MODEL_GUARD_FEATURES; k++)
        total += guard_changes[change][k] * guard_clip(deviations[k], 1 << 16);
    return (int32_t)guard_clip(total >> 15, 32767);
}

/* Return the e-value of a score, in 1/256. */
static int32_t guard_step(const volatile int32_t *thresholds, const volatile int32_t *steps,
                          int32_t score)
{
    int above = 0;
    for (int i = 0; i < GUARD_THRESHOLDS; i++)
        above += score > thresholds[i];
    return steps[above];
}

static int guard_find_largest(const int32_t *values)
{
    int largest = 0;
    for (int k = 1; k < MODEL_GUARD_FEATURES; k++)
        if (guard_difference(values[k], 0) > guard_difference(values[largest], 0))
            largest = k;
    return largest;
}

/* Judge an image from its sums, and add it to the running case of a stream. */
static void guard_judge(const int64_t *sums, model_guard_state *state, model_guard_reading *reading)
{
    const volatile guard_tables *tables = &guard_fitted.tables;
    int32_t features[MODEL_GUARD_FEATURES];
    int change = guard_find_change(state->trends);
    guard_measure(sums, features);
    reading->picture = guard_picture_score(features, reading->deviations);
    reading->drift = guard_drift_score(change, reading->deviations);
    reading->layer = 0;
    reading->unusual = reading->picture > tables->picture.unusual;
    state->steps[0] += guard_step(tables->picture.thresholds, tables->picture.steps,
                                  reading->picture);
    state->steps[1] += guard_step(tables->drift_thresholds[change], tables->drift_steps,
                                  reading->drift);
#if GUARD_CHANNELS
    reading->layer = guard_layer_score(sums + GUARD_SUMS);
    reading->unusual |= reading->layer > tables->layer.unusual;
    state->steps[2] += guard_step(tables->layer.thresholds, tables->layer.steps, reading->layer);
#endif
    for (int k = 0; k < MODEL_GUARD_FEATURES; k++)
        state->deviations[k] += (int32_t)guard_clip(reading->deviations[k], 64);
    state->images++;
    reading->feature = guard_features[guard_find_largest(reading->deviations)];
}

/* End the running case of a stream, and return its alarm. */
static int guard_end_case(model_guard_state *state)
{
    const int64_t level = (int64_t)GUARD_RATE * 256, limit = (int64_t)1 << 40;
    int64_t total = 0;
    for (int i = 0; i < 3; i++) {
        if (state->images) {
            int64_t grown = (state->evidence[i] + 256) * (state->steps[i] / state->images) >> 8;
            state->evidence[i] = grown < limit ? grown : limit;
        }
        state->steps[i] = 0;
        total += state->evidence[i];
    }
    for (int k = 0; k < MODEL_GUARD_FEATURES; k++) {
        if (state->images) {
            int64_t mean = guard_divide(state->deviations[k], state->images);
            state->trends[k] += (int32_t)((16 * mean - state->trends[k]) >> 3);
        }
        state->deviations[k] = 0;
    }
    state->images = 0;
    if (total < level * (GUARD_CHANNELS ? 3 : 2))
        return MODEL_GUARD_QUIET;
    return state->evidence[2] >= level ? MODEL_GUARD_NETWORK : MODEL_GUARD_PICTURES;
}

#endif
