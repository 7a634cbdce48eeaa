/* From RGB pixels to the network's input, bit-exact with tcc's preprocess.py (and so with Pillow's
 * bilinear resize). Compile without contracting multiply-adds: -ffp-contract=off.
 *
 * Only pixels that contribute to the input are computed, row by row of the image: colours first,
 * then the horizontal and the vertical pass of the resize, each rounded to 8 bits. Sums of rows are
 * in the input itself, if that is float. A table per channel has the float value of each of the 256
 * pixel values, divided and normalized. Everything else is in scratch memory.
 */
#ifndef MODEL_PREPROCESS_H
#define MODEL_PREPROCESS_H

#include <stdint.h>
#include <string.h>

enum { PREPROCESS_RGB, PREPROCESS_BGR, PREPROCESS_GRAY };
enum { PREPROCESS_KEEP, PREPROCESS_STRETCH, PREPROCESS_COVER };
enum { PREPROCESS_BY_255, PREPROCESS_BY_MAX, PREPROCESS_LEVELS };

typedef struct {
    int color;         /* PREPROCESS_RGB... */
    int resize;        /* PREPROCESS_KEEP... */
    int size[2];       /* height and width to resize to */
    int crop;          /* whether the centre is cropped after that */
    int input[3];      /* channels, height, width of the network's input */
    int scale;         /* PREPROCESS_BY_255... */
    float mean[3], std[3];
    int bytes;         /* whether the input's elements are the 8-bit pixel values themselves */
} preprocess_contract;

/* Memory to allocate from. */
typedef struct {
    unsigned char *next;
    size_t remaining;
} preprocess_memory;

/* Fixed-point sums, in memory that can contain floats before and after. */
typedef int32_t __attribute__((may_alias)) preprocess_sum;

/* The source pixels of one result. */
typedef struct {
    int start, count;
} preprocess_span;

/* One axis: the source length and the scaled length, the part of the scaled axis that is computed,
 * and its position in the input. */
typedef struct {
    int source, scaled; /* lengths before and after scaling */
    int first, count;   /* the part of the scaled axis that is computed */
    int target;         /* the start of that part in the input */
    int taps;           /* most source pixels of one result */
    preprocess_span *spans; /* source pixels of each of `count` results, if the axis is scaled */
    double *totals;     /* the sum of the weights of each result */
    int32_t *factors;   /* along x: `taps` per result, with PREPROCESS_BITS fraction bits */
} preprocess_axis;

/* The preprocessing of one image. */
typedef struct {
    const preprocess_contract *contract;
    const uint8_t *rgb;
    preprocess_axis y, x;
    uint8_t *gray;        /* a row of the image */
    uint8_t *line;        /* a row of the result, one part per channel */
    float *table;         /* 256 values per channel */
    preprocess_sum *sums; /* channels, height, width */
    void *input;          /* channels, height, width, as floats or bytes */
} preprocess_job;

#define PREPROCESS_BITS 22
#define PREPROCESS_HALF (1 << (PREPROCESS_BITS - 1))

/* Return memory of that size, or NULL if too little is left. */
static void *preprocess_allocate(preprocess_memory *memory, size_t size)
{
    void *start = memory->next;
    size = (size + 7) / 8 * 8;
    if (size > memory->remaining)
        return NULL;
    memory->next += size;
    memory->remaining -= size;
    return start;
}

/* Return a sum as a pixel. */
static uint8_t preprocess_pixel(int32_t sum)
{
    sum >>= PREPROCESS_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* Return the position of the centre of result i in the source. */
static double preprocess_center(const preprocess_axis *axis, int i)
{
    return (axis->first + i + 0.5) * ((double)axis->source / axis->scaled);
}

/* Return the number of source pixels that a result reads on each side of its centre. */
static double preprocess_support(const preprocess_axis *axis)
{
    double scale = (double)axis->source / axis->scaled;
    return scale < 1.0 ? 1.0 : scale;
}

/* Return the weight of source pixel `pixel` in the result with this centre. */
static double preprocess_weight(double center, double per_source, int pixel)
{
    double distance = (pixel - center + 0.5) * per_source;
    double weight = 1.0 - (distance < 0 ? -distance : distance);
    return weight > 0.0 ? weight : 0.0;
}

static int32_t preprocess_factor(double weight, double total)
{
    return (int32_t)(weight / total * (1 << PREPROCESS_BITS) + 0.5);
}

/* Compute the spans of a scaled axis, like Pillow. Returns 0 without enough memory. */
static int preprocess_spans(preprocess_axis *axis, preprocess_memory *memory)
{
    double support = preprocess_support(axis), per_source = 1.0 / support;
    axis->spans = preprocess_allocate(memory, (size_t)axis->count * sizeof *axis->spans);
    axis->totals = preprocess_allocate(memory, (size_t)axis->count * sizeof *axis->totals);
    if (!axis->spans || !axis->totals)
        return 0;
    axis->taps = 0;
    for (int i = 0; i < axis->count; i++) {
        double center = preprocess_center(axis, i), total = 0.0;
        int start = (int)(center - support + 0.5), end = (int)(center + support + 0.5);
        start = start < 0 ? 0 : start;
        end = end > axis->source ? axis->source : end;
        for (int pixel = start; pixel < end; pixel++)
            total += preprocess_weight(center, per_source, pixel);
        axis->spans[i] = (preprocess_span){start, end - start};
        axis->totals[i] = total;
        axis->taps = end - start > axis->taps ? end - start : axis->taps;
    }
    return 1;
}

/* Compute the factors of the horizontal axis. Returns 0 without enough memory. */
static int preprocess_factors(preprocess_axis *x, preprocess_memory *memory)
{
    double per_source = 1.0 / preprocess_support(x);
    x->factors = preprocess_allocate(memory, (size_t)x->count * (size_t)x->taps * sizeof(int32_t));
    if (!x->factors)
        return 0;
    for (int i = 0; i < x->count; i++) {
        double center = preprocess_center(x, i);
        for (int t = 0; t < x->spans[i].count; t++) {
            double weight = preprocess_weight(center, per_source, x->spans[i].start + t);
            x->factors[(size_t)i * x->taps + t] = preprocess_factor(weight, x->totals[i]);
        }
    }
    return 1;
}

/* Plan one axis (0: height, 1: width) of an image of that length. Returns 0 if the result would not
 * have the input's length. */
static int preprocess_plan(const preprocess_contract *contract, int axis, int length,
                           const int scaled[2], preprocess_axis *plan)
{
    int output_length = contract->input[1 + axis];
    int cropped_length = contract->resize == PREPROCESS_COVER ? contract->size[axis] : scaled[axis];
    if (!contract->crop && cropped_length != output_length)
        return 0;
    int overlap = cropped_length < output_length ? cropped_length : output_length;
    *plan = (preprocess_axis){.source = length, .scaled = scaled[axis]};
    plan->first = (scaled[axis] - cropped_length) / 2 + (cropped_length - overlap) / 2;
    plan->count = overlap;
    plan->target = (output_length - overlap) / 2;
    return 1;
}

/* Scale pixels of three channels along x. */
static void preprocess_scale3(const preprocess_axis *x, const uint8_t *row, const int order[3],
                              uint8_t *line)
{
    for (int i = 0; i < x->count; i++, line++) {
        const int32_t *factors = x->factors + (size_t)i * x->taps;
        const uint8_t *from = row + (size_t)x->spans[i].start * 3;
        int32_t sums[3] = {PREPROCESS_HALF, PREPROCESS_HALF, PREPROCESS_HALF};
        for (int t = 0; t < x->spans[i].count; t++, from += 3) {
            sums[0] += from[0] * factors[t];
            sums[1] += from[1] * factors[t];
            sums[2] += from[2] * factors[t];
        }
        for (int c = 0; c < 3; c++)
            line[(size_t)c * x->count] = preprocess_pixel(sums[order[c]]);
    }
}

static void preprocess_scale1(const preprocess_axis *x, const uint8_t *row, uint8_t *line)
{
    for (int i = 0; i < x->count; i++) {
        const int32_t *factors = x->factors + (size_t)i * x->taps;
        const uint8_t *from = row + x->spans[i].start;
        int32_t sum = PREPROCESS_HALF;
        for (int t = 0; t < x->spans[i].count; t++)
            sum += from[t] * factors[t];
        line[i] = preprocess_pixel(sum);
    }
}

/* Compute a row of the image: its colours, scaled along x. */
static void preprocess_line(const preprocess_job *job, int number)
{
    static const int orders[2][3] = {{0, 1, 2}, {2, 1, 0}};
    const preprocess_axis *x = &job->x;
    const uint8_t *row = job->rgb + (size_t)number * x->source * 3;
    if (job->contract->color == PREPROCESS_GRAY) {
        int first = x->factors ? 0 : x->first, count = x->factors ? x->source : x->count;
        uint8_t *gray = x->factors ? job->gray : job->line;
        row += (size_t)first * 3;
        for (int i = 0; i < count; i++, row += 3)
            gray[i] = (uint8_t)((row[0] * 19595 + row[1] * 38470 + row[2] * 7471 + 0x8000) >> 16);
        if (x->factors)
            preprocess_scale1(x, gray, job->line);
        return;
    }
    const int *order = orders[job->contract->color == PREPROCESS_BGR];
    if (x->factors) {
        preprocess_scale3(x, row, order, job->line);
        return;
    }
    row += (size_t)x->first * 3;
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < x->count; i++)
            job->line[(size_t)c * x->count + i] = row[i * 3 + order[c]];
}

/* Fill the table with (value / largest - mean) / std, or with the pixel values themselves. */
static void preprocess_table(const preprocess_job *job, int largest)
{
    const preprocess_contract *contract = job->contract;
    float scale = contract->scale == PREPROCESS_BY_255 ? 255.0f : (float)largest;
    for (int c = 0; c < contract->input[0] && !contract->bytes; c++)
        for (int level = 0; level < 256; level++)
            job->table[c * 256 + level] =
                contract->scale == PREPROCESS_LEVELS
                    ? (float)level
                    : ((float)level / scale - contract->mean[c]) / contract->std[c];
}

/* Return the number of pixels per channel of the input. */
static size_t preprocess_plane(const preprocess_contract *contract)
{
    return (size_t)contract->input[1] * (size_t)contract->input[2];
}

/* Fill the input with pixel value 0, where the image does not cover it. */
static void preprocess_clear(const preprocess_job *job)
{
    size_t plane = preprocess_plane(job->contract);
    for (int c = 0; c < job->contract->input[0]; c++) {
        if (job->contract->bytes)
            memset((uint8_t *)job->input + c * plane, 0, plane);
        for (size_t i = 0; i < plane && !job->contract->bytes; i++)
            ((float *)job->input)[c * plane + i] = job->table[c * 256];
    }
}

/* Write the line to a row of the input. */
static void preprocess_write_row(const preprocess_job *job, int row)
{
    const preprocess_contract *contract = job->contract;
    size_t plane = preprocess_plane(contract), count = (size_t)job->x.count;
    size_t offset = (size_t)row * contract->input[2] + job->x.target;
    for (int c = 0; c < contract->input[0]; c++, offset += plane) {
        const uint8_t *line = job->line + c * count;
        const float *table = job->table + c * 256;
        if (contract->bytes)
            memcpy((uint8_t *)job->input + offset, line, count);
        else
            for (size_t i = 0; i < count; i++)
                ((float *)job->input)[offset + i] = table[line[i]];
    }
}

/* Compute the input from an image that is not scaled. */
static void preprocess_unscaled(const preprocess_job *job)
{
    const preprocess_contract *contract = job->contract;
    const preprocess_axis *y = &job->y;
    int largest = 1;
    if (contract->scale == PREPROCESS_BY_MAX)
        for (int row = 0; row < y->count; row++) {
            preprocess_line(job, y->first + row);
            for (int i = 0; i < job->x.count * contract->input[0]; i++)
                largest = job->line[i] > largest ? job->line[i] : largest;
        }
    preprocess_table(job, largest);
    if (y->count < contract->input[1] || job->x.count < contract->input[2])
        preprocess_clear(job);
    for (int row = 0; row < y->count; row++) {
        preprocess_line(job, y->first + row);
        preprocess_write_row(job, y->target + row);
    }
}

/* Add the line to row i of the result, times a factor. */
static void preprocess_add(const preprocess_job *job, int i, int32_t factor)
{
    const preprocess_contract *contract = job->contract;
    int count = job->x.count;
    preprocess_sum *sums =
        job->sums + (size_t)(job->y.target + i) * contract->input[2] + job->x.target;
    for (int c = 0; c < contract->input[0]; c++, sums += preprocess_plane(contract)) {
        const uint8_t *line = job->line + (size_t)c * count;
        for (int k = 0; k < count; k++)
            sums[k] += line[k] * factor;
    }
}

/* Compute the input from the sums. */
static void preprocess_finish(const preprocess_job *job)
{
    const preprocess_contract *contract = job->contract;
    size_t plane = preprocess_plane(contract), count = plane * contract->input[0];
    int largest = 1;
    for (size_t i = 0; i < count && contract->scale == PREPROCESS_BY_MAX; i++) {
        int level = preprocess_pixel(job->sums[i]);
        largest = level > largest ? level : largest;
    }
    preprocess_table(job, largest);
    for (size_t i = 0; i < count && contract->bytes; i++)
        ((uint8_t *)job->input)[i] = preprocess_pixel(job->sums[i]);
    for (int c = 0; c < contract->input[0] && !contract->bytes; c++) {
        const float *table = job->table + c * 256;
        const preprocess_sum *sums = job->sums + c * plane;
        float *values = (float *)job->input + c * plane; /* the same memory */
        for (size_t i = 0; i < plane; i++) {
            float value = table[preprocess_pixel(sums[i])];
            memcpy(&values[i], &value, sizeof value);
        }
    }
}

/* Compute the input from an image that is scaled: each row is added to all rows of the result that
 * read it. */
static void preprocess_resized(const preprocess_job *job, int first_row, int end_row)
{
    const preprocess_axis *y = &job->y;
    double per_source = 1.0 / preprocess_support(y);
    size_t count = preprocess_plane(job->contract) * job->contract->input[0];
    for (size_t i = 0; i < count; i++)
        job->sums[i] = PREPROCESS_HALF; /* pixel value 0 if nothing is added */
    for (int row = first_row, oldest = 0; row < end_row; row++) {
        preprocess_line(job, row);
        if (!y->spans) {
            preprocess_add(job, row - first_row, 1 << PREPROCESS_BITS);
            continue;
        }
        while (y->spans[oldest].start + y->spans[oldest].count <= row)
            oldest++;
        for (int i = oldest; i < y->count && y->spans[i].start <= row; i++) {
            double weight = preprocess_weight(preprocess_center(y, i), per_source, row);
            preprocess_add(job, i, preprocess_factor(weight, y->totals[i]));
        }
    }
    preprocess_finish(job);
}

/* Compute the lengths that an image (height, width) is scaled to. */
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

/* Allocate the memory of a job. Returns 0 if too little is left. */
static int preprocess_prepare(preprocess_job *job, preprocess_memory *memory)
{
    const preprocess_contract *contract = job->contract;
    size_t count = preprocess_plane(contract) * contract->input[0];
    int scaled = 0, is_ready = 1;
    job->line = preprocess_allocate(memory, (size_t)contract->input[2] * contract->input[0]);
    job->table = contract->bytes ? NULL : preprocess_allocate(memory, 256 * 4 * contract->input[0]);
    is_ready = job->line && (job->table || contract->bytes);
    if (is_ready && job->y.scaled != job->y.source)
        is_ready = preprocess_spans(&job->y, memory), scaled = 1;
    if (is_ready && job->x.scaled != job->x.source) {
        if (contract->color == PREPROCESS_GRAY)
            job->gray = preprocess_allocate(memory, (size_t)job->x.source);
        is_ready = (job->gray || contract->color != PREPROCESS_GRAY) &&
               preprocess_spans(&job->x, memory) && preprocess_factors(&job->x, memory);
        scaled = 1;
    }
    if (is_ready && scaled)
        job->sums = contract->bytes ? preprocess_allocate(memory, count * sizeof(int32_t))
                                    : job->input;
    return is_ready && (job->sums || !scaled);
}

static int preprocess(const preprocess_contract *contract, const uint8_t *rgb, int width,
                      int height, void *input, preprocess_memory memory)
{
    const int source[2] = {height, width};
    int scaled[2];
    preprocess_job job = {.contract = contract, .rgb = rgb, .input = input};
    preprocess_scaled(contract, source, scaled);
    if (!preprocess_plan(contract, 0, height, scaled, &job.y) ||
        !preprocess_plan(contract, 1, width, scaled, &job.x))
        return MODEL_BAD_SIZE;
    if (!preprocess_prepare(&job, &memory))
        return MODEL_FAILED;
    int first_row = job.y.first, end_row = first_row + job.y.count; /* the rows that are read */
    if (job.y.spans) {
        preprocess_span end = job.y.spans[job.y.count - 1];
        first_row = job.y.spans[0].start;
        end_row = end.start + end.count;
    }
    if ((uint64_t)(end_row - first_row) * (uint64_t)job.x.count * contract->input[0] >
        MODEL_MAX_ROWS_BYTES)
        return MODEL_TOO_COSTLY;
    if (job.sums)
        preprocess_resized(&job, first_row, end_row);
    else
        preprocess_unscaled(&job);
    return MODEL_OK;
}

#endif
