/* Reading the inputs of model-run from files, with an end to the program on any mistake. */
#ifndef MODEL_READER_H
#define MODEL_READER_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model.h"

enum { FAULT = 1, BAD_INPUT = 2 };

/* The network, and its input from the file that was read last. */
static unsigned char arena[MODEL_ARENA_SIZE];
static model_instance *instance;
static model_input input[MODEL_INPUT_SIZE];

/* Return the time in milliseconds. */
static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

/* Say what is wrong, and end. */
_Noreturn static void fail(int code, const char *what, const char *why)
{
    fflush(stdout);
    fprintf(stderr, "model-run: %s: %s\n", what, why);
    exit(code);
}

static FILE *opened(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail(BAD_INPUT, path, strerror(errno));
    return file;
}

/* Read exactly `size` bytes, after which the file must end. */
static void read_rest(FILE *file, const char *path, void *bytes, size_t size)
{
    size_t got = fread(bytes, 1, size, file);
    char why[128] = "";
    if (ferror(file))
        fail(BAD_INPUT, path, strerror(errno));
    if (got < size)
        snprintf(why, sizeof why, "the file ends after %zu of %zu bytes of data", got, size);
    else if (fgetc(file) != EOF)
        snprintf(why, sizeof why, "the file has more than the %zu bytes of data expected", size);
    if (*why)
        fail(BAD_INPUT, path, why);
    fclose(file);
}

/* Return the next number of a PPM header, past white space and comments. */
static int header_number(FILE *file, const char *path)
{
    int c = fgetc(file), digits = 0;
    long value = 0;
    while (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '#') {
        if (c == '#')
            while (c != '\n' && c != EOF)
                c = fgetc(file);
        else
            c = fgetc(file);
    }
    for (; c >= '0' && c <= '9' && digits < 9; c = fgetc(file), digits++)
        value = value * 10 + (c - '0');
    if (!digits || !(c == ' ' || c == '\t' || c == '\n' || c == '\r'))
        fail(BAD_INPUT, path, "the header is not that of a binary PPM (P6)");
    return (int)value;
}

static void check(const char *path, int status)
{
    switch (status) {
    case MODEL_OK:
        return;
    case MODEL_NO_THREADS:
    case MODEL_BUSY:
    case MODEL_FAILED:
        fail(FAULT, path, model_message(status));
    default:
        fail(BAD_INPUT, path, model_message(status));
    }
}

/* Refuse the size of an image, before any memory is taken for it. */
static void check_size(const char *path, int width, int height)
{
    if (width < 1 || height < 1)
        check(path, MODEL_BAD_SIZE);
    if (width > MODEL_MAX_SIDE || height > MODEL_MAX_SIDE || height > MODEL_MAX_PIXELS / width)
        check(path, MODEL_TOO_LARGE);
}

/* Say of an image that nothing resizes which size it has, and which it should have. */
static void wrong_size(const char *path, int width, int height)
{
    static const int shape[] = MODEL_INPUT_SHAPE;
    const int *end = shape + MODEL_INPUT_RANK;
    char why[128];
    snprintf(why, sizeof why, "the image is %dx%d pixels, but the network takes %dx%d", width,
             height, end[-1], end[-1 - (MODEL_INPUT_RANK > 1)]);
    fail(BAD_INPUT, path, why);
}

/* Milliseconds that the last image took to become the input. */
static double preprocessing;

/* Make the input of the pixels in the rest of a file. */
static void read_pixels(FILE *file, const char *path, int width, int height)
{
    check_size(path, width, height);
    size_t size = (size_t)width * (size_t)height * 3;
    uint8_t *rgb = malloc(size);
    if (!rgb)
        fail(FAULT, path, "there is no memory for the image");
    read_rest(file, path, rgb, size);
    double start = now();
    int status = model_preprocess(instance, rgb, width, height, input);
    preprocessing = now() - start;
    if (status == MODEL_BAD_SIZE)
        wrong_size(path, width, height);
    check(path, status);
    free(rgb);
}

static void read_ppm(const char *path)
{
    FILE *file = opened(path);
    if (fgetc(file) != 'P' || fgetc(file) != '6')
        fail(BAD_INPUT, path, "this is not a binary PPM image (P6)");
    int width = header_number(file, path), height = header_number(file, path);
    if (header_number(file, path) != 255)
        fail(BAD_INPUT, path, "a PPM image needs 8 bits a sample (a maximum of 255)");
    read_pixels(file, path, width, height);
}

#endif
