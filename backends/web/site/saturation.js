// Counts saturated integers of a network and compares them with the calibration images. A deviation
// means that more values clip; no deviation proves nothing. `tcc eval --saturation` uses the same
// rule (compiler/driver/saturation.py, compiler/reference/exceedance.py).

const MIN_SHARE = 1e-4;
const RATE = 0.01;
const PRIOR_ABOVE = 4;

/** Return the share of values at the maximum of their type or, if signed, at its minimum. */
export function computeShare({ type, data }, signed) {
  const [low, high] = type === 'int8' ? [-128, 127] : [0, 255];
  let saturated = 0;
  for (let i = 0; i < data.length; i += 1) {
    if (data[i] === high || (signed && data[i] === low)) saturated += 1;
  }
  return saturated / Math.max(data.length, 1);
}

/** Return the likelihood ratio for `above` of `images` exceeding all `reference` images. */
export function evidence(above, images, reference) {
  let ratio = (PRIOR_ABOVE / reference) * (above + 1) * (above + 2) * (above + 3);
  for (let i = 1; i <= Math.max(reference, PRIOR_ABOVE); i += 1) {
    if (i > PRIOR_ABOVE) ratio *= images + i;
    else if (i > reference) ratio /= images + i;
    if (i < reference) ratio /= images - above + i;
  }
  return ratio;
}

/** Counts over images, compared with report/saturation.json; older files have no image count. */
export class Saturation {
  constructor({ images: reference = 0, layers }) {
    this.reference = reference;
    this.images = 0;
    this.layers = new Map(
      layers.map(({ name, signed, largest }) => [name, { signed, largest, above: 0, images: 0 }]),
    );
  }

  /** Discard the counts of all images. */
  reset() {
    this.images = 0;
    for (const layer of this.layers.values()) Object.assign(layer, { above: 0, images: 0 });
  }

  /** Add the outputs of an image; return this. */
  add(outputs) {
    this.images += 1;
    for (const output of outputs) {
      const layer = this.layers.get(output.name);
      if (layer?.largest === undefined) continue;
      layer.images += 1;
      if (computeShare(output, layer.signed) > Math.max(layer.largest, MIN_SHARE)) layer.above += 1;
    }
    return this;
  }

  /** Return the numbers of compared layers, deviating layers, and images. */
  counts() {
    const { images, reference } = this;
    const compared = this.listCompared().length;
    return { images, reference, compared, deviating: this.deviating().length };
  }

  listCompared() {
    return this.reference ? [...this.layers].filter(([, { images }]) => images) : [];
  }

  /** Return the names of layers in which more values clip than chance explains. */
  deviating() {
    const layers = this.listCompared();
    const minEvidence = layers.length / RATE;
    return layers
      .filter(([, { above, images }]) => evidence(above, images, this.reference) >= minEvidence)
      .map(([name]) => name);
  }
}
