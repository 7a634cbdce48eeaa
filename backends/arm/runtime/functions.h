/* The functions of model.h, on top of what is particular to a model, which model.c defines
 * before it includes this: `arena`, `steps`, `takes_image`, `contract`, INPUT_AT, `output_at`,
 * `too_large`, `too_costly`.
 */
#ifndef MODEL_FUNCTIONS_H
#define MODEL_FUNCTIONS_H

#include <math.h>
#include <string.h>

static int busy;

static int enter(void)
{
    return __atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE) ? MODEL_BUSY : MODEL_OK;
}

static int leave(int status)
{
    __atomic_store_n(&busy, 0, __ATOMIC_RELEASE);
    return status;
}

/* Whether none of the values is NaN or infinite. */
static int all_finite(const float *values, size_t count)
{
    uint32_t bits, worst = 0;
    for (size_t i = 0; i < count; i++) {
        memcpy(&bits, &values[i], sizeof bits);
        bits &= 0x7fffffff;
        worst = bits > worst ? bits : worst;
    }
    return worst < 0x7f800000;
}

/* Run the network on the input that lies in the arena. */
static int run_in_place(float *output)
{
    if (!all_finite((const float *)(arena + INPUT_AT), MODEL_INPUT_SIZE))
        return MODEL_NOT_FINITE;
    if (steps())
        return MODEL_FAILED;
    for (int i = 0; i < MODEL_OUTPUT_COUNT; i++)
        memcpy(output + model_outputs[i].offset, arena + output_at[i],
               model_outputs[i].size * sizeof(float));
    return all_finite(output, MODEL_OUTPUT_SIZE) ? MODEL_OK : MODEL_NOT_FINITE;
}

static int preprocess_checked(const uint8_t *rgb, int width, int height, float *input)
{
    if (!takes_image)
        return MODEL_NO_IMAGE;
    if (width < 1 || height < 1)
        return MODEL_BAD_SIZE;
    if (width > MODEL_MAX_SIDE || height > MODEL_MAX_SIDE || height > MODEL_MAX_PIXELS / width)
        return MODEL_TOO_LARGE;
    return preprocess(&contract, rgb, width, height, input);
}

static void softmax(float *values, size_t channels, size_t pixels)
{
    for (size_t p = 0; p < pixels; p++) {
        float *first = values + p, largest = *first;
        double total = 0.0;
        for (size_t c = 1; c < channels; c++)
            largest = first[c * pixels] > largest ? first[c * pixels] : largest;
        for (size_t c = 0; c < channels; c++)
            total += exp((double)first[c * pixels] - largest);
        for (size_t c = 0; c < channels; c++)
            first[c * pixels] = (float)(exp((double)first[c * pixels] - largest) / total);
    }
}

static void activate(float *output)
{
    for (int i = 0; i < MODEL_OUTPUT_COUNT; i++) {
        const model_output *about = &model_outputs[i];
        float *values = output + about->offset;
        if (about->activation == MODEL_SOFTMAX)
            softmax(values, about->shape[0], about->size / about->shape[0]);
        else if (about->activation == MODEL_SIGMOID)
            for (size_t k = 0; k < about->size; k++)
                values[k] = (float)(1.0 / (1.0 + exp(-(double)values[k])));
    }
}

int model_run(const float *input, float *output)
{
    if (!input || !output)
        return MODEL_BAD_ARGUMENT;
    int status = enter();
    if (status)
        return status;
    memcpy(arena + INPUT_AT, input, MODEL_INPUT_SIZE * sizeof(float));
    return leave(run_in_place(output));
}

int model_preprocess(const uint8_t *rgb, int width, int height, float *input)
{
    return rgb && input ? preprocess_checked(rgb, width, height, input) : MODEL_BAD_ARGUMENT;
}

int model_activate(float *output)
{
    if (!output)
        return MODEL_BAD_ARGUMENT;
    activate(output);
    return MODEL_OK;
}

int model_classify(const uint8_t *rgb, int width, int height, float *probabilities)
{
    if (!rgb || !probabilities)
        return MODEL_BAD_ARGUMENT;
    int status = enter();
    if (status)
        return status;
    status = preprocess_checked(rgb, width, height, (float *)(arena + INPUT_AT));
    if (status == MODEL_OK)
        status = run_in_place(probabilities);
    if (status == MODEL_OK)
        activate(probabilities);
    return leave(status);
}

int model_set_threads(int threads)
{
    if (threads < 1 || threads > MODEL_MAX_THREADS)
        return MODEL_BAD_ARGUMENT;
    int status = enter();
    if (status)
        return status;
    return leave(pool_start(threads) ? MODEL_OK : MODEL_NO_THREADS);
}

int model_threads(void)
{
    return pool.workers + 1;
}

const char *model_message(int status)
{
    switch (status) {
    case MODEL_OK: return "done";
    case MODEL_BAD_ARGUMENT: return "an argument is missing or out of range";
    case MODEL_BAD_SIZE: return "the image does not have a size that the network takes";
    case MODEL_NOT_FINITE: return "the input or an output holds NaN or infinity";
    case MODEL_NO_MEMORY: return "there is no memory for resizing";
    case MODEL_NO_IMAGE: return "this network does not take an image";
    case MODEL_NO_THREADS: return "the system gives no more threads";
    case MODEL_BUSY: return "another call is at work";
    case MODEL_TOO_LARGE: return too_large;
    case MODEL_TOO_COSTLY: return too_costly;
    default: return "a kernel failed";
    }
}

#endif
