// Decodes PNG files to RGB pixels with the same bytes as Pillow. Palettes and gray are converted to
// RGB, alpha is ignored, and 16-bit color is reduced to 8 bits. Gamma, chromaticities and color
// profiles are not applied; the EXIF orientation is.

import { turned } from './exif.js';
import { damaged, inflate, readSound } from './png_chunks.js';
import { direction } from './png_texts.js';

export { isPng } from './png_chunks.js';

const WHOLE = [[0, 0, 1, 1]];
const ADAM7 = [
  [0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2],
];

/** Return {height, width, data, remarks} of a PNG file, given its bytes. */
export async function decodePng(bytes) {
  const { header, chunks } = readSound(bytes);
  const turn = await direction(chunks);
  const scans = await scansOf(header, chunks);
  const samples = samplesOf(header, scans);
  const { data, transparent } = colours(header, samples, chunks);
  const remarks = [];
  if (transparent) remarks.push('Transparency is ignored: transparent pixels get their stored colour');
  if (header.depth === 16) remarks.push('16-bit samples are reduced to 8 bits');
  const { height, width } = header;
  return { ...turned({ height, width, data }, turn), remarks };
}

/** Return the passes in which an image is stored: one, or the seven of Adam7. */
function passes({ width, height, depth, channels, interlace }) {
  return (interlace ? ADAM7 : WHOLE)
    .map(([x, y, dx, dy]) => {
      const columns = Math.ceil((width - x) / dx);
      const rows = Math.ceil((height - y) / dy);
      const stride = Math.ceil((columns * channels * depth) / 8);
      return { x, y, dx, dy, columns, rows, stride, bytes: rows * (stride + 1) };
    })
    .filter(({ columns, rows }) => columns > 0 && rows > 0);
}

/** Return the rows of all passes, each with its filter byte first. */
async function scansOf(header, chunks) {
  const packed = chunks.filter(({ type }) => type === 'IDAT').map(({ data }) => data);
  const size = passes(header).reduce((sum, pass) => sum + pass.bytes, 0);
  const scans = await inflate(packed, size, 'its compressed pixels');
  if (scans.length < size) throw damaged('the file has too few pixels');
  return scans;
}

/** Return the samples of all pixels, one byte each, in image order. */
function samplesOf(header, scans) {
  const { width, height, depth, channels } = header;
  const samples = new Uint8Array(width * height * channels);
  const size = Math.max(1, (depth * channels) >> 3);
  let at = 0;
  for (const { x, y, dx, dy, columns, rows, stride } of passes(header)) {
    let above = new Uint8Array(stride);
    for (let row = 0; row < rows; row += 1) {
      const line = scans.subarray(at + 1, at + 1 + stride);
      unfilter(scans[at], line, above, size);
      const start = ((y + row * dy) * width + x) * channels;
      spread(line, samples, start, { depth, channels, columns, step: dx * channels });
      above = line;
      at += stride + 1;
    }
  }
  return samples;
}

/** Undo the filter of a line in place; `size` is the number of bytes per pixel. */
function unfilter(filter, line, above, size) {
  const left = (i) => (i < size ? 0 : line[i - size]);
  switch (filter) {
    case 0:
      return;
    case 1:
      for (let i = size; i < line.length; i += 1) line[i] += line[i - size];
      return;
    case 2:
      for (let i = 0; i < line.length; i += 1) line[i] += above[i];
      return;
    case 3:
      for (let i = 0; i < line.length; i += 1) line[i] += (left(i) + above[i]) >> 1;
      return;
    case 4:
      for (let i = 0; i < line.length; i += 1) {
        line[i] += paeth(left(i), above[i], i < size ? 0 : above[i - size]);
      }
      return;
    default:
      throw damaged('a row uses an unknown filter');
  }
}

function paeth(left, up, corner) {
  const guess = left + up - corner;
  const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}

/** Write the samples of a line to their positions; of 16 bits the upper 8. */
function spread(line, samples, start, { depth, channels, columns, step }) {
  const mask = (1 << Math.min(depth, 8)) - 1;
  for (let column = 0; column < columns; column += 1) {
    for (let c = 0; c < channels; c += 1) {
      const bit = (column * channels + c) * depth;
      const shift = depth < 8 ? 8 - depth - (bit & 7) : 0;
      samples[start + column * step + c] = (line[bit >> 3] >> shift) & mask;
    }
  }
}

/** Return RGB pixels of samples, and whether any pixel was transparent. */
function colours({ width, height, depth, color, channels }, samples, chunks) {
  const first = chunks.findIndex(({ type }) => type === 'IDAT');
  const before = chunks.slice(0, first);
  const alpha = before.filter(({ type }) => type === 'tRNS').at(-1)?.data;
  const palette = color === 3 ? before.find(({ type }) => type === 'PLTE').data : undefined;
  const grey = depth < 8 ? 255 / ((1 << depth) - 1) : 1;
  const data = new Uint8Array(3 * width * height);
  const plain = channels < 3;
  const clear = alpha && !palette ? clearColour(alpha, depth) : undefined;
  let transparent = false;
  for (let pixel = 0; pixel < width * height; pixel += 1) {
    const from = pixel * channels;
    const index = samples[from];
    if (palette && 3 * index >= palette.length) throw damaged('a pixel has a color index outside the palette');
    for (let c = 0; c < 3; c += 1) {
      const sample = plain ? index : samples[from + c];
      data[3 * pixel + c] = palette ? palette[3 * sample + c] : sample * grey;
    }
    if (transparent) continue;
    if (color === 4 || color === 6) transparent = samples[from + channels - 1] < 255;
    else if (clear) transparent = clear.every((sample, c) => samples[from + c] === sample);
    else if (alpha) transparent = (alpha[index] ?? 255) < 255;
  }
  return { data, transparent };
}

/** Return the transparent color in the depth of the samples; it is stored with 16 bits each. */
function clearColour(alpha, depth) {
  const kept = depth === 16 ? 0 : 1;
  return Array.from({ length: alpha.length >> 1 }, (_, c) => alpha[2 * c + kept]);
}
