// Decisions from raw outputs, bit-exact with C and Python. The float64 operations and their order
// are the same as in compiler/reference/decision_odds.py. Math.exp and Math.log are not used: their
// last bit differs between browsers.

const MIN_ARGUMENT = -700;
const LOG2_E = 1.4426950408889634;
const LN2 = 0.6931471805599453;
const LN2_HIGH = 0.6931471803691238;
const LN2_LOW = 1.9082149292705877e-10;
const FACTORIALS = Array.from({ length: 14 }, (_, n) => {
  let product = 1;
  for (let i = 2; i <= n; i += 1) product *= i;
  return product;
});

/** Return the indices of the decided classes of an output; thresholds apply if it has any. */
export function decided(output, raw, point) {
  const { temperature = 1, thresholds = [], positive } = point ?? {};
  if (output.kind === 'regression') return [];
  if (output.kind === 'decisions') {
    const decisions = Array.from(raw, (value, i) => value / temperature >= (thresholds[i] ?? 0));
    return decisions.flatMap((isDecided, index) => (isDecided ? [index] : []));
  }
  const hasThresholds = thresholds.length > 0;
  const candidates = Array.from(raw, (value, i) =>
    hasThresholds && i === positive ? -Infinity : value,
  );
  const isPositive =
    hasThresholds && classOdds(output.activation, raw, temperature, positive) >= thresholds[0];
  return [isPositive ? positive : candidates.indexOf(Math.max(...candidates))];
}

/** Return the log-odds of a class. */
export function classOdds(activation, raw, temperature, index) {
  const values = Array.from(raw, (value) => value / temperature);
  if (activation !== 'softmax' || values.length < 2) return values[index];
  const otherLogits = values.filter((_, i) => i !== index);
  const top = Math.max(...otherLogits);
  let total = 0;
  for (const logit of otherLogits) total += portableExp(logit - top);
  return values[index] - top - portableLog(total);
}

/** Return exp of a non-positive number; 0 below -700. */
function portableExp(x) {
  if (x < MIN_ARGUMENT) return 0;
  const halvings = Math.floor(0.5 - x * LOG2_E);
  const remainder = x + halvings * LN2_HIGH + halvings * LN2_LOW;
  let power = 1 / FACTORIALS[13];
  for (let n = 12; n >= 0; n -= 1) power = power * remainder + 1 / FACTORIALS[n];
  // Products of powers of two are exact; `Math.pow` may round.
  let scale = 1;
  let half = 0.5;
  for (let remaining = halvings; remaining > 0; remaining = Math.floor(remaining / 2)) {
    if (remaining % 2) scale *= half;
    half *= half;
  }
  return power * scale;
}

/** Return the natural logarithm of a number of at least 1. */
function portableLog(x) {
  let scaled = x;
  let doublings = 0;
  for (; scaled >= 1.5; doublings += 1) scaled *= 0.5;
  const ratio = (scaled - 1) / (scaled + 1);
  const square = ratio * ratio;
  let total = 0;
  for (let n = 12; n >= 0; n -= 1) total = total * square + 1 / (2 * n + 1);
  return doublings * LN2 + 2 * ratio * total;
}
