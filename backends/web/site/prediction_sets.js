// Prediction sets and abstention, bit-exact with C and Python: the float32 operations are the same
// as in compiler/reference/prediction_sets.py.

/** Return the indices of the classes in the prediction set; undefined without fitted sets. */
export function predictionSet(raw, sets) {
  if (!sets) return undefined;
  const values = Array.from(raw);
  const top = Math.max(...values);
  return values.flatMap((value, index) => {
    const gap = sets.gaps[sets.by_class ? index : 0];
    // A class without a gap is in every set.
    return gap === null || Math.fround(top - value) <= gap ? [index] : [];
  });
}

/** Return whether an image has an answer; undefined without a fitted abstention. */
export function hasAnswer(raw, abstention) {
  if (!abstention) return undefined;
  const [top, second] = Array.from(raw).sort((a, b) => b - a);
  return Math.fround(top - second) > abstention.margin;
}
