// How often the integers of a network are the last of their levels, beside what is usual on the
// images of its calibration: more says that they no longer stand for the images at hand. The rule is
// that of `tcc eval --saturation` (compiler/driver/saturation.py).

const TIMES = 4;
const LEAST = 1e-4;
const FEWEST = 4;

/** The share of values that are the last of their levels, as they are stored. */
export function share({ type, data }, signed) {
  const [low, high] = type === 'int8' ? [-128, 127] : [0, 255];
  let found = 0;
  for (let i = 0; i < data.length; i += 1) {
    if (data[i] === high || (signed && data[i] === low)) found += 1;
  }
  return found / Math.max(data.length, 1);
}

/** Counts over images; it is given report/saturation.json. */
export class Saturation {
  constructor({ layers }) {
    this.layers = new Map(
      layers.map(({ name, signed, usual }) => [name, { signed, usual, shares: [] }]),
    );
  }

  /** Leave out all images that were taken in. */
  forget() {
    for (const layer of this.layers.values()) layer.shares = [];
  }

  /** Take in the outputs of an image; return of how many layers. */
  add(outputs) {
    const known = outputs.filter(({ name }) => this.layers.has(name));
    for (const output of known) {
      const { shares, signed } = this.layers.get(output.name);
      shares.push(share(output, signed));
    }
    return known.length;
  }

  /** The names of layers that saturate unusually often, by two standard errors, over all images. */
  unusual() {
    return [...this.layers].filter(([, layer]) => isUnusual(layer)).map(([name]) => name);
  }
}

function isUnusual({ shares, usual }) {
  const { length } = shares;
  if (length < FEWEST) return false; // single odd images say nothing of the others
  const mean = shares.reduce((a, b) => a + b, 0) / length;
  const squares = shares.reduce((sum, one) => sum + (one - mean) ** 2, 0);
  const error = Math.sqrt(squares / (length - 1) / length);
  return mean - 2 * error > Math.max(TIMES * usual, LEAST);
}
