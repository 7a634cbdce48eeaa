// The input contract: converts the pixels of an image to the network's input, bit-exact with the
// reference (compiler/ir/preprocess.py). An image is {height, width, data} with 8-bit RGB pixels,
// row by row. A contract is input.preprocess of manifest.json. A shape is
// [channels, height, width].

import {
  computeCoverSize, getSourceRange, planAxis, resampleColumns, resampleRows,
} from './resampling.js';
import { ImageError } from './errors.js';

const MAX_SIDE = 1 << 16;
const MAX_PIXELS = 1 << 26;
const MAX_ROWS_BYTES = 1 << 28;

/** Return the network's input for an image: float32, channel by channel. */
export function apply(contract, image, shape) {
  return normalize(contract, preparePixels(contract, image, shape));
}

/** Return the 8-bit pixels before normalization: {height, width, channels, data}. */
export function preparePixels(contract, image, shape) {
  const [vertical, horizontal] = planResampling(contract, image, shape);
  const [rows, columns] = [getSourceRange(vertical), getSourceRange(horizontal)];
  const pixels = convertColor(contract.color ?? 'rgb', image, rows, columns);
  return cropOrPad(resampleRows(resampleColumns(pixels, horizontal), vertical), shape[1], shape[2]);
}

/** Reject an image that is too large before memory is allocated for it. */
export function checkSize(height, width) {
  if (Math.max(height, width) > MAX_SIDE || height * width > MAX_PIXELS) {
    throw new ImageError(
      `The image is too large (${width}x${height} pixels): the limits are 65536 pixels per side` +
        ' and 64 Mi pixels in total',
    );
  }
}

/** Return how the vertical and the horizontal axis are resampled (see `planAxis`). */
export function planResampling(contract, { height, width }, shape) {
  checkSize(height, width);
  const outputSize = shape.slice(1);
  const sourceSize = [height, width];
  const resizeSize = contract.resize?.size;
  const requestedSize = resizeSize ?? sourceSize;
  const scaledSize = resizeSize ? computeScaledSize(contract.resize, sourceSize) : sourceSize;
  if (countChannels(contract.color ?? 'rgb') !== shape[0]) {
    throw new Error('the input contract and the network have different numbers of channels');
  }
  const fits = requestedSize[0] === outputSize[0] && requestedSize[1] === outputSize[1];
  if (!contract.crop && !fits) {
    throw new ImageError(
      `The image is ${width}x${height} pixels, but the network takes` +
        ` ${outputSize[1]}x${outputSize[0]}`,
    );
  }
  const [vertical, horizontal] = [0, 1].map((i) =>
    planAxis(sourceSize[i], scaledSize[i], requestedSize[i], outputSize[i]),
  );
  const [firstRow, endRow] = getSourceRange(vertical);
  if ((endRow - firstRow) * horizontal.count * shape[0] > MAX_ROWS_BYTES) {
    throw new ImageError('The image is too large for this resize: split it into tiles');
  }
  return [vertical, horizontal];
}

function computeScaledSize({ size, mode = 'stretch' }, source) {
  switch (mode) {
    case 'stretch':
      return size;
    case 'cover':
      return computeCoverSize(source, size);
    default:
      throw new Error(`unknown resize mode '${mode}'`);
  }
}

export function countChannels(color) {
  switch (color) {
    case 'gray':
      return 1;
    case 'rgb':
    case 'bgr':
      return 3;
    default:
      throw new Error(`unknown color '${color}'`);
  }
}

/** Return the given rows and columns of an image in the color of the contract. */
function convertColor(color, { width, data }, [top, bottom], [left, right]) {
  const channels = countChannels(color);
  const converted = new Uint8Array((bottom - top) * (right - left) * channels);
  const [firstOffset, lastOffset] = color === 'bgr' ? [2, 0] : [0, 2];
  let target = 0;
  for (let y = top; y < bottom; y += 1) {
    for (let source = 3 * (y * width + left); source < 3 * (y * width + right); source += 3) {
      if (channels === 1) {
        // 0.299, 0.587 and 0.114 of ITU-R BT.601 with 16 fraction bits, as in Pillow
        const luma = 19595 * data[source] + 38470 * data[source + 1] + 7471 * data[source + 2];
        converted[target] = (luma + 0x8000) >> 16;
      } else {
        converted[target] = data[source + firstOffset];
        converted[target + 1] = data[source + 1];
        converted[target + 2] = data[source + lastOffset];
      }
      target += channels;
    }
  }
  return { height: bottom - top, width: right - left, channels, data: converted };
}

/** Crop pixels to their center; pad them with zeros where the size is larger. */
function cropOrPad(pixels, height, width) {
  const { channels, data } = pixels;
  if (pixels.height === height && pixels.width === width) return pixels;
  const result = new Uint8Array(height * width * channels);
  const [rows, fromY, toY] = computeOverlap(pixels.height, height);
  const [columns, fromX, toX] = computeOverlap(pixels.width, width);
  for (let y = 0; y < rows; y += 1) {
    const from = ((fromY + y) * pixels.width + fromX) * channels;
    const row = data.subarray(from, from + columns * channels);
    result.set(row, ((toY + y) * width + toX) * channels);
  }
  return { height, width, channels, data: result };
}

function computeOverlap(source, target) {
  const length = Math.min(source, target);
  return [length, Math.floor((source - length) / 2), Math.floor((target - length) / 2)];
}

/** Return (pixels / scale - mean) / std as float32, channel by channel; raw pixels stay. */
export function normalize(contract, { height, width, channels, data }) {
  const { raw = false, mean = [0], std = [1] } = contract;
  const pixels = height * width;
  const values = new Float32Array(channels * pixels);
  const divisor = raw ? 1 : getDivisor(contract, data);
  for (let c = 0; c < channels; c += 1) {
    // Each step is rounded to float32, as in the reference (numpy).
    const channelMean = Math.fround(mean[mean.length > 1 ? c : 0]);
    const channelStd = Math.fround(std[std.length > 1 ? c : 0]);
    const table = new Float32Array(256);
    for (let pixel = 0; pixel < 256; pixel += 1) {
      const scaled = Math.fround(pixel / divisor);
      table[pixel] = raw ? pixel : Math.fround(scaled - channelMean) / channelStd;
    }
    for (let i = 0; i < pixels; i += 1) values[c * pixels + i] = table[data[i * channels + c]];
  }
  return values;
}

function getDivisor({ scale = '255' }, data) {
  switch (scale) {
    case '255':
      return 255;
    case 'max':
      return data.reduce((largest, pixel) => Math.max(largest, pixel), 1);
    default:
      throw new Error(`unknown pixel scale '${scale}'`);
  }
}
