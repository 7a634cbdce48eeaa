// Decodes PNG files to RGB pixels with the same bytes as Pillow. Palettes and gray are converted to
// RGB, alpha is ignored, and 16-bit color is reduced to 8 bits. The EXIF orientation is applied;
// gamma, chromaticities and color profiles are not.

import { applyOrientation } from './exif.js';
import { createDamageError, inflate, readCheckedChunks } from './png_chunks.js';
import { readOrientation } from './png_texts.js';

export { isPng } from './png_chunks.js';

const SINGLE_PASS = [[0, 0, 1, 1]];
const ADAM7 = [
  [0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2],
];

/** Return {height, width, data, remarks} of a PNG file from its bytes. */
export async function decodePng(bytes) {
  const { header, chunks } = readCheckedChunks(bytes);
  const orientation = await readOrientation(chunks);
  const scanlines = await readScanlines(header, chunks);
  const samples = decodeSamples(header, scanlines);
  const { data, transparent } = toRgb(header, samples, chunks);
  const remarks = [];
  if (transparent) {
    remarks.push('Transparency is ignored: transparent pixels get their stored colour');
  }
  if (header.depth === 16) remarks.push('16-bit samples are reduced to 8 bits');
  const { height, width } = header;
  return { ...applyOrientation({ height, width, data }, orientation), remarks };
}

/** Return the passes of an image: one, or the non-empty ones of the seven of Adam7. */
function listPasses({ width, height, depth, channels, interlace }) {
  return (interlace ? ADAM7 : SINGLE_PASS)
    .map(([x, y, dx, dy]) => {
      const columns = Math.ceil((width - x) / dx);
      const rows = Math.ceil((height - y) / dy);
      const stride = Math.ceil((columns * channels * depth) / 8);
      return { x, y, dx, dy, columns, rows, stride, bytes: rows * (stride + 1) };
    })
    .filter(({ columns, rows }) => columns > 0 && rows > 0);
}

/** Return the decompressed rows of all passes; the first byte of each row is its filter. */
async function readScanlines(header, chunks) {
  const packed = chunks.filter(({ type }) => type === 'IDAT').map(({ data }) => data);
  const size = listPasses(header).reduce((sum, pass) => sum + pass.bytes, 0);
  const scanlines = await inflate(packed, size, 'its compressed pixels');
  if (scanlines.length < size) throw createDamageError('the file has too few pixels');
  return scanlines;
}

/** Return the samples of all pixels, one byte each, in image order. */
function decodeSamples(header, scanlines) {
  const { width, height, depth, channels } = header;
  const samples = new Uint8Array(width * height * channels);
  const size = Math.max(1, (depth * channels) >> 3);
  let offset = 0;
  for (const { x, y, dx, dy, columns, rows, stride } of listPasses(header)) {
    let previousLine = new Uint8Array(stride);
    for (let row = 0; row < rows; row += 1) {
      const line = scanlines.subarray(offset + 1, offset + 1 + stride);
      unfilter(scanlines[offset], line, previousLine, size);
      const start = ((y + row * dy) * width + x) * channels;
      writeSamples(line, samples, start, { depth, channels, columns, step: dx * channels });
      previousLine = line;
      offset += stride + 1;
    }
  }
  return samples;
}

/** Undo the filter of a line in place; `size` is the number of bytes per pixel. */
function unfilter(filter, line, previousLine, size) {
  const getLeft = (i) => (i < size ? 0 : line[i - size]);
  switch (filter) {
    case 0:
      return;
    case 1:
      for (let i = size; i < line.length; i += 1) line[i] += line[i - size];
      return;
    case 2:
      for (let i = 0; i < line.length; i += 1) line[i] += previousLine[i];
      return;
    case 3:
      for (let i = 0; i < line.length; i += 1) line[i] += (getLeft(i) + previousLine[i]) >> 1;
      return;
    case 4:
      for (let i = 0; i < line.length; i += 1) {
        line[i] += predictPaeth(getLeft(i), previousLine[i], i < size ? 0 : previousLine[i - size]);
      }
      return;
    default:
      throw createDamageError('a row uses an unknown filter');
  }
}

function predictPaeth(left, up, upLeft) {
  const estimate = left + up - upLeft;
  const a = Math.abs(estimate - left);
  const b = Math.abs(estimate - up);
  const c = Math.abs(estimate - upLeft);
  if (a <= b && a <= c) return left;
  return b <= c ? up : upLeft;
}

/** Write the samples of a line to their positions; of 16-bit samples, the upper 8 bits. */
function writeSamples(line, samples, start, { depth, channels, columns, step }) {
  const mask = (1 << Math.min(depth, 8)) - 1;
  for (let column = 0; column < columns; column += 1) {
    for (let c = 0; c < channels; c += 1) {
      const bit = (column * channels + c) * depth;
      const shift = depth < 8 ? 8 - depth - (bit & 7) : 0;
      samples[start + column * step + c] = (line[bit >> 3] >> shift) & mask;
    }
  }
}

/** Return the RGB pixels of samples, and whether any pixel is transparent. */
function toRgb({ width, height, depth, color, channels }, samples, chunks) {
  const firstDataChunk = chunks.findIndex(({ type }) => type === 'IDAT');
  const chunksBeforeData = chunks.slice(0, firstDataChunk);
  const alpha = chunksBeforeData.filter(({ type }) => type === 'tRNS').at(-1)?.data;
  const palette =
    color === 3 ? chunksBeforeData.find(({ type }) => type === 'PLTE').data : undefined;
  const sampleScale = depth < 8 ? 255 / ((1 << depth) - 1) : 1;
  const data = new Uint8Array(3 * width * height);
  const isGray = channels < 3;
  const transparentColor = alpha && !palette ? readTransparentColor(alpha, depth) : undefined;
  let hasTransparency = false;
  for (let pixel = 0; pixel < width * height; pixel += 1) {
    const offset = pixel * channels;
    const index = samples[offset];
    if (palette && 3 * index >= palette.length) {
      throw createDamageError('a pixel has a color index outside the palette');
    }
    for (let c = 0; c < 3; c += 1) {
      const sample = isGray ? index : samples[offset + c];
      data[3 * pixel + c] = palette ? palette[3 * sample + c] : sample * sampleScale;
    }
    if (hasTransparency) continue;
    if (color === 4 || color === 6) {
      hasTransparency = samples[offset + channels - 1] < 255;
    } else if (transparentColor) {
      hasTransparency = transparentColor.every((sample, c) => samples[offset + c] === sample);
    } else if (alpha) {
      hasTransparency = (alpha[index] ?? 255) < 255;
    }
  }
  return { data, transparent: hasTransparency };
}

/** Return the transparent color in 8-bit samples; the file has 16 bits per sample. */
function readTransparentColor(alpha, depth) {
  const byteOffset = depth === 16 ? 0 : 1;
  return Array.from({ length: alpha.length >> 1 }, (_, c) => alpha[2 * c + byteOffset]);
}
