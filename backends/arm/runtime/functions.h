/* The functions of model.h. model.c defines the model's own parts before it includes this file:
 * `steps`, `takes_image`, `contract`, INPUT_AT, SCRATCH_AT, SCRATCH_SIZE, FLOAT_INPUT, `output_at`,
 * `levels_at`, `layer_at`, `fitted`, `too_large`, `too_costly`.
 */
#ifndef MODEL_FUNCTIONS_H
#define MODEL_FUNCTIONS_H

#include <math.h>
#include <string.h>

#include "decision.h"
#ifdef MODEL_GUARD
#include "guard.h"
#endif

/* The instance is at the start of the arena, aligned to ALIGNMENT. */
struct model_instance {
    const void *network; /* the address of its weights; differs between libraries with one prefix */
    unsigned char *values;
    model_watcher *watcher;
    void *user;
    int busy;
    pool pool;
};

typedef char model_instance_fits[sizeof(model_instance) <= INSTANCE_SIZE ? 1 : -1];

/* Begin a call; after MODEL_OK it must end with `leave`. */
static int enter(model_instance *instance)
{
    if (!instance || instance->network != model_weights)
        return MODEL_BAD_ARGUMENT;
    return __atomic_exchange_n(&instance->busy, 1, __ATOMIC_ACQUIRE) ? MODEL_BUSY : MODEL_OK;
}

static int leave(model_instance *instance, int status)
{
    __atomic_store_n(&instance->busy, 0, __ATOMIC_RELEASE);
    return status;
}

#ifdef MODEL_COUNTS
static model_saturation *get_counts(const model_instance *instance)
{
    return (model_saturation *)(void *)(instance->values + COUNTS_AT);
}

/* Count the saturated values of a layer. */
static void count_saturated(const model_instance *instance, int layer)
{
    const unsigned char *levels = instance->values + layer_at[layer];
    size_t size = model_layers[layer].size, saturated = 0;
    if (!saturation_kinds[layer])
        return;
    /* The byte after the largest value's is that of the smallest value. */
    unsigned char largest = largest_levels[layer], smallest = (unsigned char)(largest + 1);
    if (saturation_kinds[layer] == SIGNED_SATURATION)
        for (size_t i = 0; i < size; i++)
            saturated += levels[i] == largest || levels[i] == smallest;
    else
        for (size_t i = 0; i < size; i++)
            saturated += levels[i] == largest;
    get_counts(instance)[layer].at_end += saturated;
    get_counts(instance)[layer].count += size;
}

#endif
#ifdef MODEL_GUARD
static int64_t *get_guard_sums(const model_instance *instance)
{
    return (int64_t *)(void *)(instance->values + GUARD_SUMS_AT);
}

#endif
/* Call the watcher after a layer; -1: before the first one. */
static void notify_watcher(const model_instance *instance, int layer)
{
#ifdef MODEL_COUNTS
    if (layer >= 0)
        count_saturated(instance, layer);
#endif
#ifdef MODEL_GUARD
    if (layer < 0)
        guard_sum_pixels(instance->values + INPUT_AT,
                         (uint16_t *)(void *)(instance->values + GUARD_RING_AT),
                         get_guard_sums(instance));
#if GUARD_CHANNELS
    if (layer == GUARD_TAP)
        guard_sum_channels(instance->values + layer_at[layer],
                           get_guard_sums(instance) + GUARD_SUMS);
#endif /* GUARD_CHANNELS */
#endif
    if (instance->watcher)
        instance->watcher(instance->user, layer,
                          layer < 0 ? NULL : instance->values + layer_at[layer]);
}

/* Return whether none of the values is NaN or infinite. */
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

/* Compute the outputs from the input in the arena, and keep them there. */
static int compute(model_instance *instance)
{
#if FLOAT_INPUT
    if (!all_finite((const float *)(instance->values + INPUT_AT), MODEL_INPUT_SIZE))
        return MODEL_NOT_FINITE;
#endif
    pool_current = &instance->pool;
    notify_watcher(instance, -1);
    int status = steps(instance, instance->values) ? MODEL_FAILED : MODEL_OK;
    pool_current = NULL;
    return status;
}

/* Run the network on the input in the arena. */
static int run_in_place(model_instance *instance, float *output)
{
    int status = compute(instance);
    if (status)
        return status;
    for (int i = 0; i < MODEL_OUTPUT_COUNT; i++)
        memcpy(output + model_outputs[i].offset, instance->values + output_at[i],
               model_outputs[i].size * sizeof(float));
    return all_finite(output, MODEL_OUTPUT_SIZE) ? MODEL_OK : MODEL_NOT_FINITE;
}

static int preprocess_checked(model_instance *instance, const uint8_t *rgb, int width, int height,
                              void *input)
{
    if (!takes_image)
        return MODEL_NO_IMAGE;
    if (width < 1 || height < 1)
        return MODEL_BAD_SIZE;
    if (width > MODEL_MAX_SIDE || height > MODEL_MAX_SIDE || height > MODEL_MAX_PIXELS / width)
        return MODEL_TOO_LARGE;
    preprocess_memory scratch = {instance->values + SCRATCH_AT, SCRATCH_SIZE};
    return preprocess(&contract, rgb, width, height, input, scratch);
}

static void softmax(float *values, size_t channels, size_t pixels, double temperature)
{
    for (size_t p = 0; p < pixels; p++) {
        float *logits = values + p, largest = *logits;
        double total = 0.0;
        for (size_t c = 1; c < channels; c++)
            largest = logits[c * pixels] > largest ? logits[c * pixels] : largest;
        double top = (double)largest / temperature;
        for (size_t c = 0; c < channels; c++)
            total += exp((double)logits[c * pixels] / temperature - top);
        for (size_t c = 0; c < channels; c++)
            logits[c * pixels] =
                (float)(exp((double)logits[c * pixels] / temperature - top) / total);
    }
}

static void activate(float *output)
{
    for (int i = 0; i < MODEL_OUTPUT_COUNT; i++) {
        const model_output *about = &model_outputs[i];
        double temperature = fitted_point(i).temperature;
        float *values = output + about->offset;
        if (about->activation == MODEL_SOFTMAX)
            softmax(values, about->shape[0], about->size / about->shape[0], temperature);
        else
            for (size_t k = 0; k < about->size; k++) {
                double value = (double)values[k] / temperature;
                values[k] = (float)(about->activation == MODEL_SIGMOID ? 1.0 / (1.0 + exp(-value))
                                                                       : value);
            }
    }
}

static void decide(const float *output, unsigned char *decisions)
{
    for (int i = 0; i < MODEL_OUTPUT_COUNT; i++)
        decide_output(i, output + model_outputs[i].offset, decisions + model_outputs[i].offset);
}

model_instance *model_create(void *arena, size_t size)
{
    if (!arena || size < MODEL_ARENA_SIZE)
        return NULL;
    unsigned char *start = (unsigned char *)arena + (-(uintptr_t)arena & (ALIGNMENT - 1));
    model_instance *instance = (model_instance *)(void *)start;
    memset(instance, 0, sizeof *instance);
    instance->values = start + INSTANCE_SIZE;
    pool_open(&instance->pool);
    instance->network = model_weights;
#ifdef MODEL_COUNTS
    memset(get_counts(instance), 0, MODEL_LAYER_COUNT * sizeof(model_saturation));
#endif
    return instance;
}

#undef model_create
/* The same function under its plain name, for programs that look it up by name. */
model_instance *model_create(void *arena, size_t size)
{
    return MODEL_CREATE(arena, size);
}

void model_destroy(model_instance *instance)
{
    if (enter(instance))
        return;
    pool_close(&instance->pool);
    instance->network = NULL;
}

int model_run(model_instance *instance, const model_input *input, float *output)
{
    if (!input || !output)
        return MODEL_BAD_ARGUMENT;
    int status = enter(instance);
    if (status)
        return status;
    memcpy(instance->values + INPUT_AT, input, MODEL_INPUT_SIZE * sizeof *input);
    return leave(instance, run_in_place(instance, output));
}

#ifdef MODEL_LEVELS
int model_run_levels(model_instance *instance, const model_input *input, model_level *levels)
{
    if (!input || !levels)
        return MODEL_BAD_ARGUMENT;
    int status = enter(instance);
    if (status)
        return status;
    memcpy(instance->values + INPUT_AT, input, MODEL_INPUT_SIZE * sizeof *input);
    status = compute(instance);
    for (int i = 0; i < MODEL_OUTPUT_COUNT && status == MODEL_OK; i++)
        memcpy(levels + model_outputs[i].offset, instance->values + levels_at[i],
               model_outputs[i].size);
    return leave(instance, status);
}
#endif

int model_preprocess(model_instance *instance, const uint8_t *rgb, int width, int height,
                     model_input *input)
{
    if (!rgb || !input)
        return MODEL_BAD_ARGUMENT;
    int status = enter(instance);
    if (status)
        return status;
    return leave(instance, preprocess_checked(instance, rgb, width, height, input));
}

int model_activate(float *output)
{
    if (!output)
        return MODEL_BAD_ARGUMENT;
    activate(output);
    return MODEL_OK;
}

int model_decide(const float *output, unsigned char *decisions)
{
    if (!output || !decisions)
        return MODEL_BAD_ARGUMENT;
    decide(output, decisions);
    return MODEL_OK;
}

int model_has_thresholds(int output)
{
    return output >= 0 && output < MODEL_OUTPUT_COUNT && fitted_point(output).count > 0;
}

/* Predict, and decide if `decisions` is not NULL. */
static int predict(model_instance *instance, const uint8_t *rgb, int width, int height,
                   float *probabilities, unsigned char *decisions)
{
    int status = enter(instance);
    if (status)
        return status;
    status = preprocess_checked(instance, rgb, width, height, instance->values + INPUT_AT);
    if (status == MODEL_OK)
        status = run_in_place(instance, probabilities);
    if (status == MODEL_OK && decisions)
        decide(probabilities, decisions);
    if (status == MODEL_OK)
        activate(probabilities);
    return leave(instance, status);
}

int model_classify(model_instance *instance, const uint8_t *rgb, int width, int height,
                   float *probabilities)
{
    if (!rgb || !probabilities)
        return MODEL_BAD_ARGUMENT;
    return predict(instance, rgb, width, height, probabilities, NULL);
}

int model_predict(model_instance *instance, const uint8_t *rgb, int width, int height,
                  float *probabilities, unsigned char *decisions)
{
    if (!rgb || !probabilities || !decisions)
        return MODEL_BAD_ARGUMENT;
    return predict(instance, rgb, width, height, probabilities, decisions);
}

#ifdef MODEL_GUARD
int model_guard(model_instance *instance, model_guard_state *state, model_guard_reading *reading)
{
    if (!state || !reading)
        return MODEL_BAD_ARGUMENT;
    int status = enter(instance);
    if (status)
        return status;
    guard_judge(get_guard_sums(instance), state, reading);
    return leave(instance, MODEL_OK);
}

int model_guard_case(model_guard_state *state)
{
    return state ? guard_end_case(state) : MODEL_GUARD_QUIET;
}

const int64_t *model_guard_sums(const model_instance *instance, size_t *count)
{
    if (!instance || !count || instance->network != model_weights)
        return NULL;
    *count = GUARD_CHANNELS;
    return get_guard_sums(instance) + GUARD_SUMS;
}

const char *model_guard_feature(const model_guard_state *state)
{
    return state ? guard_features[guard_find_largest(state->trends)] : "";
}

#endif
#ifdef MODEL_ISAS
/* From the micro-kernels' dispatcher, another object file. */
int micro_isa_choose(const char *name);
const char *micro_isa_name(void);

int model_set_isa(const char *name) { return micro_isa_choose(name) ? MODEL_OK : MODEL_BAD_ARGUMENT; }

const char *model_isa(void) { return micro_isa_name(); }

#endif
int model_set_threads(model_instance *instance, int threads)
{
    if (threads < 1 || threads > MODEL_MAX_THREADS)
        return MODEL_BAD_ARGUMENT;
    int status = enter(instance);
    if (status)
        return status;
    return leave(instance, pool_start(&instance->pool, threads) ? MODEL_OK : MODEL_NO_THREADS);
}

int model_threads(const model_instance *instance)
{
    return instance && instance->network == model_weights ? instance->pool.count + 1 : 0;
}

int model_watch(model_instance *instance, model_watcher *watcher, void *user)
{
    int status = enter(instance);
    if (status)
        return status;
    instance->watcher = watcher;
    instance->user = user;
    return leave(instance, MODEL_OK);
}

#ifdef MODEL_COUNTS
int model_layer_saturation(model_instance *instance, int layer, model_saturation *saturation)
{
    if (layer < 0 || layer >= MODEL_LAYER_COUNT || !saturation)
        return MODEL_BAD_ARGUMENT;
    int status = enter(instance);
    if (status)
        return status;
    *saturation = get_counts(instance)[layer];
    return leave(instance, MODEL_OK);
}

int model_reset_saturation(model_instance *instance)
{
    int status = enter(instance);
    if (status)
        return status;
    memset(get_counts(instance), 0, MODEL_LAYER_COUNT * sizeof(model_saturation));
    return leave(instance, MODEL_OK);
}

#endif
const char *model_message(int status)
{
    switch (status) {
    case MODEL_OK: return "done";
    case MODEL_BAD_ARGUMENT: return "an argument is missing or out of range";
    case MODEL_BAD_SIZE: return "the network does not support this image size";
    case MODEL_NOT_FINITE: return "the input or an output contains NaN or infinity";
    case MODEL_NO_IMAGE: return "this network does not take an image";
    case MODEL_NO_THREADS: return "the system cannot start more threads";
    case MODEL_BUSY: return "another call is using this instance";
    case MODEL_TOO_LARGE: return too_large;
    case MODEL_TOO_COSTLY: return too_costly;
    default: return "a kernel failed";
    }
}

#endif
