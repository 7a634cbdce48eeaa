/* How raw outputs are read: at the temperature and by the thresholds that `tcc eval --fit` writes
 * into `fitted`, which model.c defines before it includes this.
 *
 * Decisions are the same in C, Python and JavaScript, bit for bit: compiler/reference/decision_odds.py
 * has the same operations on float64 in the same order. The C library's exp and log are not used for
 * them, since implementations differ in the last bit.
 */
#ifndef MODEL_DECISION_H
#define MODEL_DECISION_H

#include <math.h>
#include <stddef.h>

/* What was fitted of an output; where nothing was, the temperature is 1 and there is no threshold. */
typedef struct {
    double temperature; /* raw values are divided by it */
    long positive;      /* the class that the threshold is for; -1: each has its own, or none */
    size_t count;       /* thresholds */
    const volatile double *thresholds; /* log-odds: what reaches one is yes */
} operating_point;

/* Return what was fitted of an output: its record is room, temperature, positive, count, thresholds,
 * behind the checksum of its name. */
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

/* Return e to the power of a number that is not positive; 0 below -700. */
static double portable_exp(double x)
{
    static const double terms[] = {1.0 / 6227020800.0, 1.0 / 479001600.0, 1.0 / 39916800.0,
                                   1.0 / 3628800.0, 1.0 / 362880.0, 1.0 / 40320.0, 1.0 / 5040.0,
                                   1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0};
    if (x < -700.0)
        return 0.0;
    double halvings = floor(0.5 - x * 1.4426950408889634);
    double rest = x + halvings * 0.6931471803691238 + halvings * 1.9082149292705877e-10;
    double power = terms[0];
    for (int i = 1; i < 14; i++)
        power = power * rest + terms[i];
    return ldexp(power, -(int)halvings);
}

/* Return the natural logarithm of a number that is 1 or more. */
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

/* Return the log-odds of an element of a row. */
static double log_odds(const model_output *about, const float *raw, size_t index,
                       double temperature)
{
    double own = (double)raw[index] / temperature, top = -INFINITY, total = 0.0;
    if (about->activation != MODEL_SOFTMAX || about->size < 2)
        return own;
    for (size_t i = 0; i < about->size; i++)
        if (i != index && (double)raw[i] / temperature > top)
            top = (double)raw[i] / temperature;
    for (size_t i = 0; i < about->size; i++)
        if (i != index)
            total += portable_exp((double)raw[i] / temperature - top);
    return own - top - portable_log(total);
}

/* Say of each class of a row whether it is taken: by a threshold, and else the largest, of equal ones
 * the first. */
static void decide_class(const model_output *about, const float *raw, const operating_point *point,
                         unsigned char *taken)
{
    long positive = point->count ? point->positive : -1;
    size_t best = positive == 0 && about->size > 1;
    for (size_t i = 0; i < about->size; i++)
        if ((long)i != positive && raw[i] > raw[best])
            best = i;
    if (positive >= 0 && log_odds(about, raw, (size_t)positive, point->temperature) >=
                             point->thresholds[0])
        best = (size_t)positive;
    taken[best] = 1;
}

/* Say of each decision whether it is yes: by its threshold, and else from probability 0.5 on. */
static void decide_each(const model_output *about, const float *raw, const operating_point *point,
                        unsigned char *taken)
{
    for (size_t i = 0; i < about->size; i++)
        taken[i] = (double)raw[i] / point->temperature >=
                   (point->count ? point->thresholds[i] : 0.0);
}

/* Say what each element of an output is taken for. */
static void decide_output(int output, const float *raw, unsigned char *taken)
{
    const model_output *about = &model_outputs[output];
    const operating_point point = fitted_point(output);
    for (size_t i = 0; i < about->size; i++)
        taken[i] = 0;
    if (about->rank != 1)
        return;
    if (about->kind == MODEL_CLASSES)
        decide_class(about, raw, &point, taken);
    else if (about->kind == MODEL_DECISIONS)
        decide_each(about, raw, &point, taken);
}

#endif
