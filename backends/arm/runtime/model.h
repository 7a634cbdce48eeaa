/* model: a neural network as plain C functions, made by tcc.
 *
 * From an image to probabilities:
 *
 *     static unsigned char arena[MODEL_ARENA_SIZE];
 *     float probabilities[MODEL_OUTPUT_SIZE];
 *     unsigned char taken[MODEL_OUTPUT_SIZE]; // 1 for each class that the image is taken for
 *     model_instance *instance = model_create(arena, sizeof arena);
 *     int status = model_predict(instance, rgb, width, height, probabilities, taken);
 *     if (status != MODEL_OK) fprintf(stderr, "%s\n", model_message(status));
 *
 * Or step by step: model_preprocess gives the input tensor, model_run the network's raw outputs,
 * model_decide what they are taken for, model_activate their probabilities. `tcc eval --fit` writes
 * temperature and thresholds into the libraries themselves: link and install them again. Link with libmodel.a or libmodel.so, with -lpthread and -lm.
 *
 * All that changes lies in the arena that an instance was created in: there is no other state, and
 * after model_create nothing is allocated, but for the stacks of threads by model_set_threads. Any
 * number of instances, of this and of other networks, may run at once in any threads. One instance
 * runs one call at a time: a second one meanwhile returns MODEL_BUSY and does nothing. The
 * caller's thread needs 256 KiB of stack. Use an instance in one process: its threads do not live
 * on in the child of a fork().
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
    MODEL_BAD_ARGUMENT = 1, /* a pointer is NULL, a number is out of range, or the instance is not
                               one of this network */
    MODEL_BAD_SIZE = 2,     /* the image has no pixels, or, where the network does not resize, not
                               the size it takes */
    MODEL_NOT_FINITE = 3,   /* the input or an output holds NaN or infinity */
    MODEL_NO_IMAGE = 4,     /* this network does not take an image */
    MODEL_NO_THREADS = 5,   /* the system gives no more threads; one is used */
    MODEL_BUSY = 6,         /* another call with this instance is at work */
    MODEL_FAILED = 7,       /* a kernel failed; this does not happen */
    MODEL_TOO_LARGE = 8,    /* the image is larger than MODEL_MAX_SIDE or MODEL_MAX_PIXELS */
    MODEL_TOO_COSTLY = 9    /* its resize would go through more than MODEL_MAX_ROWS_BYTES */
};

/* What is to be applied to a raw output: see model_activate. */
enum { MODEL_NONE = 0, MODEL_SOFTMAX = 1, MODEL_SIGMOID = 2 };

/* What an output's numbers stand for: classes of which one holds, decisions of which each holds or
 * not, or quantities. */
enum { MODEL_CLASSES = 0, MODEL_DECISIONS = 1, MODEL_REGRESSION = 2 };

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
    int kind;                  /* MODEL_CLASSES, MODEL_DECISIONS or MODEL_REGRESSION */
} model_output;

/* The outputs, in the order in which they stand in the output of model_run. */
extern const model_output model_outputs[MODEL_OUTPUT_COUNT];

/* A network that can run, in an arena. */
typedef struct model_instance model_instance;

/* Make an instance in memory of the caller's, of MODEL_ARENA_SIZE bytes or more and anywhere
 * aligned, which is the instance's until model_destroy. Returns NULL where it is less, or NULL.
 * Several instances, each in an arena of its own, share the weights.
 *
 * The library has this function also under the name that the next line gives it, which two
 * networks never share: so a program in which two libraries take the same names does not link.
 */
/* create */
model_instance *model_create(void *arena, size_t size);

/* End an instance and its threads; the arena is the caller's again. NULL is nothing to end. */
void model_destroy(model_instance *instance);

/* Run the network.
 *
 * input: MODEL_INPUT_SIZE elements, channel by channel, row by row, as model_preprocess writes
 * them. output: MODEL_OUTPUT_SIZE floats, the raw outputs one after another; untouched on failure
 * except by MODEL_NOT_FINITE. Aligned as their elements are, no more. They must not overlap.
 */
int model_run(model_instance *instance, const model_input *input, float *output);

/* levels */
/* Make the input of an image, to the bit as the network was trained and tested with.
 *
 * rgb: red, green and blue of each pixel, one byte each, row by row without gaps:
 * width * height * 3 bytes. input: MODEL_INPUT_SIZE elements.
 */
int model_preprocess(model_instance *instance, const uint8_t *rgb, int width, int height,
                     model_input *input);

/* Apply each output's activation in place, to the MODEL_OUTPUT_SIZE floats of model_run.
 *
 * Softmax is over the channels of each pixel (the elements of a vector). Outputs are divided by the
 * temperature first that `tcc eval --fit` writes into this library.
 */
int model_activate(float *output);

/* Decide what the raw outputs of model_run are taken for.
 *
 * taken: MODEL_OUTPUT_SIZE elements. 1 for what an output is taken for, and else 0: of classes the
 * one whose threshold `tcc eval --fit` writes into this library where its log-odds reach it, else
 * the largest output, of equal ones the first; of decisions each one whose threshold is reached,
 * without one from probability 0.5 on; nothing of quantities and maps. It is the decision of
 * `tcc run`, bit for bit: probabilities do not tell, since different outputs round to equal ones.
 */
int model_decide(const float *output, unsigned char *taken);

/* Return 1 where `tcc eval --fit` wrote thresholds for an output, by its number, and else 0. */
int model_has_thresholds(int output);

/* From an image to activated outputs: model_preprocess, model_run and model_activate in turn.
 *
 * probabilities: MODEL_OUTPUT_SIZE floats; they are probabilities where the output has
 * an activation. The class of the largest one is not the decision where a threshold was fitted:
 * model_predict decides.
 */
int model_classify(model_instance *instance, const uint8_t *rgb, int width, int height,
                   float *probabilities);

/* The same, and what the image is taken for, as in model_decide. */
int model_predict(model_instance *instance, const uint8_t *rgb, int width, int height,
                  float *probabilities, unsigned char *taken);

/* Set how many threads share an instance's work, 1 to MODEL_MAX_THREADS, for all later calls.
 *
 * At first there is one: the caller's. Others are this instance's alone; they wait, without using
 * the processor, until there is work or this function is called again. Results do not depend on it.
 */
int model_set_threads(model_instance *instance, int threads);

/* Return how many threads share an instance's work; 0 where there is no instance. */
int model_threads(const model_instance *instance);

/* One layer: what is computed at once, after fusion. */
typedef struct {
    const char *name;   /* of the value that it computes, as in the graph */
    const char *kernel; /* the kind of kernel */
    const char *type;   /* of the elements: float32, int8, uint8, int32 */
    size_t size;        /* bytes of its result */
} model_layer;

/* The layers in the order in which they run, and one without a name behind the last. */
extern const model_layer model_layers[MODEL_LAYER_COUNT + 1];

/* Have a function called in every run: with layer -1 before the first layer, and after each layer
 * with its number and result. NULL is none. It must not call the instance. */
typedef void model_watcher(void *user, int layer, const void *result);
int model_watch(model_instance *instance, model_watcher *watcher, void *user);

#ifdef MODEL_COUNTS
/* How many of a layer's 8-bit integers were saturated, 255 or -128 and 127, of how many. A larger
 * share than in report/saturation.json means that more values clip than on the calibration's images.
 * A small share does not mean that images are like those, or that answers are right. */
typedef struct {
    uint64_t at_end, count; /* both 0 for a layer of other numbers */
} model_saturation;

/* Find out what was counted of a layer in all runs since model_create or model_reset_saturation. */
int model_layer_saturation(model_instance *instance, int layer, model_saturation *found);

/* Begin to count anew. */
int model_reset_saturation(model_instance *instance);

#endif
#ifdef MODEL_ISAS
/* Choose the instructions of all instances, by one of the names in MODEL_ISAS; NULL is the best that
 * this processor has, which is chosen already when the library is loaded. MODEL_BAD_ARGUMENT where
 * the processor or this library does not have it. 8-bit integers do not depend on it.
 */
int model_set_isa(const char *name);

/* Return the name of what is chosen. */
const char *model_isa(void);

#endif
/* Return what a status means, in a few words. */
const char *model_message(int status);

/* Return the version of tcc that made this, and the target, as text. */
const char *model_version(void);

#ifdef __cplusplus
}
#endif
#endif
