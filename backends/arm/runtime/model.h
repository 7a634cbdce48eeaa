/* model: a neural network as plain C functions, made by tcc.
 *
 * From an image to probabilities:
 *
 *     float probabilities[MODEL_OUTPUT_SIZE];
 *     int status = model_classify(rgb, width, height, probabilities);
 *     if (status != MODEL_OK) fprintf(stderr, "%s\n", model_message(status));
 *
 * Or step by step: model_preprocess gives the input tensor, model_run the network's raw output,
 * model_activate what they mean. Link with libmodel.a or libmodel.so, with -lpthread and -lm.
 *
 * The functions work in one static block of memory and allocate nothing, except model_preprocess
 * and model_classify while they resize. One call runs at a time: a second one that comes from
 * another thread meanwhile returns MODEL_BUSY and does nothing. The caller's thread needs 256 KiB
 * of stack. Use it in one process: threads do not live on in the child of a fork().
 */
#ifndef MODEL_H
#define MODEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* constants */

/* What a function returns: 0 when all went well. */
enum {
    MODEL_OK = 0,
    MODEL_BAD_ARGUMENT = 1, /* a pointer is NULL, or a number is out of range */
    MODEL_BAD_SIZE = 2,     /* the image has no pixels, or, where the network does not resize, not
                               the size it takes */
    MODEL_NOT_FINITE = 3,   /* the input or an output holds NaN or infinity */
    MODEL_NO_MEMORY = 4,    /* there is no memory for resizing */
    MODEL_NO_IMAGE = 5,     /* this network does not take an image */
    MODEL_NO_THREADS = 6,   /* the system gives no more threads; one is used */
    MODEL_BUSY = 7,         /* another call is at work */
    MODEL_FAILED = 8,       /* a kernel failed; this does not happen */
    MODEL_TOO_LARGE = 9,    /* the image is larger than MODEL_MAX_SIDE or MODEL_MAX_PIXELS */
    MODEL_TOO_COSTLY = 10   /* its resize would hold more than MODEL_MAX_ROWS_BYTES */
};

/* What is to be applied to a raw output: see model_activate. */
enum { MODEL_NONE = 0, MODEL_SOFTMAX = 1, MODEL_SIGMOID = 2 };

/* One output of the network. */
typedef struct {
    const char *name;
    int activation;            /* MODEL_NONE, MODEL_SOFTMAX or MODEL_SIGMOID */
    int rank;                  /* 1 for a vector, 3 for channels, height, width */
    size_t shape[3];           /* `rank` numbers */
    size_t offset;             /* where it begins in the output of model_run, in floats */
    size_t size;               /* how many floats it has */
    size_t label_count;        /* how many labels there are: one a channel, or none */
    const char *const *labels; /* UTF-8 */
} model_output;

/* The outputs, in the order in which they stand in the output of model_run. */
extern const model_output model_outputs[MODEL_OUTPUT_COUNT];

/* Run the network.
 *
 * input: MODEL_INPUT_SIZE floats, channel by channel, row by row, as model_preprocess writes them.
 * output: MODEL_OUTPUT_SIZE floats, the raw outputs one after another; untouched on failure
 * except by MODEL_NOT_FINITE. Aligned as floats are, no more. They must not overlap.
 */
int model_run(const float *input, float *output);

/* Make the input of an image, to the bit as the network was trained and tested with.
 *
 * rgb: red, green and blue of each pixel, one byte each, row by row without gaps:
 * width * height * 3 bytes. input: MODEL_INPUT_SIZE floats.
 */
int model_preprocess(const uint8_t *rgb, int width, int height, float *input);

/* Apply each output's activation in place, to the MODEL_OUTPUT_SIZE floats of model_run.
 *
 * Softmax is over the channels of each pixel (the elements of a vector).
 */
int model_activate(float *output);

/* From an image to activated outputs: the three functions above in turn.
 *
 * probabilities: MODEL_OUTPUT_SIZE floats; they are probabilities where the output has
 * an activation.
 */
int model_classify(const uint8_t *rgb, int width, int height, float *probabilities);

/* Set how many threads share the work, 1 to MODEL_MAX_THREADS, for all later calls.
 *
 * At first there is one: the caller's. Others wait, without using the processor, until there
 * is work or this function is called again. Results do not depend on it.
 */
int model_set_threads(int threads);

/* Return how many threads share the work. */
int model_threads(void);

/* Return what a status means, in a few words. */
const char *model_message(int status);

/* Return the version of tcc that made this, and the target, as text. */
const char *model_version(void);

#ifdef __cplusplus
}
#endif
#endif
