// Scales pixels along one axis: bilinear with antialiasing, bit-exact with the reference
// (compiler/ir/pixel_resampling.py) and with Pillow. Sums are in fixed point, so their order does
// not matter; a JavaScript number represents each of them exactly.

const PRECISION = 22; // fraction bits of a coefficient, as in Pillow's Resample.c

/** Return the scaling of an axis: from `source` to `scaled` pixels, `count` kept from `first`. */
export function axis(source, scaled, kept, shown) {
  const count = Math.min(kept, shown);
  const first = Math.floor((scaled - kept) / 2) + Math.floor((kept - count) / 2);
  return { source, scaled, first, count };
}

/** Return the first source pixel of an axis that is read, and the end of the range. */
export function read({ source, scaled, first, count }) {
  if (scaled === source) return [first, first + count];
  const scale = source / scaled;
  const support = Math.max(scale, 1);
  const low = (first + 0.5) * scale;
  const high = (first + count - 1 + 0.5) * scale;
  return [
    Math.max(Math.trunc(low - support + 0.5), 0),
    Math.min(Math.trunc(high + support + 0.5), source),
  ];
}

/** Return the size [height, width] to which `source` is scaled to cover `target`. */
export function covering(source, target) {
  const scale = Math.max(target[0] / source[0], target[1] / source[1]);
  return [0, 1].map((i) => Math.max(target[i], Math.floor(source[i] * scale + 0.5)));
}

/** Return, for each kept pixel, the source pixel at which its sum starts, and its weights. */
export function coefficients({ source, scaled, first, count }) {
  const scale = source / scaled;
  const support = Math.max(scale, 1);
  const taps = [];
  for (let kept = first; kept < first + count; kept += 1) {
    const middle = (kept + 0.5) * scale;
    const start = Math.max(Math.trunc(middle - support + 0.5), 0);
    const end = Math.min(Math.trunc(middle + support + 0.5), source);
    const weights = [];
    let sum = 0;
    for (let offset = 0; offset < end - start; offset += 1) {
      const reach = (offset + start - middle + 0.5) * (1 / support);
      const weight = Math.max(1 - Math.abs(reach), 0);
      weights.push(weight);
      sum += weight;
    }
    const fixed = weights.map((weight) => Math.trunc((weight / sum) * 2 ** PRECISION + 0.5));
    taps.push({ start, weights: Int32Array.from(fixed) });
  }
  return taps;
}

/** Scale the columns of pixels {height, width, channels, data}; only the read range is included. */
export function resampleColumns(pixels, along) {
  const { height, width, channels, data } = pixels;
  if (along.scaled === along.source) return pixels;
  const [origin] = read(along);
  const result = new Uint8ClampedArray(height * along.count * channels);
  const taps = coefficients(along);
  let at = 0;
  for (let y = 0; y < height; y += 1) {
    const row = y * width * channels;
    for (const { start, weights } of taps) {
      const from = row + (start - origin) * channels;
      for (let c = 0; c < channels; c += 1) {
        let sum = 1 << (PRECISION - 1); // half a unit, so that the shift rounds to nearest
        for (let t = 0; t < weights.length; t += 1) sum += data[from + t * channels + c] * weights[t];
        result[at] = sum >> PRECISION;
        at += 1;
      }
    }
  }
  return { height, width: along.count, channels, data: result };
}

/** Scale the rows of pixels; see `resampleColumns`. */
export function resampleRows(pixels, along) {
  const { width, channels, data } = pixels;
  if (along.scaled === along.source) return pixels;
  const [origin] = read(along);
  const stride = width * channels;
  const result = new Uint8ClampedArray(along.count * stride);
  const sums = new Int32Array(stride);
  coefficients(along).forEach(({ start, weights }, y) => {
    sums.fill(1 << (PRECISION - 1));
    weights.forEach((weight, t) => {
      const from = (start - origin + t) * stride;
      for (let x = 0; x < stride; x += 1) sums[x] += data[from + x] * weight;
    });
    for (let x = 0; x < stride; x += 1) result[y * stride + x] = sums[x] >> PRECISION;
  });
  return { height: along.count, width, channels, data: result };
}
