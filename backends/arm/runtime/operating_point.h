/* How outputs are read, where `tcc eval --fit` found it: a temperature, which they are divided by,
 * and thresholds on log-odds, in a file of text beside the program.
 */
#ifndef MODEL_OPERATING_POINT_H
#define MODEL_OPERATING_POINT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "decision.h"
#include "model.h"
#include "reader.h"

#define POINT_FILE "model-operating-point.txt"
#define POINT_BYTES (1 << 20)
#define NAME_OF(word) #word
#define NAME_AS_TEXT(word) NAME_OF(word)
#ifdef MODEL_SIGNER

#include "signature.h"
#endif

static model_operating_point points[MODEL_OUTPUT_COUNT];
static int points_known; /* whether the file is there */

static uint32_t crc32_of(const unsigned char *bytes, size_t size)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc;
}

/* Return the number after a word at `*at`, and go on behind it. */
static double point_number(const char *path, const char *word, char **at)
{
    size_t length = strlen(word);
    char *end;
    if (strncmp(*at, word, length))
        fail(BAD_INPUT, path, "this operating point is damaged");
    double value = strtod(*at + length, &end);
    if (end == *at + length || !isfinite(value))
        fail(BAD_INPUT, path, "this operating point is damaged");
    *at = end;
    return value;
}

/* Read what the file says of one output: name, temperature, positive class, thresholds. */
static void read_point(const char *path, char **at)
{
    int i = 0;
    size_t length = 0;
    for (; i < MODEL_OUTPUT_COUNT; i++) {
        length = strlen(model_outputs[i].name);
        if (!strncmp(*at, "output ", 7) && !strncmp(*at + 7, model_outputs[i].name, length) &&
            (*at)[7 + length] == '\n')
            break;
    }
    if (i == MODEL_OUTPUT_COUNT)
        fail(BAD_INPUT, path, "this operating point is of an output that is not here");
    model_operating_point *point = &points[i];
    *at += 8 + length;
    point->temperature = point_number(path, "temperature", at);
    point->positive = (long)point_number(path, "\npositive", at);
    double count = point_number(path, "\nthresholds", at);
    if (!(point->temperature > 0) || point->positive < -1 || count < 0 ||
        point->positive >= (long)model_outputs[i].size || count > (double)model_outputs[i].size ||
        (count > 0 && point->positive < 0 && count < (double)model_outputs[i].size))
        fail(BAD_INPUT, path, "this operating point is damaged");
    point->count = (size_t)count;
    point->thresholds = malloc((point->count + 1) * sizeof *point->thresholds);
    if (!point->thresholds)
        fail(FAULT, path, "there is no memory for the operating point");
    for (size_t k = 0; k < point->count; k++)
        point->thresholds[k] = point_number(path, "\n", at);
    if (**at != '\n')
        fail(BAD_INPUT, path, "this operating point is damaged");
    ++*at;
}

#ifdef MODEL_SIGNER
/* Check the signature beside the operating point's path; no text where there is no such file. */
static void check_signed_point(const char *path, const char *text, size_t size)
{
    static char signature[4096];
    size_t folder = strlen(path) - strlen(POINT_FILE);
    if (folder + sizeof SIGNATURE_FILE > sizeof signature)
        fail(UNSIGNED, path, "this path is too long");
    memcpy(signature, path, folder);
    strcpy(signature + folder, SIGNATURE_FILE);
    check_signature(signature, POINT_FILE, text, size);
}

#endif
/* Read a whole file, whose last line seals it, for this network. */
static void read_points(FILE *file, const char *path)
{
    static const char head[] =
        "tcc operating point 1\nnetwork " NAME_AS_TEXT(model_create) "\n";
    static char text[POINT_BYTES + 1];
    size_t size = fread(text, 1, POINT_BYTES, file);
    text[size] = 0;
    fclose(file);
#ifdef MODEL_SIGNER
    if (size == POINT_BYTES)
        fail(UNSIGNED, path, "this file is too large to be signed");
    check_signed_point(path, text, size);
#endif
    char *seal = size > 14 ? text + size - 14 : text;
    char found[16];
    snprintf(found, sizeof found, "seal %08x\n",
             (unsigned)crc32_of((unsigned char *)text, (size_t)(seal - text)));
    if (strcmp(seal, found) || strlen(text) != size)
        fail(BAD_INPUT, path, "this operating point is damaged");
    if (strncmp(text, head, sizeof head - 1))
        fail(BAD_INPUT, path, "this operating point is of another network");
    for (char *at = text + sizeof head - 1; at < seal;)
        read_point(path, &at);
}

/* Take the operating point beside the program, where there is one. */
static void find_points(void)
{
    static char path[4096];
    ssize_t size = readlink("/proc/self/exe", path, sizeof path - sizeof POINT_FILE);
#ifdef MODEL_SIGNER
    if (size <= 0)
        fail(UNSIGNED, "/proc/self/exe", strerror(errno));
#endif
    if (size <= 0)
        return;
    path[size] = 0;
    char *slash = strrchr(path, '/');
    strcpy(slash ? slash + 1 : path, POINT_FILE);
    FILE *file = fopen(path, "rb");
    points_known = file != NULL;
    if (file)
        read_points(file, path);
    else if (errno != ENOENT && errno != ENOTDIR)
        fail(BAD_INPUT, path, strerror(errno));
#ifdef MODEL_SIGNER
    if (!points_known)
        check_signed_point(path, NULL, 0);
#endif
}

/* Say, once, that nothing fitted holds: a program that was copied alone would not show it. */
static void tell_unfitted(void)
{
    if (!points_known)
        fprintf(stderr, "model-run: nothing that was fitted holds: no %s beside this program\n",
                POINT_FILE);
    points_known = 1;
}

static void print_label(const model_output *about, size_t index, const char *before)
{
    if (index < about->label_count)
        printf("%s%s", before, about->labels[index]);
    else
        printf("%s%zu", before, index);
}

/* Print what a row is taken for, by its thresholds. */
static void print_decision(const model_output *about, const float *raw,
                           const model_operating_point *point)
{
    if (!point->count)
        return;
    printf("  decision");
    const char *before = ": ";
    if (point->positive >= 0) {
        print_label(about, model_class_taken(about, raw, point), before);
    } else {
        for (size_t i = 0; i < about->size; i++)
            if (model_says_yes(raw, point, i)) {
                print_label(about, i, before);
                before = ", ";
            }
        if (*before == ':')
            printf(": none");
    }
    printf("\n");
}

#endif
