/* Decisions from raw outputs, with the temperature and thresholds that `tcc eval --fit` writes into
 * `fitted`. model.c defines `fitted` before it includes this file.
 *
 * Decisions are the same in C, Python and JavaScript, bit for bit:
 * compiler/reference/decision_odds.py has the same float64 operations in the same order. The C
 * library's exp and log are not used, because implementations differ in the last bit.
 */
#ifndef MODEL_DECISION_H
#define MODEL_DECISION_H

#include <math.h>
#include <stddef.h>

/* The fitted values of an output. Without fitted values, temperature is 1 and there are no
   thresholds. */
typedef struct {
    double temperature; /* divisor of raw values */
    long positive;      /* the class with the threshold; -1: one threshold per class, or none */
    size_t count;       /* number of thresholds */
    const volatile double *thresholds; /* log-odds that a class must reach */
} operating_point;

/* Return the fitted values of an output. Its record: checksum of its name, capacity for thresholds,
 * temperature, positive class, number of thresholds, thresholds. */
static operating_point fitted_point(int output)
{
    const volatile double *record = fitted.values + 1;
    for (int i = 0; i < output; i++)
        record += 5 + (size_t)record[1];
    operating_point point = {1.0, -1, 0, record + 5};
    if (record[2] > 0.0) {
        point.temperature = record[2];
        point.positive = (long)record[3];
        point.count = (size_t)record[4];
    }
    return point;
}

/* Return e to the power of a number of at most 0; 0 below -700. */
static double portable_exp(double x)
{
    static const double terms[] = {1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0,
                                   1.0 / 3628800.0, 1.0 / 362880.0, 1.0 / 40320.0, 1.0 / 5040.0,
                                   1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0};
    if (x < -700.0)
        return 0.0;
    double halvings = floor(0.5 - x * 1.4426950408889634);
    double remainder = x + halvings * 0.6931471803691238 + halvings * 1.9082149292705877e-10;
    double power = terms[0];
    for (int i = 1; i < 14; i++)
        power = power * remainder + terms[i];
    return ldexp(power, -(int)halvings);
}

/* Return the natural logarithm of a number of at least 1. */
static double portable_log(double x)
{
    double doublings = 0.0, sum = 0.0;
    while (x >= 1.5) {
        x *= 0.5;
        doublings += 1.0;
    }
    double ratio = (x - 1.0) / (x + 1.0), square = ratio * ratio;
    for (int i = 12; i >= 0; i--)
        sum = sum * square + 1.0 / (2 * i + 1);
    return doublings * 0.6931471805599453 + 2.0 * ratio * sum;
}

/* Return the log-odds of one element of an output. */
static double log_odds(const model_output *about, const float *raw, size_t index,
                       double temperature)
{
    double class_logit = (double)raw[index] / temperature, top = -INFINITY, total = 0.0;
    if (about->activation != MODEL_SOFTMAX || about->size < 2)
        return class_logit;
    for (size_t i = 0; i < about->size; i++)
        if (i != index && (double)raw[i] / temperature > top)
            top = (double)raw[i] / temperature;
    for (size_t i = 0; i < about->size; i++)
        if (i != index)
            total += portable_exp((double)raw[i] / temperature - top);
    return class_logit - top - portable_log(total);
}

/* Decide on one class: the class with a threshold if it reaches the threshold, else the class with
 * the largest value among the others. Of equal values, the first one counts. */
static void decide_class(const model_output *about, const float *raw, const operating_point *point,
                         unsigned char *decisions)
{
    long positive = point->count ? point->positive : -1;
    size_t best = positive == 0 && about->size > 1;
    for (size_t i = 0; i < about->size; i++)
        if ((long)i != positive && raw[i] > raw[best])
            best = i;
    if (positive >= 0 && log_odds(about, raw, (size_t)positive, point->temperature) >=
                             point->thresholds[0])
        best = (size_t)positive;
    decisions[best] = 1;
}

/* Decide on each class separately: 1 if it reaches its threshold or, without thresholds,
   probability 0.5. */
static void decide_each(const model_output *about, const float *raw, const operating_point *point,
                        unsigned char *decisions)
{
    for (size_t i = 0; i < about->size; i++)
        decisions[i] = (double)raw[i] / point->temperature >=
                       (point->count ? point->thresholds[i] : 0.0);
}

/* Write the decision on each element of an output. */
static void decide_output(int output, const float *raw, unsigned char *decisions)
{
    const model_output *about = &model_outputs[output];
    const operating_point point = fitted_point(output);
    for (size_t i = 0; i < about->size; i++)
        decisions[i] = 0;
    if (about->rank != 1)
        return;
    if (about->kind == MODEL_CLASSES)
        decide_class(about, raw, &point, decisions);
    else if (about->kind == MODEL_DECISIONS)
        decide_each(about, raw, &point, decisions);
}

#endif
