/* model-run: run the network on files, from the command line.
 *
 * Build it with the files next to it: cc -O2 -I.. runner.c ../libmodel.a -lpthread -lm
#ifdef MODEL_SIGNER
 * with monocypher.c. A program built this way needs its own signature.
#endif
 *
 * It reads the clock before and after it creates the instance, before and after each preprocessing
 * and each run, and with --profile after each layer, and at no other time.
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
    "Run the network on each INPUT, and print the results. An option applies to the inputs\n"
    "after it.\n"
    "\n"
    "  IMAGE.ppm         an image: binary PPM (P6) with 8 bits per sample\n"
    "  --rgb FILE        an image: raw bytes, red, green, blue; needs --size before it\n"
    "  --size WxH        width and height in pixels of each --rgb after it\n"
    "  --tensor FILE     an input tensor: raw elements in the order channels, rows, columns\n"
    "\n"
    "  --raw FILE        also write the raw outputs of all inputs to FILE, as float32\n"
    "  --top N           print the N best classes of each output (default 5; 0: all)\n"
    "  --threads N       use N threads (default 1)\n"
#ifdef MODEL_ISAS
    "  --isa NAME        use this instruction set instead of the best one of this processor:\n"
    "                    " MODEL_ISAS "\n"
#endif
    "  --repeat N        run each input N times, and print the median time\n"
    "  --times FILE      write the milliseconds of each run to FILE: raw float64\n"
    "  --profile FILE    write lines of layer, kernel and nanoseconds to FILE: for each input\n"
    "                    creation and preprocessing, then every layer of each run\n"
    "  --layers FILE     write the result of each layer of each run to FILE, in memory order\n"
#ifdef MODEL_GUARD
    "  --guard FILE      write the guard's numbers of each input to FILE: raw int64\n"
#endif
    "  --quiet           print no classes\n"
    "  --describe        print inputs, outputs, memory and layers as JSON, and exit\n"
    "  --version         print the version, and exit\n"
    "  --help            print this help, and exit\n"
    "\n"
    "The printed values and decisions use the temperature and thresholds that `tcc eval --fit`\n"
    "writes into this program.\n"
    "\n"
#ifdef MODEL_SIGNER
    "This program starts only with a valid signature of itself in model-run.sig, next to it.\n"
    "\n"
    "Exit status 3: there is no valid signature. Otherwise:\n"
#endif
    "Exit status: 0 success; 1 an error of this program or the system; 2 a bad option or input.\n";

static float output[MODEL_OUTPUT_SIZE], values[MODEL_OUTPUT_SIZE];
static unsigned char decisions[MODEL_OUTPUT_SIZE];
static long repeat = 1, top = 5;
static int quiet;

/* The output files, and the options that name them. */
enum { RAW, TIMES, PROFILE, LAYERS, FILES };
static const char *const file_options[FILES] = {"--raw", "--times", "--profile", "--layers"};
static FILE *files[FILES];

#ifdef MODEL_GUARD
/* The guard's stream, in which each input is one case, and the file for its numbers. */
static model_guard_state stream;
static FILE *guard_file;
static int alarm_level;

/* Write the numbers of an input: see `list_numbers` in compiler/bundle/guard_readings.py. */
static void write_guard(const model_guard_reading *reading)
{
    int64_t numbers[5 + 3 + 2 * MODEL_GUARD_FEATURES] = {reading->picture, reading->drift,
                                                         reading->layer, reading->unusual,
                                                         alarm_level};
    for (int i = 0; i < 3; i++)
        numbers[5 + i] = stream.evidence[i];
    for (int k = 0; k < MODEL_GUARD_FEATURES; k++) {
        numbers[8 + k] = stream.trends[k];
        numbers[8 + MODEL_GUARD_FEATURES + k] = reading->deviations[k];
    }
    size_t count = 0;
    const int64_t *sums = model_guard_sums(instance, &count);
    if (fwrite(numbers, sizeof numbers, 1, guard_file) != 1 ||
        (count && fwrite(sums, count * sizeof *sums, 1, guard_file) != 1))
        fail(FAULT, "--guard", strerror(errno));
}

/* Judge the input of the last run. */
static void guard_input(const char *path)
{
    model_guard_reading reading;
    check(path, model_guard(instance, &stream, &reading));
    alarm_level = model_guard_case(&stream);
    if (guard_file)
        write_guard(&reading);
    if (!quiet && reading.unusual)
        printf("  unlike the calibration images (at most 1 in 20 normal ones is): %s\n",
               reading.feature);
}

static void print_alarm(void)
{
    if (alarm_level == MODEL_GUARD_NETWORK)
        puts("the network sees something else: its accuracy here is not known");
    if (alarm_level == MODEL_GUARD_PICTURES)
        printf("the pictures differ from those of calibration, most of all in %s\n",
               model_guard_feature(&stream));
}

#endif
/* Time in milliseconds of the creation of the instance. */
static double creation;

/* The start time of each layer, and the end time of the last one. */
static double layer_start_times[MODEL_LAYER_COUNT + 1];

/* Return the integer in a text, within limits. */
static long parse_number(const char *option, const char *text, long low, long high)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || *text == 0 || *end || value < low || value > high) {
        char reason[96];
        snprintf(reason, sizeof reason, "needs an integer from %ld to %ld", low, high);
        fail(BAD_INPUT, option, reason);
    }
    return value;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void write_file(int file, const void *bytes, size_t size)
{
    if (files[file] && size && fwrite(bytes, size, 1, files[file]) != 1)
        fail(FAULT, file_options[file], strerror(errno));
}

/* Record the time after a layer, and write its result. */
static void record_layer(void *user, int layer, const void *result)
{
    (void)user;
    if (files[PROFILE])
        layer_start_times[layer + 1] = now();
    if (layer >= 0)
        write_file(LAYERS, result, model_layers[layer].size);
}

static void write_time(const char *name, const char *kernel, double milliseconds)
{
    if (files[PROFILE] && fprintf(files[PROFILE], "%s\t%s\t%.0f\n", name, kernel,
                                  milliseconds * 1e6) < 0)
        fail(FAULT, file_options[PROFILE], strerror(errno));
}

/* Run the network on the current input, and print the results. */
static void run(const char *path)
{
    double *times = malloc((size_t)repeat * sizeof *times);
    if (!times)
        fail(FAULT, path, "not enough memory for the times");
    write_time("(create)", "", creation);
    write_time("(preprocess)", "", preprocessing);
    for (long i = 0; i < repeat; i++) {
        double start = now();
        check(path, model_run(instance, input, output));
        times[i] = now() - start;
        write_file(TIMES, &times[i], sizeof times[i]);
        for (int k = 0; k < MODEL_LAYER_COUNT; k++)
            write_time(model_layers[k].name, model_layers[k].kernel,
                       layer_start_times[k + 1] - layer_start_times[k]);
    }
    qsort(times, (size_t)repeat, sizeof *times, compare_doubles);
    write_file(RAW, output, sizeof output);
    if (!quiet) {
        printf("%s\n", path);
        memcpy(values, output, sizeof values);
        model_activate(values);
        model_decide(output, decisions);
        for (int i = 0; i < MODEL_OUTPUT_COUNT; i++) {
            size_t offset = model_outputs[i].offset;
            print_output(i, output + offset, values + offset, decisions + offset, top);
        }
        if (repeat > 1)
            printf("  median of %ld runs: %.3f ms\n", repeat, times[repeat / 2]);
    }
#ifdef MODEL_GUARD
    guard_input(path);
#endif
    free(times);
}

/* Read the input from an option or a file name, and run it. */
static void read_input(const char *option, const char *path, const char *size)
{
    if (!strcmp(option, "--tensor")) {
        read_rest(open_file(path), path, input, sizeof input);
    } else if (!strcmp(option, "--rgb")) {
        int width, height, end = 0;
        if (!size || sscanf(size, "%9dx%9d%n", &width, &height, &end) != 2 || size[end])
            fail(BAD_INPUT, size ? "--size" : path, "set --size WxH before --rgb");
        read_pixels(open_file(path), path, width, height);
    } else {
        read_ppm(path);
    }
    run(path);
}

/* Handle an option with an output file; return whether `option` is such an option. */
static int set_file(const char *option, const char *path)
{
    int file = 0;
    while (file < FILES && strcmp(option, file_options[file]))
        file++;
    if (file == FILES)
        return 0;
    if (files[file])
        fail(BAD_INPUT, option, "can be used only once");
    files[file] = fopen(path, "wb");
    if (!files[file])
        fail(BAD_INPUT, path, strerror(errno));
    if (file == PROFILE || file == LAYERS)
        check(option, model_watch(instance, record_layer, NULL));
    return 1;
}

#ifdef MODEL_ISAS
static void set_isa(const char *option, const char *name)
{
    if (model_set_isa(name))
        fail(BAD_INPUT, option, "takes one that this processor has, of " MODEL_ISAS);
}

#endif
/* Handle an option with a value; return whether `option` is such an option. */
static int set_option(const char *option, const char *value, const char **size)
{
    if (!strcmp(option, "--size"))
        *size = value;
    else if (!strcmp(option, "--top"))
        top = parse_number(option, value, 0, 1 << 30);
    else if (!strcmp(option, "--repeat"))
        repeat = parse_number(option, value, 1, 1000000);
    else if (!strcmp(option, "--threads"))
        check(option, model_set_threads(instance, (int)parse_number(option, value, 1,
                                                                    MODEL_MAX_THREADS)));
#ifdef MODEL_GUARD
    else if (!strcmp(option, "--guard") && !guard_file) {
        if (!(guard_file = fopen(value, "wb")))
            fail(BAD_INPUT, value, strerror(errno));
    }
#endif
#ifdef MODEL_ISAS
    else if (!strcmp(option, "--isa"))
        set_isa(option, value);
#endif
    else
        return set_file(option, value);
    return 1;
}

#ifdef MODEL_COUNTS
/* Print the share of saturated values of each layer over all runs. */
static void print_saturation(void)
{
    puts("saturated values over all runs");
    for (int i = 0; i < MODEL_LAYER_COUNT; i++) {
        model_saturation saturation;
        check("saturation", model_layer_saturation(instance, i, &saturation));
        if (saturation.count)
            printf("  %8.4f%%  %s (%llu of %llu)\n",
                   100.0 * (double)saturation.at_end / (double)saturation.count,
                   model_layers[i].name,
                   (unsigned long long)saturation.at_end, (unsigned long long)saturation.count);
    }
}

#endif
static void close_files(void)
{
    for (int file = 0; file < FILES; file++)
        if (files[file] && fclose(files[file]))
            fail(FAULT, file_options[file], strerror(errno));
#ifdef MODEL_GUARD
    if (guard_file && fclose(guard_file))
        fail(FAULT, "--guard", strerror(errno));
#endif
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
            return fputs(usage, stdout), close_files(), 0;
        if (!strcmp(option, "--version"))
            return puts(model_version()), close_files(), 0;
        if (!strcmp(option, "--describe"))
            return describe(), close_files(), 0;
        if (!strcmp(option, "--quiet")) {
            quiet = 1;
        } else if (strncmp(option, "--", 2)) {
            read_input("", option, NULL);
            inputs++;
        } else if (!value) {
            fail(BAD_INPUT, option, "unknown option, or its value is missing; see --help");
        } else if (!strcmp(option, "--tensor") || !strcmp(option, "--rgb")) {
            read_input(option, value, size);
            inputs++, i++;
        } else if (set_option(option, value, &size)) {
            i++;
        } else {
            fail(BAD_INPUT, option, "unknown option; see --help");
        }
    }
    if (!inputs)
        fail(BAD_INPUT, "no input", "give an image or a tensor; see --help");
#ifdef MODEL_GUARD
    if (!quiet)
        print_alarm();
#endif
#ifdef MODEL_COUNTS
    if (!quiet)
        print_saturation();
#endif
    close_files();
    return 0;
}
