/* From RGB pixels to the network's input, equal to tcc's preprocess.py (and so to Pillow's
 * bilinear resize) to the bit. Compile without contracting multiply-adds: -ffp-contract=off.
 *
 * Only the pixels that the input shows are computed. Colours are converted first; then come the
 * horizontal and the vertical pass of the resize, each rounded to 8 bits. The 8-bit levels lie in
 * the input itself, as floats, until all are known: then they are divided and normalised in place.
 */
#ifndef MODEL_PREPROCESS_H
#define MODEL_PREPROCESS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { PREPROCESS_RGB, PREPROCESS_BGR, PREPROCESS_GRAY };
enum { PREPROCESS_KEEP, PREPROCESS_STRETCH, PREPROCESS_COVER };
enum { PREPROCESS_BY_255, PREPROCESS_BY_MAX, PREPROCESS_LEVELS };

typedef struct {
    int color;         /* PREPROCESS_RGB... */
    int resize;        /* PREPROCESS_KEEP... */
    int size[2];       /* height and width to resize to */
    int crop;          /* whether the centre is taken after that */
    int input[3];      /* channels, height, width of the network's input */
    int scale;         /* PREPROCESS_BY_255... */
    float mean[3], std[3];
} preprocess_contract;

/* The source pixels that one result reads. */
typedef struct {
    int start, count;
} preprocess_span;

/* Along one axis: which stretch of the source is scaled to how many pixels, which of these are
 * computed, and where in the input they go. */
typedef struct {
    int source, scaled; /* lengths before and after scaling */
    int first, count;   /* the stretch of the scaled axis that is computed */
    int target;         /* where the stretch begins in the input */
    int taps;           /* most source pixels that one result reads */
    preprocess_span *spans; /* what each of `count` reads, if the axis is scaled */
    int32_t *factors;   /* `taps` for each of these, with PREPROCESS_BITS fraction bits */
} preprocess_axis;

#define PREPROCESS_BITS 22

/* Return a sum as a pixel. */
static uint8_t preprocess_pixel(int32_t sum)
{
    sum >>= PREPROCESS_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* Fill the factors of an axis that is scaled, as Pillow does. Returns 0 without memory. */
static int preprocess_factors(preprocess_axis *axis)
{
    double scale = (double)axis->source / axis->scaled;
    double support = scale < 1.0 ? 1.0 : scale;
    double per_source = 1.0 / support;
    axis->taps = (int)support;
    axis->taps = (axis->taps < support ? axis->taps + 1 : axis->taps) * 2 + 1;
    axis->spans = calloc((size_t)axis->count, sizeof(preprocess_span));
    axis->factors = calloc((size_t)axis->count * (size_t)axis->taps, sizeof(int32_t));
    double *weights = malloc(sizeof(double) * (size_t)axis->taps);
    if (!axis->spans || !axis->factors || !weights) {
        free(weights);
        return 0;
    }
    for (int i = 0; i < axis->count; i++) {
        double middle = (axis->first + i + 0.5) * scale, total = 0.0;
        int start = (int)(middle - support + 0.5), end = (int)(middle + support + 0.5);
        start = start < 0 ? 0 : start;
        end = end > axis->source ? axis->source : end;
        for (int t = 0; t < end - start; t++) {
            double reach = ((t + start) - middle + 0.5) * per_source;
            double weight = 1.0 - (reach < 0 ? -reach : reach);
            weights[t] = weight > 0.0 ? weight : 0.0;
            total += weights[t];
        }
        axis->spans[i] = (preprocess_span){start, end - start};
        for (int t = 0; t < end - start; t++)
            axis->factors[i * axis->taps + t] =
                (int32_t)(weights[t] / total * (1 << PREPROCESS_BITS) + 0.5);
    }
    free(weights);
    return 1;
}

/* Describe one axis (0: height, 1: width) of an image of that length. Returns 0 where the
 * result would not have the input's length. */
static int preprocess_plan(const preprocess_contract *contract, int axis, int length,
                           const int scaled[2], preprocess_axis *plan)
{
    int wanted = contract->input[1 + axis];
    int kept = contract->resize == PREPROCESS_COVER ? contract->size[axis] : scaled[axis];
    if (!contract->crop && kept != wanted)
        return 0;
    int both = kept < wanted ? kept : wanted;
    *plan = (preprocess_axis){.source = length, .scaled = scaled[axis]};
    plan->first = (scaled[axis] - kept) / 2 + (kept - both) / 2;
    plan->count = both;
    plan->target = (wanted - both) / 2;
    return 1;
}

/* Write the colour-converted pixels of one row. */
static void preprocess_color(const preprocess_contract *contract, const uint8_t *rgb, int pixels,
                             uint8_t *row)
{
    switch (contract->color) {
    case PREPROCESS_RGB:
        memcpy(row, rgb, (size_t)pixels * 3);
        break;
    case PREPROCESS_BGR:
        for (int i = 0; i < pixels; i++, rgb += 3, row += 3)
            row[0] = rgb[2], row[1] = rgb[1], row[2] = rgb[0];
        break;
    default:
        for (int i = 0; i < pixels; i++, rgb += 3)
            row[i] = (uint8_t)((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16);
    }
}

/* Scale one row along x, or take the stretch that is wanted where its length stays. */
static void preprocess_row(const preprocess_axis *x, const uint8_t *row, int channels,
                           uint8_t *result)
{
    const int32_t half = 1 << (PREPROCESS_BITS - 1);
    if (!x->factors) {
        memcpy(result, row + (size_t)x->first * channels, (size_t)x->count * channels);
        return;
    }
    for (int i = 0; i < x->count; i++, result += channels) {
        const int32_t *factors = x->factors + (size_t)i * x->taps;
        const uint8_t *from = row + (size_t)x->spans[i].start * channels;
        int32_t sums[3] = {half, half, half};
        if (channels == 3)
            for (int t = 0; t < x->spans[i].count; t++, from += 3) {
                sums[0] += from[0] * factors[t];
                sums[1] += from[1] * factors[t];
                sums[2] += from[2] * factors[t];
            }
        else
            for (int t = 0; t < x->spans[i].count; t++)
                sums[0] += from[t] * factors[t];
        for (int c = 0; c < channels; c++)
            result[c] = preprocess_pixel(sums[c]);
    }
}

/* Scale columns along y into row i of the result, from rows that are scaled along x already.
 * `sums` has room for as many numbers as a row has bytes. */
static void preprocess_column(const preprocess_axis *y, int i, const uint8_t *rows, int bytes,
                              int first_row, int32_t *sums, uint8_t *result)
{
    if (!y->factors) {
        memcpy(result, rows + (size_t)(y->first + i - first_row) * bytes, (size_t)bytes);
        return;
    }
    for (int b = 0; b < bytes; b++)
        sums[b] = 1 << (PREPROCESS_BITS - 1);
    for (int t = 0; t < y->spans[i].count; t++) {
        const uint8_t *from = rows + (size_t)(y->spans[i].start + t - first_row) * bytes;
        int32_t factor = y->factors[(size_t)i * y->taps + t];
        for (int b = 0; b < bytes; b++)
            sums[b] += from[b] * factor;
    }
    for (int b = 0; b < bytes; b++)
        result[b] = preprocess_pixel(sums[b]);
}

/* Write the levels of one row of pixels into each channel's plane. */
static void preprocess_store(const preprocess_contract *contract, const uint8_t *row, int pixels,
                             float *input, size_t plane)
{
    int channels = contract->input[0];
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < pixels; i++)
            input[c * plane + i] = (float)row[i * channels + c];
}

/* Make (level / scale - mean) / std of the levels; the largest level of a black image is 1. */
static void preprocess_normalize(const preprocess_contract *contract, float *input, size_t plane)
{
    if (contract->scale == PREPROCESS_LEVELS)
        return;
    float scale = 255.0f;
    size_t count = plane * contract->input[0];
    if (contract->scale == PREPROCESS_BY_MAX) {
        scale = 1.0f;
        for (size_t i = 0; i < count; i++)
            scale = input[i] > scale ? input[i] : scale;
    }
    for (int c = 0; c < contract->input[0]; c++, input += plane)
        for (size_t i = 0; i < plane; i++)
            input[i] = (input[i] / scale - contract->mean[c]) / contract->std[c];
}

/* Return where the source pixels that an axis reads begin, or end. */
static int preprocess_first(const preprocess_axis *axis)
{
    return axis->factors ? axis->spans[0].start : axis->first;
}

static int preprocess_end(const preprocess_axis *axis)
{
    preprocess_span last = {axis->first, axis->count};
    if (axis->factors)
        last = axis->spans[axis->count - 1];
    return last.start + last.count;
}

static int preprocess_image(const preprocess_contract *contract, const uint8_t *rgb,
                            const preprocess_axis *y, const preprocess_axis *x, float *input)
{
    int channels = contract->input[0], height = contract->input[1], width = contract->input[2];
    size_t plane = (size_t)height * width;
    int bytes = x->count * channels;
    int first = preprocess_first(y), last = preprocess_end(y); /* the rows that are read */
    if ((uint64_t)(last - first) * (uint64_t)bytes > MODEL_MAX_ROWS_BYTES)
        return MODEL_TOO_COSTLY;
    uint8_t *colored = malloc((size_t)x->source * channels);
    uint8_t *rows = calloc((size_t)(last - first), (size_t)bytes); /* guards the product */
    uint8_t *line = calloc((size_t)width, (size_t)channels);
    int32_t *sums = malloc(sizeof(int32_t) * (size_t)bytes);
    int fine = colored && rows && line && sums;
    for (int row = first; fine && row < last; row++) {
        preprocess_color(contract, rgb + (size_t)row * x->source * 3, x->source, colored);
        preprocess_row(x, colored, channels, rows + (size_t)(row - first) * bytes);
    }
    for (int row = 0; fine && row < height; row++) {
        int i = row - y->target;
        if (i >= 0 && i < y->count)
            preprocess_column(y, i, rows, bytes, first, sums,
                              line + (size_t)x->target * channels);
        else
            memset(line, 0, (size_t)width * channels);
        preprocess_store(contract, line, width, input + (size_t)row * width, plane);
    }
    if (fine)
        preprocess_normalize(contract, input, plane);
    free(colored);
    free(rows);
    free(line);
    free(sums);
    return fine ? MODEL_OK : MODEL_NO_MEMORY;
}

/* The lengths that an image (height, width) is scaled to. */
static void preprocess_scaled(const preprocess_contract *contract, const int source[2],
                              int scaled[2])
{
    double scale = 0.0;
    for (int axis = 0; axis < 2; axis++) {
        double needed = (double)contract->size[axis] / source[axis];
        scale = needed > scale ? needed : scale;
    }
    for (int axis = 0; axis < 2; axis++) {
        scaled[axis] = contract->resize == PREPROCESS_KEEP ? source[axis] : contract->size[axis];
        if (contract->resize == PREPROCESS_COVER) {
            int covering = (int)(source[axis] * scale + 0.5);
            scaled[axis] = covering > contract->size[axis] ? covering : contract->size[axis];
        }
    }
}

static int preprocess(const preprocess_contract *contract, const uint8_t *rgb, int width,
                      int height, float *input)
{
    const int source[2] = {height, width};
    int scaled[2];
    preprocess_axis plans[2] = {{0}, {0}};
    preprocess_scaled(contract, source, scaled);
    for (int axis = 0; axis < 2; axis++)
        if (!preprocess_plan(contract, axis, source[axis], scaled, &plans[axis]))
            return MODEL_BAD_SIZE;
    int status = MODEL_OK;
    for (int axis = 0; axis < 2; axis++)
        if (plans[axis].scaled != plans[axis].source && !preprocess_factors(&plans[axis]))
            status = MODEL_NO_MEMORY;
    if (status == MODEL_OK)
        status = preprocess_image(contract, rgb, &plans[0], &plans[1], input);
    for (int axis = 0; axis < 2; axis++) {
        free(plans[axis].spans);
        free(plans[axis].factors);
    }
    return status;
}

#endif
