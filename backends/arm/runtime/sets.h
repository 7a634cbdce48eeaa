/* Prediction sets and abstention, from the raw outputs of model_run.
 *
 * `tcc eval --fit` with --sets or --abstain writes this file. It contains the fitted numbers, so
 * compile your program again after a new fit. manifest.json has what is promised, and the images
 * that it rests on. The results equal those of `tcc run`, bit for bit:
 * compiler/reference/prediction_sets.py has the same float32 operations.
 */
#ifndef MODEL_SETS_H
#define MODEL_SETS_H

#include <string.h>

#include "model.h"

/* numbers */

/* Return whether an output has a name. */
static inline int model_set_is_for(int output, const char *name)
{
    return output >= 0 && output < MODEL_OUTPUT_COUNT && !strcmp(model_outputs[output].name, name);
}

/* Write the prediction set of an output: 1 for each class in it, else 0.
 *
 * output: the number of the output, from 0. raw: the MODEL_OUTPUT_SIZE floats of model_run.
 * members: one element for each class of this output. Returns MODEL_BAD_ARGUMENT if a pointer is
 * NULL, or if no sets are fitted for this output.
 */
static inline int model_prediction_set(int output, const float *raw, unsigned char *members)
{
    if (!raw || !members ||
        !model_set_is_for(output, MODEL_SETS_OUTPUT))
        return MODEL_BAD_ARGUMENT;
    const model_output *about = &model_outputs[output];
    const float *values = raw + about->offset;
    float top = values[0];
    for (size_t i = 1; i < about->size; i++)
        if (values[i] > top)
            top = values[i];
    for (size_t i = 0; i < about->size; i++) {
        /* volatile: rounded to float32 also where processors compute in more digits. A class with
           a negative gap is in every set. */
        volatile float gap = top - values[i];
        float limit = model_set_gaps[MODEL_SET_GAPS > 1 ? i : 0];
        members[i] = limit < 0.0f || gap <= limit;
    }
    return MODEL_OK;
}

/* Return 1 if an output has an answer, the class with its largest value; 0 if its two largest
 * values are too close; -1 if a pointer is NULL, or if no abstention is fitted for this output. The
 * arguments are those of model_prediction_set. */
static inline int model_has_answer(int output, const float *raw)
{
    if (!raw || !model_set_is_for(output, MODEL_ANSWER_OUTPUT))
        return -1;
    const model_output *about = &model_outputs[output];
    const float *values = raw + about->offset;
    size_t top = 0;
    for (size_t i = 1; i < about->size; i++)
        if (values[i] > values[top])
            top = i;
    size_t second = top == 0;
    for (size_t i = 0; i < about->size; i++)
        if (i != top && values[i] > values[second])
            second = i;
    volatile float margin = values[top] - values[second];
    return margin > MODEL_ANSWER_MARGIN;
}

#endif
