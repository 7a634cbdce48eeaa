// What raw outputs say, as `tcc run` has it: probabilities, an order, decisions by thresholds.

/** Probabilities of raw outputs: `softmax`, `sigmoid`, or with `none` the values themselves. */
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
      throw new Error(`this page does not know the activation '${activation}'`);
  }
}

function probability(odds) {
  const small = Math.exp(-Math.abs(odds)); // at most 1, so that nothing overflows
  return (odds >= 0 ? 1 : small) / (1 + small);
}

/** What an output of the manifest says: {ranked, decision}; `point` is its operating point. */
export function reading(output, raw, point) {
  const values = applied(output.activation, raw, point?.temperature);
  const labels = output.labels.length ? output.labels : values.map((_, i) => String(i));
  const ranked = values
    .map((value, index) => ({ index, label: labels[index], value, raw: raw[index] }))
    .sort((a, b) => b.raw - a.raw || a.index - b.index);
  const decision = decided(output, raw, point)?.map((index) => labels[index]);
  return { ranked, decision };
}

/** The classes that an output is taken for by fitted thresholds; undefined where there are none. */
function decided(output, raw, point) {
  if (!point?.thresholds?.length) return undefined;
  const { temperature, thresholds, positive } = point;
  if (output.kind === 'decisions') {
    const yes = Array.from(raw, (value, i) => value / temperature >= thresholds[i]);
    return yes.flatMap((is, index) => (is ? [index] : []));
  }
  const values = Array.from(raw, (value) => value / temperature);
  const others = values.map((value, i) => (i === positive ? -Infinity : value));
  const taken = logOdds(output.activation, values, others, positive) >= thresholds[0];
  return [taken ? positive : others.indexOf(Math.max(...others))];
}

function logOdds(activation, values, others, index) {
  if (activation !== 'softmax') return values[index];
  const most = Math.max(...others);
  const sum = others.reduce((total, value) => total + Math.exp(value - most), 0);
  return values[index] - most - Math.log(sum);
}
