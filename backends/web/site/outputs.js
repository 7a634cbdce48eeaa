// Results from raw outputs, as in `tcc run`: probabilities, ranking and decisions.

import { decided } from './decision.js';
import { hasAnswer, predictionSet } from './prediction_sets.js';

/** Apply `softmax` or `sigmoid` to raw outputs; `none` returns the values. */
export function applyActivation(activation, raw, temperature = 1) {
  const values = Array.from(raw, (value) => value / temperature);
  switch (activation) {
    case 'softmax': {
      const largest = Math.max(...values);
      const exponentials = values.map((value) => Math.exp(value - largest));
      const sum = exponentials.reduce((a, b) => a + b, 0);
      return exponentials.map((exponential) => exponential / sum);
    }
    case 'sigmoid':
      return values.map(computeSigmoid);
    case 'none':
      return values;
    default:
      throw new Error(`unknown activation '${activation}'`);
  }
}

function computeSigmoid(logit) {
  const exponential = Math.exp(-Math.abs(logit)); // at most 1, so nothing overflows
  return (logit >= 0 ? 1 : exponential) / (1 + exponential);
}

/** Return the result of an output, {ranked, decision, set, answered}; `point` is its operating
 * point. */
export function reading(output, raw, point) {
  const values = applyActivation(output.activation, raw, point?.temperature);
  const labels = output.labels.length ? output.labels : values.map((_, i) => String(i));
  const ranked = values
    .map((value, index) => ({ index, label: labels[index], value, raw: raw[index] }))
    .sort((a, b) => b.raw - a.raw || a.index - b.index);
  // Without thresholds the ranking is the decision.
  const hasThresholds = point?.thresholds?.length > 0;
  const decision = hasThresholds
    ? decided(output, raw, point).map((index) => labels[index])
    : undefined;
  const set = predictionSet(raw, point?.sets)?.map((index) => labels[index]);
  return { ranked, decision, set, answered: hasAnswer(raw, point?.abstention) };
}
