// Results from raw outputs, as in `tcc run`: probabilities, ranking, decisions by thresholds.

import { decided } from './decision.js';

/** Return probabilities from raw outputs by `softmax` or `sigmoid`; `none` keeps the values. */
export function applied(activation, raw, temperature = 1) {
  const values = Array.from(raw, (value) => value / temperature);
  switch (activation) {
    case 'softmax': {
      const most = Math.max(...values);
      const powers = values.map((value) => Math.exp(value - most));
      const sum = powers.reduce((a, b) => a + b, 0);
      return powers.map((power) => power / sum);
    }
    case 'sigmoid':
      return values.map(probability);
    case 'none':
      return values;
    default:
      throw new Error(`unknown activation '${activation}'`);
  }
}

function probability(odds) {
  const small = Math.exp(-Math.abs(odds)); // at most 1, so nothing overflows
  return (odds >= 0 ? 1 : small) / (1 + small);
}

/** Return the result of an output, {ranked, decision}; `point` is its operating point. */
export function reading(output, raw, point) {
  const values = applied(output.activation, raw, point?.temperature);
  const labels = output.labels.length ? output.labels : values.map((_, i) => String(i));
  const ranked = values
    .map((value, index) => ({ index, label: labels[index], value, raw: raw[index] }))
    .sort((a, b) => b.raw - a.raw || a.index - b.index);
  // Without thresholds the ranking is the decision.
  const fitted = point?.thresholds?.length > 0;
  const decision = fitted ? decided(output, raw, point).map((index) => labels[index]) : undefined;
  return { ranked, decision };
}
