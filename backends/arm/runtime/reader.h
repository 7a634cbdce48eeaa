/* Reads the inputs of model-run from files; every error ends the program. */
#ifndef MODEL_READER_H
#define MODEL_READER_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "model.h"

enum { FAULT = 1, BAD_INPUT = 2 };

/* The network, and its input from the file read last. */
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

/* Print an error, and end the program. */
_Noreturn static void fail(int code, const char *subject, const char *reason)
{
    fflush(stdout);
    fprintf(stderr, "model-run: %s: %s\n", subject, reason);
    exit(code);
}

static FILE *open_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail(BAD_INPUT, path, strerror(errno));
    return file;
}

/* Read exactly `size` bytes, and check that the file then ends. */
static void read_rest(FILE *file, const char *path, void *bytes, size_t size)
{
    size_t count = fread(bytes, 1, size, file);
    char reason[128] = "";
    if (ferror(file))
        fail(BAD_INPUT, path, strerror(errno));
    if (count < size)
        snprintf(reason, sizeof reason, "the file ends after %zu of %zu bytes of data", count,
                 size);
    else if (fgetc(file) != EOF)
        snprintf(reason, sizeof reason, "the file has more than the expected %zu bytes of data",
                 size);
    if (*reason)
        fail(BAD_INPUT, path, reason);
    fclose(file);
}

/* Return the next number of a PPM header, after white space and comments. */
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
        fail(BAD_INPUT, path, "the header is not a binary PPM header (P6)");
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

/* Check the size of an image before memory is allocated for it. */
static void check_size(const char *path, int width, int height)
{
    if (width < 1 || height < 1)
        check(path, MODEL_BAD_SIZE);
    if (width > MODEL_MAX_SIDE || height > MODEL_MAX_SIDE || height > MODEL_MAX_PIXELS / width)
        check(path, MODEL_TOO_LARGE);
}

/* Report the wrong size of an image for a network that does not resize. */
static void fail_size(const char *path, int width, int height)
{
    static const int shape[] = MODEL_INPUT_SHAPE;
    const int *end = shape + MODEL_INPUT_RANK;
    char reason[128];
    snprintf(reason, sizeof reason, "the image is %dx%d pixels, but the network takes %dx%d", width,
             height, end[-1], end[-1 - (MODEL_INPUT_RANK > 1)]);
    fail(BAD_INPUT, path, reason);
}

/* Time in milliseconds of the last image's preprocessing. */
static double preprocessing;

/* Read the pixels from the rest of a file, and preprocess them to the input. */
static void read_pixels(FILE *file, const char *path, int width, int height)
{
    check_size(path, width, height);
    size_t size = (size_t)width * (size_t)height * 3;
    uint8_t *rgb = malloc(size);
    if (!rgb)
        fail(FAULT, path, "not enough memory for the image");
    read_rest(file, path, rgb, size);
    double start = now();
    int status = model_preprocess(instance, rgb, width, height, input);
    preprocessing = now() - start;
    if (status == MODEL_BAD_SIZE)
        fail_size(path, width, height);
    check(path, status);
    free(rgb);
}

static void read_ppm(const char *path)
{
    FILE *file = open_file(path);
    if (fgetc(file) != 'P' || fgetc(file) != '6')
        fail(BAD_INPUT, path, "this is not a binary PPM image (P6)");
    int width = header_number(file, path), height = header_number(file, path);
    if (header_number(file, path) != 255)
        fail(BAD_INPUT, path, "the PPM image must have 8 bits per sample (a maximum of 255)");
    read_pixels(file, path, width, height);
}

#endif
