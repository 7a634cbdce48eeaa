// Scales pixels along one axis: bilinear with antialiasing, bit-exact with the reference
// (compiler/ir/pixel_resampling.py) and with Pillow. Sums are in fixed point, so their order does
// not matter; a JavaScript number represents each of them exactly.

const PRECISION = 22; // fraction bits of a coefficient, as in Pillow's Resample.c

/**
 * Return the scaling of an axis, {source, scaled, start, count}: scale `source` pixels to `scaled`
 * and keep `count` of them from `start`. Pixels are cropped to `requested`, then to `visible`.
 */
export function planAxis(source, scaled, requested, visible) {
  const count = Math.min(requested, visible);
  const start = Math.floor((scaled - requested) / 2) + Math.floor((requested - count) / 2);
  return { source, scaled, start, count };
}

/** Return the range [first, end] of source pixels that an axis reads. */
export function getSourceRange({ source, scaled, start, count }) {
  if (scaled === source) return [start, start + count];
  const scale = source / scaled;
  const support = Math.max(scale, 1);
  const firstCenter = (start + 0.5) * scale;
  const lastCenter = (start + count - 1 + 0.5) * scale;
  return [
    Math.max(Math.trunc(firstCenter - support + 0.5), 0),
    Math.min(Math.trunc(lastCenter + support + 0.5), source),
  ];
}

/** Return the size [height, width] to which `source` is scaled to cover `target`. */
export function computeCoverSize(source, target) {
  const scale = Math.max(target[0] / source[0], target[1] / source[1]);
  return [0, 1].map((i) => Math.max(target[i], Math.floor(source[i] * scale + 0.5)));
}

/** Return {start, weights} of each output pixel: its first source pixel and fixed-point weights. */
export function computeFilters({ source, scaled, start, count }) {
  const scale = source / scaled;
  const support = Math.max(scale, 1);
  const filters = [];
  for (let target = start; target < start + count; target += 1) {
    const center = (target + 0.5) * scale;
    const firstSource = Math.max(Math.trunc(center - support + 0.5), 0);
    const endSource = Math.min(Math.trunc(center + support + 0.5), source);
    const weights = [];
    let sum = 0;
    for (let offset = 0; offset < endSource - firstSource; offset += 1) {
      const distance = (offset + firstSource - center + 0.5) * (1 / support);
      const weight = Math.max(1 - Math.abs(distance), 0);
      weights.push(weight);
      sum += weight;
    }
    const fixedPoint = weights.map((weight) => Math.trunc((weight / sum) * 2 ** PRECISION + 0.5));
    filters.push({ start: firstSource, weights: Int32Array.from(fixedPoint) });
  }
  return filters;
}

/** Scale pixels {height, width, channels, data} along x; `data` has only the range that is read. */
export function resampleColumns(pixels, axis) {
  const { height, width, channels, data } = pixels;
  if (axis.scaled === axis.source) return pixels;
  const [origin] = getSourceRange(axis);
  const result = new Uint8ClampedArray(height * axis.count * channels);
  const filters = computeFilters(axis);
  let target = 0;
  for (let y = 0; y < height; y += 1) {
    const row = y * width * channels;
    for (const { start, weights } of filters) {
      const source = row + (start - origin) * channels;
      for (let c = 0; c < channels; c += 1) {
        let sum = 1 << (PRECISION - 1); // half a unit, so that the shift rounds to nearest
        for (let t = 0; t < weights.length; t += 1) {
          sum += data[source + t * channels + c] * weights[t];
        }
        result[target] = sum >> PRECISION;
        target += 1;
      }
    }
  }
  return { height, width: axis.count, channels, data: result };
}

/** Scale pixels along y; see `resampleColumns`. */
export function resampleRows(pixels, axis) {
  const { width, channels, data } = pixels;
  if (axis.scaled === axis.source) return pixels;
  const [origin] = getSourceRange(axis);
  const stride = width * channels;
  const result = new Uint8ClampedArray(axis.count * stride);
  const sums = new Int32Array(stride);
  computeFilters(axis).forEach(({ start, weights }, y) => {
    sums.fill(1 << (PRECISION - 1));
    weights.forEach((weight, t) => {
      const source = (start - origin + t) * stride;
      for (let x = 0; x < stride; x += 1) sums[x] += data[source + x] * weight;
    });
    for (let x = 0; x < stride; x += 1) result[y * stride + x] = sums[x] >> PRECISION;
  });
  return { height: axis.count, width, channels, data: result };
}
