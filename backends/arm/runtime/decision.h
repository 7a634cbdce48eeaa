/* How raw outputs are read at a temperature and thresholds that `tcc eval --fit` found: the rule
 * of model-run, for programs that call the library, whose model_activate and model_classify know
 * of nothing fitted. The values stand in model-operating-point.txt and in manifest.json.
 */
#ifndef MODEL_DECISION_H
#define MODEL_DECISION_H

#include <math.h>
#include <stddef.h>

#include "model.h"

/* What was fitted of an output; where nothing was, the temperature is 0. */
typedef struct {
    double temperature; /* raw values are divided by it */
    long positive;      /* the class that the threshold is for; -1: each has its own, or none */
    size_t count;       /* thresholds */
    double *thresholds; /* log-odds: what reaches one is yes */
} model_operating_point;

/* Return the log-odds of an element of a row. */
static inline double model_log_odds(const model_output *about, const float *raw, size_t index,
                                    double temperature)
{
    double own = (double)raw[index] / temperature, top = -INFINITY, total = 0.0;
    if (about->activation != MODEL_SOFTMAX)
        return own;
    for (size_t i = 0; i < about->size; i++)
        if (i != index && (double)raw[i] / temperature > top)
            top = (double)raw[i] / temperature;
    for (size_t i = 0; i < about->size; i++)
        if (i != index)
            total += exp((double)raw[i] / temperature - top);
    return own - top - log(total);
}

/* Give the probabilities of a row of raw values. */
static inline void model_activate_at(const model_output *about, const float *raw, float *values,
                                     double temperature)
{
    double top = -INFINITY, total = 0.0;
    for (size_t i = 0; i < about->size; i++)
        top = (double)raw[i] / temperature > top ? (double)raw[i] / temperature : top;
    for (size_t i = 0; i < about->size; i++)
        total += exp((double)raw[i] / temperature - top);
    for (size_t i = 0; i < about->size; i++) {
        double own = (double)raw[i] / temperature;
        if (about->activation == MODEL_SOFTMAX)
            values[i] = (float)(exp(own - top) / total);
        else
            values[i] = (float)(about->activation == MODEL_SIGMOID ? 1.0 / (1.0 + exp(-own)) : own);
    }
}

/* Return the class that a row is taken for: the positive one where its log-odds reach the
 * threshold, and else the largest of the others, of equal ones the first. */
static inline size_t model_class_taken(const model_output *about, const float *raw,
                                       const model_operating_point *point)
{
    size_t positive = (size_t)point->positive, best = positive == 0;
    if (model_log_odds(about, raw, positive, point->temperature) >= point->thresholds[0])
        return positive;
    for (size_t i = 0; i < about->size; i++)
        if (i != positive && raw[i] > raw[best])
            best = i;
    return best;
}

/* Return whether an element that decides by itself says yes. */
static inline int model_says_yes(const float *raw, const model_operating_point *point, size_t index)
{
    return (double)raw[index] / point->temperature >= point->thresholds[index];
}

#endif
