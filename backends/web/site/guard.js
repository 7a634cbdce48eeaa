// The guard: does an image belong to those that the network was calibrated on?
//
// All numbers are integers below 2^53 and the same in JavaScript, C and Python:
// compiler/guard/__init__.py has the definition.

const RATE = 100000;
const EVIDENCE_LIMIT = 2 ** 40;
const FEATURES = [
  'sharpness', 'fine texture', 'coarse texture', 'blocks of 8 pixels', 'flat areas', 'detail',
  'contrast of the first channel', 'contrast of the second channel',
  'contrast of the third channel', 'brightness of the first channel',
  'brightness of the second channel', 'brightness of the third channel',
  'variety of colours, first and second channel', 'variety of colours, second and third channel',
  'variety of colours, first and third channel', 'saturation, first and second channel',
  'saturation, second and third channel', 'colour balance, first and second channel',
  'colour balance, second and third channel',
]; // prettier-ignore

const divide = (a, b) => Math.floor(a / b);
const shift = (number, bits) => Math.floor(number / 2 ** bits);
const clip = (value, limit) => Math.max(-limit, Math.min(value, limit));
const positive = (value) => (value > 0 ? value : 0);

/** Return 256 log2 of a number, rounded down in each of 8 squarings. */
function log2(number) {
  const x = Math.max(number, 1);
  let exponent = Math.floor(Math.log2(x));
  // Implementations of Math.log2 differ in the last bit.
  if (2 ** exponent > x) exponent -= 1;
  if (2 ** (exponent + 1) <= x) exponent += 1;
  let mantissa = Math.floor(x * 2 ** (24 - exponent));
  let fraction = 0;
  for (let i = 0; i < 8; i += 1) {
    mantissa = shift(mantissa * mantissa, 24);
    const bit = mantissa >= 2 ** 25 ? 1 : 0;
    fraction = 2 * fraction + bit;
    if (bit) mantissa = shift(mantissa, 1);
  }
  return exponent * 256 + fraction;
}

/** Return the 17 sums of pixels (channels, height, width); one channel counts as three. */
export function sumPixels(pixels, [channels, height, width], step) {
  const plane = channels === 3 ? height * width : 0;
  const sums = new Array(17).fill(0);
  const luminance = new Int32Array(height * width);
  for (let i = 0; i < luminance.length; i += 1) {
    luminance[i] = pixels[i] + 2 * pixels[i + plane] + pixels[i + 2 * plane];
  }
  for (let y = 0; y < height; y += 2 * step) {
    for (let i = y * width; i < (y + 1) * width; i += 1) {
      const [r, g, b] = [pixels[i], pixels[i + plane], pixels[i + 2 * plane]];
      const terms = [r, g, b, r * r, g * g, b * b, r * g, g * b, r * b];
      for (let k = 0; k < 9; k += 1) sums[k] += terms[k];
      sums[15] += Math.abs(r - g);
      sums[16] += Math.abs(g - b);
    }
  }
  for (let y = 0; y < height; y += step) addTexture(luminance, width, y, sums);
  return sums;
}

/** Add the texture sums of a row. */
function addTexture(luminance, width, y, sums) {
  for (let x = 0; x < width; x += 1) {
    const i = y * width + x;
    const value = luminance[i];
    const compare = (other) => Math.abs(value - luminance[other]);
    if (x + 1 < width) addStep(compare(i + 1), x % 8 === 7, sums);
    if (y >= 1) addStep(compare(i - width), y % 8 === 0, sums);
    if (x + 4 < width) sums[11] += compare(i + 4);
    if (y >= 4) sums[11] += compare(i - 4 * width);
    if (x + 16 < width) sums[12] += compare(i + 16);
    if (y >= 16) sums[12] += compare(i - 16 * width);
    if (y >= 2 && x >= 1 && x + 1 < width) {
      const m = i - width;
      const neighbours = luminance[m - width] + value + luminance[m - 1] + luminance[m + 1];
      sums[10] += Math.abs(4 * luminance[m] - neighbours);
    }
  }
}

function addStep(step, isBorder, sums) {
  sums[9] += step;
  if (isBorder) sums[13] += step;
  if (step === 0) sums[14] += 1;
}

/** Return the 19 features of an image from its sums. */
function computeFeatures(s, [, height, width], step) {
  const n = width * Math.ceil(height / step);
  const c = width * Math.ceil(height / (2 * step));
  const mean = (sum) => divide(256 * sum, c);
  const variance = (squares, sum) =>
    log2(positive(divide(65536 * squares, c) - mean(sum) ** 2) + 4096);
  const detail = log2(16 * s[9] + n);
  return [
    ...[10, 11, 12, 13].map((i) => log2(16 * s[i] + n) - detail),
    log2(s[14] + Math.floor(n / 64) + 1),
    detail,
    ...[0, 1, 2].map((i) => variance(s[3 + i], s[i])),
    ...[0, 1, 2].map((i) => divide(mean(s[i]), 8)),
    variance(s[3] + s[4] - 2 * s[6], s[0] - s[1]),
    variance(s[4] + s[5] - 2 * s[7], s[1] - s[2]),
    variance(s[3] + s[5] - 2 * s[8], s[0] - s[2]),
    log2(s[15] + c),
    log2(s[16] + c),
    divide(mean(s[0] - s[1]), 4),
    divide(mean(s[1] - s[2]), 4),
  ];
}

function computeDeviations({ center, rows, shifts }, features) {
  let at = 0;
  return shifts.map((bits, k) => {
    let sum = 0;
    for (let j = 0; j <= k; j += 1, at += 1) {
      sum += rows[at] * clip(features[j] - center[j], 32767);
    }
    return clip(shift(sum, bits - 4), 2 ** 22);
  });
}

/** Return the sums of the counted channels of a layer's codes. */
function sumChannels({ shape, stride, zero_point: zeroPoint = 0 }, { type, data }) {
  const offset = (type === 'uint8' ? 0 : 128) - zeroPoint;
  const pixels = data.length / shape[0];
  const sums = [];
  for (let c = 0; c < shape[0]; c += stride) {
    let sum = offset * pixels;
    for (let i = c * pixels; i < (c + 1) * pixels; i += 1) sum += data[i];
    sums.push(sum);
  }
  return sums;
}

function computeLayerScore(layer, sums) {
  const z = sums.map((sum, c) =>
    clip(shift((sum - layer.center[c]) * layer.factors[c], layer.factor_shift), 2047),
  );
  const energies = [z.reduce((total, value) => total + value * value, 0)];
  for (let k = 0; k + 1 < layer.weights.length; k += 1) {
    let sum = 0;
    for (let c = 0; c < z.length; c += 1) sum += layer.directions[k * z.length + c] * z[c];
    const projection = clip(shift(sum, 8), 2 ** 22);
    energies.push(shift(projection * projection, 8));
  }
  const terms = energies.map((e, k) => shift(e * layer.weights[k], layer.weight_shifts[k]));
  return log2(16 + positive(terms.reduce((total, term) => total + term, 0)));
}

const findStep = (thresholds, steps, score) =>
  steps[thresholds.filter((threshold) => score > threshold).length];

const findLargest = (values) =>
  values.reduce((top, value, k) => (Math.abs(value) > Math.abs(values[top]) ? k : top), 0);

/** The guard of a bundle, with the state of one stream of images. */
export class Guard {
  /** Create it from the content of guard.json. */
  constructor(tables) {
    this.tables = tables;
    this.reset();
  }

  /** Begin a new stream. */
  reset() {
    this.evidences = [0, 0, 0];
    this.trends = new Array(FEATURES.length).fill(0);
    this.clearCase();
  }

  clearCase() {
    this.images = 0;
    this.steps = [0, 0, 0];
    this.deviations = new Array(FEATURES.length).fill(0);
  }

  /**
   * Judge an image and add it to the running case.
   *
   * `pixels` is the network's input (channels, height, width), before normalization; `tensors` are
   * the outputs of `Network.run` with inner values. Returns {picture, drift, layer, isUnusual,
   * feature, deviations, channelSums}.
   */
  add(pixels, tensors) {
    const { shape, row_step: step, picture, layer, drift } = this.tables;
    const features = computeFeatures(sumPixels(pixels, shape, step), shape, step);
    const deviations = computeDeviations(picture, features);
    const change = drift.changes[this.findChange()];
    const tap = layer && tensors.find(({ name }) => name === layer.tap);
    if (layer && !tap) throw new Error(`the network does not show \`${layer.tap}\``);
    const channelSums = layer ? sumChannels(layer, tap) : [];
    const reading = {
      picture: log2(deviations.reduce((total, value) => total + value * value, 16)),
      drift: this.computeDriftScore(change, deviations),
      layer: layer ? computeLayerScore(layer, channelSums) : 0,
      deviations,
      channelSums,
      feature: FEATURES[findLargest(deviations)],
    };
    this.addSteps(change, reading);
    this.deviations = this.deviations.map((total, k) => total + clip(deviations[k], 64));
    this.images += 1;
    return { ...reading, isUnusual: this.isUnusual(reading) };
  }

  addSteps(change, { picture, drift, layer }) {
    const { picture_table: pictures, layer_table: layers, drift: table } = this.tables;
    this.steps[0] += findStep(pictures.thresholds, pictures.steps, picture);
    this.steps[1] += findStep(change.thresholds, table.steps, drift);
    if (layers) this.steps[2] += findStep(layers.thresholds, layers.steps, layer);
  }

  isUnusual({ picture, layer }) {
    const { picture_table: pictures, layer_table: layers } = this.tables;
    return picture > pictures.unusual || (layers !== null && layer > layers.unusual);
  }

  /** Return the index of the known change that the trends are most like. */
  findChange() {
    const likeness = this.tables.drift.changes.map(({ direction }) =>
      direction.reduce((total, weight, k) => total + weight * this.trends[k], 0),
    );
    return likeness.indexOf(Math.max(...likeness));
  }

  computeDriftScore({ direction }, deviations) {
    const total = direction.reduce(
      (sum, weight, k) => sum + weight * clip(deviations[k], 2 ** 16),
      0,
    );
    return clip(shift(total, 15), 32767);
  }

  /** End the running case, a patient or a slide; without images nothing happens. */
  endCase() {
    if (!this.images) return;
    this.evidences = this.evidences.map((evidence, i) =>
      Math.min(shift((evidence + 256) * divide(this.steps[i], this.images), 8), EVIDENCE_LIMIT),
    );
    this.trends = this.trends.map(
      (trend, k) => trend + shift(16 * divide(this.deviations[k], this.images) - trend, 3),
    );
    this.clearCase();
  }

  /** Return the alarm of the stream: 0 none, 1 the pictures differ, 2 the network differs. */
  alarm() {
    const level = RATE * 256;
    const total = this.evidences.reduce((sum, evidence) => sum + evidence, 0);
    if (total < level * (this.tables.layer ? 3 : 2)) return 0;
    return this.evidences[2] >= level ? 2 : 1;
  }

  /** Return the alarm in words; empty if there is none. */
  describe() {
    const alarm = this.alarm();
    if (alarm === 0) return '';
    const drifted = this.evidences[1] >= RATE * 256;
    const change = this.tables.drift.changes[this.findChange()].name;
    const feature =
      `most of all in ${FEATURES[findLargest(this.trends)]}` + (drifted ? `, as if ${change}` : '');
    return alarm === 2 ?
        'the network sees something else: its accuracy here is not known; the pictures differ ' +
          feature
      : `the pictures differ from those of calibration, ${feature}`;
  }

  /** Judge an image that is a case; return the numbers that every target computes alike. */
  listNumbers(pixels, tensors) {
    const reading = this.add(pixels, tensors);
    this.endCase();
    return [
      reading.picture, reading.drift, reading.layer, Number(reading.isUnusual), this.alarm(),
      ...this.evidences, ...this.trends, ...reading.deviations, ...reading.channelSums,
    ]; // prettier-ignore
  }
}
