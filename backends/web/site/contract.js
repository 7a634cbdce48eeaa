// The input contract: converts the pixels of an image to the network's input, bit-exact with the
// reference (compiler/ir/preprocess.py). An image is {height, width, data} with 8-bit RGB pixels,
// row by row. A contract is input.preprocess of manifest.json. A shape is
// [channels, height, width].

import { axis, covering, read, resampleColumns, resampleRows } from './resampling.js';
import { ImageError } from './errors.js';

const MAX_SIDE = 1 << 16;
const MAX_PIXELS = 1 << 26;
const MAX_ROWS_BYTES = 1 << 28;

/** Return the network's input for an image: float32, channel by channel. */
export function apply(contract, image, shape) {
  return normalized(contract, levels(contract, image, shape));
}

/** Return the 8-bit pixels before normalization: {height, width, channels, data}. */
export function levels(contract, image, shape) {
  const [down, across] = plan(contract, image, shape);
  const shown = colored(contract.color ?? 'rgb', image, read(down), read(across));
  return center(resampleRows(resampleColumns(shown, across), down), shape[1], shape[2]);
}

/** Refuse an image that is too large, before any memory is allocated. */
export function checkSize(height, width) {
  if (Math.max(height, width) > MAX_SIDE || height * width > MAX_PIXELS) {
    throw new ImageError(
      `The image is too large (${width}x${height} pixels): the limits are 65536 pixels per side` +
        ' and 64 Mi pixels in total',
    );
  }
}

/** Return the resampling of the vertical and the horizontal axis. */
export function plan(contract, { height, width }, shape) {
  checkSize(height, width);
  const wanted = shape.slice(1);
  const source = [height, width];
  const size = contract.resize?.size;
  const kept = size ?? source;
  const scaled = size ? sizeScaled(contract.resize, source) : source;
  if (channelsOf(contract.color ?? 'rgb') !== shape[0]) {
    throw new Error('the input contract and the network have different numbers of channels');
  }
  if (!contract.crop && (kept[0] !== wanted[0] || kept[1] !== wanted[1])) {
    throw new ImageError(
      `The image is ${width}x${height} pixels, but the network takes ${wanted[1]}x${wanted[0]}`,
    );
  }
  const [down, across] = [0, 1].map((i) => axis(source[i], scaled[i], kept[i], wanted[i]));
  const [first, end] = read(down);
  if ((end - first) * across.count * shape[0] > MAX_ROWS_BYTES) {
    throw new ImageError('The image is too large for this resize: split it into tiles');
  }
  return [down, across];
}

function sizeScaled({ size, mode = 'stretch' }, source) {
  switch (mode) {
    case 'stretch':
      return size;
    case 'cover':
      return covering(source, size);
    default:
      throw new Error(`unknown resize mode '${mode}'`);
  }
}

export function channelsOf(color) {
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

/** Return the rows and columns of an image that are read, in the color of the contract. */
function colored(color, { width, data }, [top, bottom], [left, right]) {
  const channels = channelsOf(color);
  const found = new Uint8Array((bottom - top) * (right - left) * channels);
  const [first, last] = color === 'bgr' ? [2, 0] : [0, 2];
  let at = 0;
  for (let y = top; y < bottom; y += 1) {
    for (let from = 3 * (y * width + left); from < 3 * (y * width + right); from += 3) {
      if (channels === 1) {
        // ITU-R BT.601's 0.299, 0.587 and 0.114 with 16 fraction bits, as in Pillow
        const luma = 19595 * data[from] + 38470 * data[from + 1] + 7471 * data[from + 2];
        found[at] = (luma + 0x8000) >> 16;
      } else {
        found[at] = data[from + first];
        found[at + 1] = data[from + 1];
        found[at + 2] = data[from + last];
      }
      at += channels;
    }
  }
  return { height: bottom - top, width: right - left, channels, data: found };
}

/** Crop pixels to their center, or pad them with zeros if the size is larger. */
function center(pixels, height, width) {
  const { channels, data } = pixels;
  if (pixels.height === height && pixels.width === width) return pixels;
  const result = new Uint8Array(height * width * channels);
  const [rows, fromY, toY] = overlap(pixels.height, height);
  const [columns, fromX, toX] = overlap(pixels.width, width);
  for (let y = 0; y < rows; y += 1) {
    const from = ((fromY + y) * pixels.width + fromX) * channels;
    const row = data.subarray(from, from + columns * channels);
    result.set(row, ((toY + y) * width + toX) * channels);
  }
  return { height, width, channels, data: result };
}

function overlap(source, target) {
  const both = Math.min(source, target);
  return [both, Math.floor((source - both) / 2), Math.floor((target - both) / 2)];
}

/** Return (pixels / scale - mean) / std as float32, channel by channel; raw ones unchanged. */
export function normalized(contract, { height, width, channels, data }) {
  const { raw = false, mean = [0], std = [1] } = contract;
  const pixels = height * width;
  const values = new Float32Array(channels * pixels);
  const divisor = raw ? 1 : scaleOf(contract, data);
  for (let c = 0; c < channels; c += 1) {
    // Each step is rounded to float32, as in the reference (numpy).
    const middle = Math.fround(mean[mean.length > 1 ? c : 0]);
    const spread = Math.fround(std[std.length > 1 ? c : 0]);
    const table = new Float32Array(256);
    for (let level = 0; level < 256; level += 1) {
      const share = Math.fround(level / divisor);
      table[level] = raw ? level : Math.fround(share - middle) / spread;
    }
    for (let i = 0; i < pixels; i += 1) values[c * pixels + i] = table[data[i * channels + c]];
  }
  return values;
}

function scaleOf({ scale = '255' }, data) {
  switch (scale) {
    case '255':
      return 255;
    case 'max':
      return data.reduce((most, level) => Math.max(most, level), 1);
    default:
      throw new Error(`unknown pixel scale '${scale}'`);
  }
}
