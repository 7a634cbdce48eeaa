/* model-run: run the network on files, from the command line.
 *
 * Build it from what lies beside it: cc -O2 -I.. runner.c ../libmodel.a -lpthread -lm
#ifdef MODEL_SIGNER
 * with monocypher.c. What is built so has a signature of its own.
#endif
 *
 * It asks the system for the time before and after it creates the instance, before and after each
 * preprocessing and each run, and with --profile after each layer, and at no other time.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "reader.h"
#include "report.h"
#ifdef MODEL_SIGNER
#include "signature.h"
#endif

static const char usage[] =
    "usage: model-run [OPTION]... [INPUT]...\n"
    "\n"
    "Run the network on each INPUT, and print what it sees. An option holds for the inputs\n"
    "that follow it.\n"
    "\n"
    "  IMAGE.ppm         an image: binary PPM (P6) with 8 bits a sample\n"
    "  --rgb FILE        an image: raw bytes, red, green, blue; needs --size before it\n"
    "  --size WxH        width and height, in pixels, of each --rgb that follows\n"
    "  --tensor FILE     the network's input itself: raw elements, channels, rows, columns\n"
    "\n"
    "  --raw FILE        also write the raw outputs of all inputs to FILE, as float32\n"
    "  --top N           print the N best classes of each output (default 5; 0: all)\n"
    "  --threads N       share the work among N threads (default 1)\n"
#ifdef MODEL_ISAS
    "  --isa NAME        use these instructions, not the best that this processor has, of\n"
    "                    " MODEL_ISAS "\n"
#endif
    "  --repeat N        run each input N times, and print the median time\n"
    "  --times FILE      write the milliseconds of each run to FILE: raw float64\n"
    "  --profile FILE    write to FILE lines of layer, kernel and nanoseconds: for each input\n"
    "                    what came before it, then for each run of it every layer\n"
    "  --layers FILE     write the result of each layer of each run to FILE, as it lies in memory\n"
    "  --quiet           print no classes\n"
    "  --describe        print input and outputs as JSON, and end\n"
    "  --version         print the version, and end\n"
    "  --help            print this, and end\n"
    "\n"
    "Classes are printed with the temperature, and decided by the thresholds, that `tcc eval --fit`\n"
    "writes into this program.\n"
    "\n"
#ifdef MODEL_SIGNER
    "It starts only where model-run.sig beside it is a signature of this program.\n"
    "\n"
    "Exit status 3: there is no such signature. Else:\n"
#endif
    "Exit status: 0 done; 1 a fault of this program or of the system; 2 a bad option or input.\n";

static float output[MODEL_OUTPUT_SIZE], values[MODEL_OUTPUT_SIZE];
static unsigned char taken[MODEL_OUTPUT_SIZE];
static long repeat = 1, top = 5;
static int quiet;

/* The files that options name, and the words that name them. */
enum { RAW, TIMES, PROFILE, LAYERS, FILES };
static const char *const file_options[FILES] = {"--raw", "--times", "--profile", "--layers"};
static FILE *files[FILES];

/* Milliseconds that the instance took to be created. */
static double creation;

/* When each layer began, and the last one ended. */
static double began[MODEL_LAYER_COUNT + 1];

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

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void put(int file, const void *bytes, size_t size)
{
    if (files[file] && size && fwrite(bytes, size, 1, files[file]) != 1)
        fail(FAULT, file_options[file], strerror(errno));
}

/* Take down the time after a layer, and its result. */
static void watch(void *user, int layer, const void *result)
{
    (void)user;
    if (files[PROFILE])
        began[layer + 1] = now();
    if (layer >= 0)
        put(LAYERS, result, model_layers[layer].size);
}

static void put_time(const char *name, const char *kernel, double milliseconds)
{
    if (files[PROFILE] && fprintf(files[PROFILE], "%s\t%s\t%.0f\n", name, kernel,
                                  milliseconds * 1e6) < 0)
        fail(FAULT, file_options[PROFILE], strerror(errno));
}

/* Run the network on the input that was read, and print what it gives. */
static void run(const char *path)
{
    double *times = malloc((size_t)repeat * sizeof *times);
    if (!times)
        fail(FAULT, path, "there is no memory for the times");
    put_time("(create)", "", creation);
    put_time("(preprocess)", "", preprocessing);
    for (long i = 0; i < repeat; i++) {
        double start = now();
        check(path, model_run(instance, input, output));
        times[i] = now() - start;
        put(TIMES, &times[i], sizeof times[i]);
        for (int k = 0; k < MODEL_LAYER_COUNT; k++)
            put_time(model_layers[k].name, model_layers[k].kernel, began[k + 1] - began[k]);
    }
    qsort(times, (size_t)repeat, sizeof *times, ascending);
    put(RAW, output, sizeof output);
    if (!quiet) {
        printf("%s\n", path);
        memcpy(values, output, sizeof values);
        model_activate(values);
        model_decide(output, taken);
        for (int i = 0; i < MODEL_OUTPUT_COUNT; i++) {
            size_t at = model_outputs[i].offset;
            print_output(i, output + at, values + at, taken + at, top);
        }
        if (repeat > 1)
            printf("  median of %ld runs: %.3f ms\n", repeat, times[repeat / 2]);
    }
    free(times);
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

/* Take an option that names a file to write; return whether it was one. */
static int set_file(const char *option, const char *path)
{
    int file = 0;
    while (file < FILES && strcmp(option, file_options[file]))
        file++;
    if (file == FILES)
        return 0;
    if (files[file])
        fail(BAD_INPUT, option, "can be given once");
    files[file] = fopen(path, "wb");
    if (!files[file])
        fail(BAD_INPUT, path, strerror(errno));
    if (file == PROFILE || file == LAYERS)
        check(option, model_watch(instance, watch, NULL));
    return 1;
}

#ifdef MODEL_ISAS
static void set_isa(const char *option, const char *name)
{
    if (model_set_isa(name))
        fail(BAD_INPUT, option, "takes one that this processor has, of " MODEL_ISAS);
}

#endif
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
        check(option, model_set_threads(instance, (int)number(option, value, 1,
                                                              MODEL_MAX_THREADS)));
#ifdef MODEL_ISAS
    else if (!strcmp(option, "--isa"))
        set_isa(option, value);
#endif
    else
        return set_file(option, value);
    return 1;
}

#ifdef MODEL_COUNTS
/* Print how many integers of each layer were saturated, in all runs. */
static void print_saturation(void)
{
    puts("saturated values, in all runs");
    for (int i = 0; i < MODEL_LAYER_COUNT; i++) {
        model_saturation found;
        check("saturation", model_layer_saturation(instance, i, &found));
        if (found.count)
            printf("  %8.4f%%  %s (%llu of %llu)\n",
                   100.0 * (double)found.at_end / (double)found.count, model_layers[i].name,
                   (unsigned long long)found.at_end, (unsigned long long)found.count);
    }
}

#endif
static void end(void)
{
    for (int file = 0; file < FILES; file++)
        if (files[file] && fclose(files[file]))
            fail(FAULT, file_options[file], strerror(errno));
    if (fflush(stdout))
        fail(FAULT, "standard output", strerror(errno));
}

int main(int count, char **arguments)
{
    int inputs = 0;
    const char *size = NULL;
#ifdef MODEL_SIGNER
    check_signature();
#endif
    double start = now();
    instance = model_create(arena, sizeof arena);
    creation = now() - start;
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
#ifdef MODEL_COUNTS
    if (!quiet)
        print_saturation();
#endif
    end();
    return 0;
}
