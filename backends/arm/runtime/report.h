/* Prints the results of model-run, and the description of the program. */
#ifndef MODEL_REPORT_H
#define MODEL_REPORT_H

#include <stdio.h>
#include <stdlib.h>

#include "model.h"
#include "reader.h"

/* A class with its raw and its activated value, for sorting. */
typedef struct {
    size_t index;
    float raw, value;
} class_value;

/* Compare by raw value, largest first, then by class. Different raw values can have the same
 * activated value. */
static int compare_classes(const void *a, const void *b)
{
    const class_value *x = a, *y = b;
    if (x->raw != y->raw)
        return x->raw < y->raw ? 1 : -1;
    return (x->index > y->index) - (x->index < y->index);
}

/* Print the `top` classes with the largest values of an output; 0: all classes. */
static void print_classes(const model_output *about, const float *raw, const float *values,
                          long top)
{
    class_value *classes = malloc(about->size * sizeof *classes);
    if (!classes)
        fail(FAULT, about->name, "not enough memory to sort the classes");
    for (size_t i = 0; i < about->size; i++)
        classes[i] = (class_value){i, raw[i], values[i]};
    qsort(classes, about->size, sizeof *classes, compare_classes);
    size_t shown_count = top && (size_t)top < about->size ? (size_t)top : about->size;
    for (size_t i = 0; i < shown_count; i++) {
        size_t index = classes[i].index;
        if (index < about->label_count)
            printf("  %-24s %.6f\n", about->labels[index], (double)classes[i].value);
        else
            printf("  class %-18zu %.6f\n", index, (double)classes[i].value);
    }
    free(classes);
}

static void print_label(const model_output *about, size_t index, const char *prefix)
{
    if (index < about->label_count)
        printf("%s%s", prefix, about->labels[index]);
    else
        printf("%s%zu", prefix, index);
}

/* Print the decision on an output. */
static void print_decision(const model_output *about, const unsigned char *decisions)
{
    const char *prefix = ": ";
    printf("  decision");
    for (size_t i = 0; i < about->size; i++)
        if (decisions[i]) {
            print_label(about, i, prefix);
            prefix = ", ";
        }
    printf(*prefix == ':' ? ": none\n" : "\n");
}

static void print_output(int number, const float *raw, const float *values,
                         const unsigned char *decisions, long top)
{
    const model_output *about = &model_outputs[number];
    if (MODEL_OUTPUT_COUNT > 1)
        printf(" %s\n", about->name);
    if (about->rank == 1) {
        print_classes(about, raw, values, top);
        if (model_has_thresholds(number))
            print_decision(about, decisions);
        return;
    }
    float low = values[0], high = values[0];
    for (size_t i = 1; i < about->size; i++) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    printf("  map of %zu x %zu x %zu, from %.6f to %.6f\n", about->shape[0], about->shape[1],
           about->shape[2], (double)low, (double)high);
}

static void print_json(const char *text)
{
    putchar('"');
    for (; *text; text++)
        if (*text == '"' || *text == '\\' || (unsigned char)*text < ' ')
            printf("\\u%04x", (unsigned)(unsigned char)*text);
        else
            putchar(*text);
    putchar('"');
}

/* Print an array of numbers. */
static void print_numbers(size_t count, const size_t *numbers)
{
    for (size_t i = 0; i < count; i++)
        printf(i ? ", %zu" : "[%zu", numbers[i]);
    putchar(']');
}

static void print_field(const char *prefix, const char *text)
{
    printf("%s", prefix);
    print_json(text);
}

/* Print this program's input, outputs, memory and layers as JSON. */
static void describe(void)
{
    static const size_t shape[] = MODEL_INPUT_SHAPE;
    printf("{\"input\": {\"type\": \"%s\", \"shape\": ",
           sizeof(model_input) == 1 ? "uint8" : "float32");
    print_numbers(MODEL_INPUT_RANK, shape);
    printf("}, \"outputs\": [");
    for (int i = 0; i < MODEL_OUTPUT_COUNT; i++) {
        print_field(i ? ", {\"name\": " : "{\"name\": ", model_outputs[i].name);
        printf(", \"shape\": ");
        print_numbers((size_t)model_outputs[i].rank, model_outputs[i].shape);
        putchar('}');
    }
    printf("], \"arena\": %d, \"arena_bound\": %d, \"weights\": %d, \"layers\": [",
           MODEL_ARENA_SIZE, MODEL_ARENA_BOUND, MODEL_WEIGHTS_SIZE);
    for (const model_layer *layer = model_layers; layer->name; layer++) {
        print_field(layer == model_layers ? "{\"name\": " : ", {\"name\": ", layer->name);
        print_field(", \"kernel\": ", layer->kernel);
        print_field(", \"type\": ", layer->type);
        printf(", \"bytes\": %zu}", layer->size);
    }
    printf("]}\n");
}

#endif
