/* Checks the signature that model-run needs to start: an Ed25519 signature of the program file with
 * the key in signer.h. The program file contains the weights, labels and fitted values.
 */
#ifndef MODEL_SIGNATURE_H
#define MODEL_SIGNATURE_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ed25519.h"
#include "model.h"
#include "reader.h"
#include "signer.h"

#define SIGNATURE_FILE "model-run.sig"
#define NAME_OF(word) #word
#define NAME_AS_TEXT(word) NAME_OF(word)

enum { UNSIGNED = 3, SIGNATURE_BYTES = 64 };

/* The signed text: a line with the format's name, one with the network, and one with the
   program. */
static char signed_text[2048];
static size_t signed_size;

__attribute__((format(printf, 1, 2))) static void add_signed(const char *format, ...)
{
    size_t space_left = sizeof signed_text - signed_size;
    va_list words;
    va_start(words, format);
    int size = vsnprintf(signed_text + signed_size, space_left, format, words);
    va_end(words);
    if (size < 0 || (size_t)size >= space_left)
        fail(FAULT, SIGNATURE_FILE, "the signed text is too long");
    signed_size += (size_t)size;
}

/* Add the line of this program's file. */
static void add_signed_program(void)
{
    static const char path[] = "/proc/self/exe";
    static uint8_t chunk[1 << 16];
    unsigned long long size = 0;
    sha512_state hash;
    sha512_begin(&hash);
    FILE *file = fopen(path, "rb");
    if (!file)
        fail(UNSIGNED, path, strerror(errno));
    for (size_t count; (count = fread(chunk, 1, sizeof chunk, file)) > 0; size += count)
        sha512_add(&hash, chunk, count);
    if (ferror(file))
        fail(UNSIGNED, path, strerror(errno));
    fclose(file);
    uint8_t digest[SHA512_BYTES];
    sha512_end(&hash, digest);
    add_signed("model-run %llu ", size);
    for (int i = 0; i < SHA512_BYTES; i++)
        add_signed("%02x", digest[i]);
    add_signed("\n");
}

static void read_signature(const char *path, uint8_t signature[SIGNATURE_BYTES])
{
    uint8_t bytes[SIGNATURE_BYTES + 1];
    FILE *file = fopen(path, "rb");
    if (!file)
        fail(UNSIGNED, path, "the signature is missing: this program starts only with it");
    size_t size = fread(bytes, 1, sizeof bytes, file);
    if (ferror(file) || size != SIGNATURE_BYTES)
        fail(UNSIGNED, path, "the file is not a signature: it must have 64 bytes");
    fclose(file);
    memcpy(signature, bytes, SIGNATURE_BYTES);
}

/* End the program unless its signature next to it is valid. */
static void check_signature(void)
{
    static char path[4096];
    uint8_t signature[SIGNATURE_BYTES];
    ssize_t size = readlink("/proc/self/exe", path, sizeof path - sizeof SIGNATURE_FILE);
    if (size <= 0)
        fail(UNSIGNED, "/proc/self/exe", strerror(errno));
    path[size] = 0;
    char *slash = strrchr(path, '/');
    strcpy(slash ? slash + 1 : path, SIGNATURE_FILE);
    read_signature(path, signature);
    add_signed("tcc runner signature 1\nnetwork " NAME_AS_TEXT(model_create) "\n");
    add_signed_program();
    if (!ed25519_verify(signature, signer, (const uint8_t *)signed_text, signed_size))
        fail(UNSIGNED, path, "the signature is not valid for this program");
}

#endif
