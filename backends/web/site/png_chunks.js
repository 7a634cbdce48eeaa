// Reads and checks the chunks of a PNG file. Files that decoders read in different ways are refused,
// by the same rules as in the reference (compiler/data/png_file.py). Both either read a file with
// the same pixels or refuse it.

import { checkSize } from './contract.js';
import { ImageError } from './errors.js';

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
const CRITICAL = ['IHDR', 'PLTE', 'IDAT'];
const ANIMATION = ['acTL', 'fcTL', 'fdAT'];
const LEAST = { gAMA: 4, cHRM: 32, sRGB: 1, pHYs: 9 }; // bytes that Pillow reads

export const isPng = (bytes) => SIGNATURE.every((byte, i) => bytes[i] === byte);

export const damaged = (what) => new ImageError(`The image is damaged: ${what}`);

/** Return {header, chunks} of a file; texts, EXIF data and pixels are not checked yet. */
export function readSound(bytes) {
  const chunks = [...readChunks(bytes)];
  const header = readHeader(chunks[0]);
  if (chunks.some(({ type }) => ANIMATION.includes(type))) {
    throw new ImageError('Animations are not supported: save one frame as an image');
  }
  checkOrder(chunks, header);
  const least = { ...LEAST, tRNS: { 0: 2, 2: 6 }[header.color] ?? 0 };
  for (const { type, data } of chunks) {
    if (data.length < (least[type] ?? 0)) throw damaged(`chunk ${type} is too short`);
  }
  return { header, chunks };
}

function* readChunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = SIGNATURE.length; ; ) {
    if (at + 8 > bytes.length) throw damaged('the file ends too early');
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (!/^[A-Za-z]{4}$/.test(type)) throw damaged('the name of a chunk is invalid');
    if (type === 'IEND') return;
    if (at + 12 + length > bytes.length) throw damaged('the file ends too early');
    if (view.getUint32(at + 8 + length) !== checksum(bytes.subarray(at + 4, at + 8 + length))) {
      throw damaged(`the checksum of chunk ${type} is wrong`);
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

function readHeader(chunk) {
  if (chunk?.type !== 'IHDR' || chunk.data.length !== 13) throw damaged('the file has no header');
  const view = new DataView(chunk.data.buffer, chunk.data.byteOffset, 13);
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  const [depth, color, packing, filter, interlace] = chunk.data.subarray(8);
  if (!DEPTHS[color]?.includes(depth) || packing || filter || interlace > 1 || !width || !height) {
    throw damaged('its header is invalid');
  }
  checkSize(height, width);
  if (depth === 16 && color === 0) {
    throw new ImageError(
      '16-bit grayscale is not supported: convert the image to 8 bits and choose which values' +
        ' become black and white',
    );
  }
  return { width, height, depth, color, interlace, channels: CHANNELS[color] };
}

function checkOrder(chunks, { color }) {
  const types = chunks.map(({ type }) => type);
  if (types.lastIndexOf('IHDR') > 0) throw damaged('the file has several headers');
  const unknown = types.find((type) => /^[A-Z]/.test(type) && !CRITICAL.includes(type));
  if (unknown) throw damaged(`critical chunk ${unknown} is unknown`);
  const first = types.indexOf('IDAT');
  if (first < 0) throw damaged('the file has no pixels');
  const count = types.filter((type) => type === 'IDAT').length;
  if (types.lastIndexOf('IDAT') - first + 1 !== count) throw damaged('its IDAT chunks are not consecutive');
  if (color === 3) {
    const palette = types.indexOf('PLTE');
    const { length } = chunks[palette]?.data ?? [];
    const single = palette >= 0 && palette < first && types.lastIndexOf('PLTE') === palette;
    if (!single || !length || length > 768 || length % 3) throw damaged('its palette is missing or invalid');
  }
}

/** Decompress parts to at most `most` bytes; extra data after the stream are an error. */
export async function inflate(parts, most, what) {
  const unpacked = await inflateStream(parts, most, what);
  // Some engines ignore data after a stream. Then decompression works without the last byte too.
  const last = parts.findLastIndex((part) => part.length > 0);
  const shorter = parts.map((part, i) => (i === last ? part.subarray(0, -1) : part));
  const followed = await inflateStream(shorter, most, what).catch(() => undefined);
  if (followed) throw damaged(`extra data follow ${what}`);
  return unpacked;
}

async function inflateStream(parts, most, what) {
  const reader = new Blob(parts).stream().pipeThrough(new DecompressionStream('deflate')).getReader();
  const unpacked = [];
  let count = 0;
  for (;;) {
    const piece = await reader.read().catch(() => undefined);
    if (!piece) throw damaged(`${what} are invalid`);
    if (piece.done) return joined(unpacked, count);
    count += piece.value.length;
    if (count > most) {
      await reader.cancel().catch(() => {});
      throw damaged(`${what} are too long`);
    }
    unpacked.push(piece.value);
  }
}

function joined(parts, count) {
  const whole = new Uint8Array(count);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
