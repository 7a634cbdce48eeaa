// PNG files to RGB pixels, byte for byte what Pillow gives: palettes are looked up, grey becomes
// RGB, alpha is dropped, of 16 bits of colour 8 are kept; gamma, chromaticities and colour profiles
// are not applied; the orientation of EXIF is. What Pillow refuses, or reads although it is broken,
// is refused: checksums, chunks out of order, animations, 16 bits of grey.

import { checkSize } from './contract.js';
import { ImageError } from './errors.js';
import { orientation, orientationOfXmp, turned } from './exif.js';

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
const MAX_TEXT = 1 << 20; // Pillow's bound of a text that is packed
const WHOLE = [[0, 0, 1, 1]];
const ADAM7 = [
  [0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2],
];

export const isPng = (bytes) => SIGNATURE.every((byte, i) => bytes[i] === byte);

const damaged = (what) => new ImageError(`the image is damaged: ${what}`);

/** {height, width, data, remarks} of the bytes of a PNG file. */
export async function decodePng(bytes) {
  const chunks = [...chunksOf(bytes)];
  const header = headerOf(chunks[0]);
  const packed = imageData(chunks);
  const scans = await unpacked(packed, passes(header).reduce((sum, pass) => sum + pass.bytes, 0));
  const samples = samplesOf(header, scans);
  const { data, transparent } = colours(header, samples, chunks);
  const remarks = [];
  if (transparent) remarks.push('transparency is dropped: the colour that is stored is taken');
  if (header.depth === 16) remarks.push('of 16 bits a sample, 8 are kept');
  const { height, width } = header;
  return { ...turned({ height, width, data }, await direction(chunks)), remarks };
}

function* chunksOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = SIGNATURE.length; ; ) {
    if (at + 8 > bytes.length) throw damaged('it ends too early');
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (!/^[A-Za-z]{4}$/.test(type)) throw damaged('a part of it has no name');
    if (type === 'IEND') return;
    if (at + 12 + length > bytes.length) throw damaged('it ends too early');
    if (view.getUint32(at + 8 + length) !== checksum(bytes.subarray(at + 4, at + 8 + length))) {
      throw damaged(`the checksum of ${type} is wrong`);
    }
    if (type === 'acTL') {
      throw new ImageError('this file is an animation: save the frame that is meant');
    }
    yield { type, data: bytes.subarray(at + 8, at + 8 + length) };
    at += 12 + length;
  }
}

const TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function checksum(bytes) {
  let value = -1;
  for (let i = 0; i < bytes.length; i += 1) value = TABLE[(value ^ bytes[i]) & 255] ^ (value >>> 8);
  return ~value >>> 0;
}

function headerOf(chunk) {
  if (chunk?.type !== 'IHDR' || chunk.data.length !== 13) throw damaged('it has no header');
  const view = new DataView(chunk.data.buffer, chunk.data.byteOffset, 13);
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  const [depth, color, packing, filter, interlace] = chunk.data.subarray(8);
  if (!DEPTHS[color]?.includes(depth) || packing || filter || interlace > 1 || !width || !height) {
    throw damaged('its header');
  }
  checkSize(height, width);
  if (depth === 16 && color === 0) {
    throw new ImageError(
      'pixels of 16 bits of grey are not read: convert the image to 8 bits, choosing which values' +
        ' are black and white',
    );
  }
  return { width, height, depth, color, interlace, channels: CHANNELS[color] };
}

function imageData(chunks) {
  const first = chunks.findIndex(({ type }) => type === 'IDAT');
  if (first < 0) throw damaged('it has no pixels');
  const packed = chunks.filter(({ type }) => type === 'IDAT');
  if (chunks.slice(first, first + packed.length).some(({ type }) => type !== 'IDAT')) {
    throw damaged('its pixels are in pieces');
  }
  return packed.map(({ data }) => data);
}

/** The parts that an image is stored in, one after the other: one, or the seven of Adam7. */
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

/** The first `size` bytes of what is packed; nothing of it beyond them is unpacked. */
async function unpacked(parts, size, exactly = true) {
  const result = new Uint8Array(size);
  const reader = new Blob(parts).stream().pipeThrough(new DecompressionStream('deflate')).getReader();
  let at = 0;
  try {
    while (at < size) {
      const { done, value } = await reader.read();
      if (done) break;
      result.set(value.subarray(0, size - at), at);
      at += Math.min(value.length, size - at);
    }
  } catch {
    throw damaged('what is packed in it');
  }
  await reader.cancel().catch(() => {});
  if (exactly && at < size) throw damaged('it has too few pixels');
  return result.subarray(0, at);
}

/** The samples of all pixels, a byte each, in the order of the image. */
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

/** Undo the filter of a line, in its place; `size` is the bytes of a pixel. */
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
      throw damaged('a filter that there is not');
  }
}

function paeth(left, up, corner) {
  const guess = left + up - corner;
  const [a, b, c] = [Math.abs(guess - left), Math.abs(guess - up), Math.abs(guess - corner)];
  if (a <= b && a <= c) return left;
  return b <= c ? up : corner;
}

/** Write the samples of a line at their places, of 16 bits the upper 8. */
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

/** RGB of samples, and whether some of it was transparent. */
function colours({ width, height, depth, color, channels }, samples, chunks) {
  const alpha = chunks.find(({ type }) => type === 'tRNS')?.data;
  const palette = color === 3 ? paletteOf(chunks) : undefined;
  const grey = depth < 8 ? 255 / ((1 << depth) - 1) : 1;
  const data = new Uint8Array(3 * width * height);
  const plain = channels < 3;
  const clear = alpha && !palette ? clearColour(alpha, depth) : undefined;
  let transparent = false;
  for (let pixel = 0; pixel < width * height; pixel += 1) {
    const from = pixel * channels;
    const first = samples[from];
    if (palette && 3 * first >= palette.length) throw damaged('a colour that its palette lacks');
    for (let c = 0; c < 3; c += 1) {
      const sample = plain ? first : samples[from + c];
      data[3 * pixel + c] = palette ? palette[3 * sample + c] : sample * grey;
    }
    if (transparent) continue;
    if (color === 4 || color === 6) transparent = samples[from + channels - 1] < 255;
    else if (clear) transparent = clear.every((sample, c) => samples[from + c] === sample);
    else if (alpha) transparent = (alpha[first] ?? 255) < 255;
  }
  return { data, transparent };
}

/** The samples of the colour that is transparent, as pixels' are kept: 16 bits each are stored. */
function clearColour(alpha, depth) {
  const kept = depth === 16 ? 0 : 1;
  return Array.from({ length: alpha.length >> 1 }, (_, c) => alpha[2 * c + kept]);
}

function paletteOf(chunks) {
  const first = chunks.findIndex(({ type }) => type === 'IDAT');
  const stored = chunks.slice(0, first).filter(({ type }) => type === 'PLTE');
  const { data } = stored.at(-1) ?? {};
  if (!data?.length || data.length > 768 || data.length % 3) throw damaged('its palette');
  return data;
}

/** How the image is to be turned. */
async function direction(chunks) {
  const exif = chunks.filter(({ type }) => type === 'eXIf').at(-1)?.data;
  const texts = exif && orientation(exif) !== undefined ? {} : await textsOf(chunks);
  const profile = texts['Raw profile type exif'];
  const found = exif ?? (profile === undefined ? undefined : fromHex(profile));
  const own = found ? orientation(found) : undefined;
  return own ?? orientationOfXmp(texts['XML:com.adobe.xmp'] ?? '') ?? 1;
}

/** Bytes of a text profile as ImageMagick writes it: three lines, then hexadecimal digits. */
function fromHex(text) {
  const digits = text.split('\n').slice(3).join('').replace(/\s/g, '');
  if (!/^([0-9a-fA-F]{2})*$/.test(digits)) throw damaged('its EXIF data');
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** The texts of a file that may say how it is turned, by their keys. */
async function textsOf(chunks) {
  const found = {};
  for (const { type, data } of chunks) {
    const end = data.indexOf(0);
    const key = latin1(data.subarray(0, end < 0 ? data.length : end));
    if (!['Raw profile type exif', 'XML:com.adobe.xmp'].includes(key)) continue;
    const rest = data.subarray(end + 1);
    if (type === 'tEXt') found[key] = latin1(rest);
    if (type === 'zTXt') found[key] = latin1(await text(rest.subarray(1)));
    if (type === 'iTXt') found[key] = latin1(await international(rest));
  }
  return found;
}

async function international(rest) {
  const language = rest.indexOf(0, 2);
  const content = rest.subarray(rest.indexOf(0, language + 1) + 1);
  return rest[0] ? text(content) : content;
}

async function text(packed) {
  const found = await unpacked([packed], MAX_TEXT + 1, false);
  if (found.length > MAX_TEXT) throw damaged('a text in it is too long');
  return found;
}

function latin1(bytes) {
  let found = '';
  for (const byte of bytes) found += String.fromCharCode(byte);
  return found;
}
