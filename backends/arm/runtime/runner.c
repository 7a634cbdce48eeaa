/* model-run: run the network on files, from the command line.
 *
 * Build it from what lies beside it: cc -O2 -I.. runner.c ../libmodel.a -lpthread -lm
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model.h"
#include "reader.h"

static const char usage[] =
    "usage: model-run [OPTION]... [INPUT]...\n"
    "\n"
    "Run the network on each INPUT, and print what it sees. An option holds for the inputs\n"
    "that follow it.\n"
    "\n"
    "  IMAGE.ppm         an image: binary PPM (P6) with 8 bits a sample\n"
    "  --rgb FILE        an image: raw bytes, red, green, blue; needs --size before it\n"
    "  --size WxH        width and height, in pixels, of each --rgb that follows\n"
    "  --tensor FILE     the network's input itself: raw float32, channels, rows, columns\n"
    "\n"
    "  --raw FILE        also write the raw outputs of all inputs to FILE, as float32\n"
    "  --top N           print the N best classes of each output (default 5; 0: all)\n"
    "  --threads N       share the work among N threads (default 1)\n"
    "  --repeat N        run each input N times, and print the median time\n"
    "  --quiet           print no classes\n"
    "  --describe        print input and outputs as JSON, and end\n"
    "  --version         print the version, and end\n"
    "  --help            print this, and end\n"
    "\n"
    "Exit status: 0 done; 1 a fault of this program or of the system; 2 a bad option or input.\n";

static float output[MODEL_OUTPUT_SIZE];
static long repeat = 1, top = 5;
static int quiet;
static FILE *raw;

/* Return the whole number in a text, within limits. */
static long number(const char *option, const char *text, long low, long high)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || *text == 0 || *end || value < low || value > high) {
        char why[96];
        snprintf(why, sizeof why, "takes a whole number from %ld to %ld", low, high);
        fail(BAD_INPUT, option, why);
    }
    return value;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A class and its value, to be sorted. */
typedef struct {
    size_t index;
    float value;
} class_value;

static int best_first(const void *a, const void *b)
{
    const class_value *x = a, *y = b;
    if (x->value != y->value)
        return x->value < y->value ? 1 : -1;
    return (x->index > y->index) - (x->index < y->index);
}

static void print_classes(const model_output *about, const float *values)
{
    class_value *classes = malloc(about->size * sizeof *classes);
    if (!classes)
        fail(FAULT, about->name, "there is no memory to sort the classes");
    for (size_t i = 0; i < about->size; i++)
        classes[i] = (class_value){i, values[i]};
    qsort(classes, about->size, sizeof *classes, best_first);
    size_t shown = top && (size_t)top < about->size ? (size_t)top : about->size;
    for (size_t i = 0; i < shown; i++) {
        size_t index = classes[i].index;
        if (index < about->label_count)
            printf("  %-24s %.6f\n", about->labels[index], (double)classes[i].value);
        else
            printf("  class %-18zu %.6f\n", index, (double)classes[i].value);
    }
    free(classes);
}

static void print_output(const model_output *about, const float *values)
{
    if (MODEL_OUTPUT_COUNT > 1)
        printf(" %s\n", about->name);
    if (about->rank == 1) {
        print_classes(about, values);
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

/* Run the network on the input that was read, and print what it gives. */
static void run(const char *path)
{
    double *times = malloc((size_t)repeat * sizeof *times);
    if (!times)
        fail(FAULT, path, "there is no memory for the times");
    for (long i = 0; i < repeat; i++) {
        double start = now();
        check(path, model_run(input, output));
        times[i] = now() - start;
    }
    qsort(times, (size_t)repeat, sizeof *times, ascending);
    if (raw && fwrite(output, sizeof output, 1, raw) != 1)
        fail(FAULT, "--raw", strerror(errno));
    if (!quiet) {
        printf("%s\n", path);
        model_activate(output);
        for (int i = 0; i < MODEL_OUTPUT_COUNT; i++)
            print_output(&model_outputs[i], output + model_outputs[i].offset);
        if (repeat > 1)
            printf("  median of %ld runs: %.3f ms\n", repeat, times[repeat / 2]);
    }
    free(times);
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

static void describe(void)
{
    static const int shape[] = MODEL_INPUT_SHAPE;
    printf("{\"input\": [");
    for (int i = 0; i < MODEL_INPUT_RANK; i++)
        printf(i ? ", %d" : "%d", shape[i]);
    printf("], \"outputs\": [");
    for (int i = 0; i < MODEL_OUTPUT_COUNT; i++) {
        printf(i ? ", {\"name\": " : "{\"name\": ");
        print_json(model_outputs[i].name);
        printf(", \"shape\": [");
        for (int k = 0; k < model_outputs[i].rank; k++)
            printf(k ? ", %zu" : "%zu", model_outputs[i].shape[k]);
        printf("]}");
    }
    printf("]}\n");
}

/* Read the input of an option or file name. */
static void read_input(const char *option, const char *path, const char *size)
{
    if (!strcmp(option, "--tensor")) {
        read_rest(opened(path), path, input, sizeof input);
    } else if (!strcmp(option, "--rgb")) {
        int width, height, end = 0;
        if (!size || sscanf(size, "%9dx%9d%n", &width, &height, &end) != 2 || size[end])
            fail(BAD_INPUT, size ? "--size" : path, "give the size as --size WxH before --rgb");
        read_pixels(opened(path), path, width, height);
    } else {
        read_ppm(path);
    }
    run(path);
}

/* Take an option that sets something; return whether it was one. */
static int set(const char *option, const char *value, const char **size)
{
    if (!strcmp(option, "--size"))
        *size = value;
    else if (!strcmp(option, "--top"))
        top = number(option, value, 0, 1 << 30);
    else if (!strcmp(option, "--repeat"))
        repeat = number(option, value, 1, 1000000);
    else if (!strcmp(option, "--threads"))
        check(option, model_set_threads((int)number(option, value, 1, MODEL_MAX_THREADS)));
    else if (!strcmp(option, "--raw")) {
        if (raw)
            fail(BAD_INPUT, option, "can be given once");
        raw = fopen(value, "wb");
        if (!raw)
            fail(BAD_INPUT, value, strerror(errno));
    } else
        return 0;
    return 1;
}

static void end(void)
{
    if (raw && fclose(raw))
        fail(FAULT, "--raw", strerror(errno));
    if (fflush(stdout))
        fail(FAULT, "standard output", strerror(errno));
}

int main(int count, char **arguments)
{
    int inputs = 0;
    const char *size = NULL;
    for (int i = 1; i < count; i++) {
        const char *option = arguments[i], *value = i + 1 < count ? arguments[i + 1] : NULL;
        if (!strcmp(option, "--help"))
            return fputs(usage, stdout), end(), 0;
        if (!strcmp(option, "--version"))
            return puts(model_version()), end(), 0;
        if (!strcmp(option, "--describe"))
            return describe(), end(), 0;
        if (!strcmp(option, "--quiet")) {
            quiet = 1;
        } else if (strncmp(option, "--", 2)) {
            read_input("", option, NULL);
            inputs++;
        } else if (!value) {
            fail(BAD_INPUT, option, "not an option, or one that takes a value; see --help");
        } else if (!strcmp(option, "--tensor") || !strcmp(option, "--rgb")) {
            read_input(option, value, size);
            inputs++, i++;
        } else if (set(option, value, &size)) {
            i++;
        } else {
            fail(BAD_INPUT, option, "there is no such option; see --help");
        }
    }
    if (!inputs)
        fail(BAD_INPUT, "no input", "name an image or a tensor; see --help");
    end();
    return 0;
}
