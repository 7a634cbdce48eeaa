// Reads and checks the chunks of a PNG file. Files that decoders read in different ways are
// rejected, with the same rules as in the reference (compiler/data/png_file.py). A file that both
// accept has the same pixels in both.

import { checkSize } from './contract.js';
import { ImageError } from './errors.js';

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 };
const DEPTHS = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] };
const CRITICAL = ['IHDR', 'PLTE', 'IDAT'];
const ANIMATION = ['acTL', 'fcTL', 'fdAT'];
const MIN_LENGTHS = { gAMA: 4, cHRM: 32, sRGB: 1, pHYs: 9 }; // bytes that Pillow reads

export const isPng = (bytes) => SIGNATURE.every((byte, i) => bytes[i] === byte);

export const createDamageError = (problem) => new ImageError(`The image is damaged: ${problem}`);

/** Return {header, chunks} of a file after checks; texts, EXIF data and pixels are not checked. */
export function readCheckedChunks(bytes) {
  const chunks = [...readChunks(bytes)];
  const header = readHeader(chunks[0]);
  if (chunks.some(({ type }) => ANIMATION.includes(type))) {
    throw new ImageError('Animations are not supported: save one frame as an image');
  }
  checkOrder(chunks, header);
  const minLengths = { ...MIN_LENGTHS, tRNS: { 0: 2, 2: 6 }[header.color] ?? 0 };
  for (const { type, data } of chunks) {
    if (data.length < (minLengths[type] ?? 0)) {
      throw createDamageError(`chunk ${type} is too short`);
    }
  }
  return { header, chunks };
}

function* readChunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let offset = SIGNATURE.length; ; ) {
    if (offset + 8 > bytes.length) throw createDamageError('the file ends too early');
    const length = view.getUint32(offset);
    const type = String.fromCharCode(...bytes.subarray(offset + 4, offset + 8));
    if (!/^[A-Za-z]{4}$/.test(type)) throw createDamageError('the name of a chunk is invalid');
    if (type === 'IEND') return;
    const end = offset + 8 + length;
    if (end + 4 > bytes.length) throw createDamageError('the file ends too early');
    if (view.getUint32(end) !== computeChecksum(bytes.subarray(offset + 4, end))) {
      throw createDamageError(`the checksum of chunk ${type} is wrong`);
    }
    yield { type, data: bytes.subarray(offset + 8, end) };
    offset = end + 4;
  }
}

const CRC_TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function computeChecksum(bytes) {
  let value = -1;
  for (let i = 0; i < bytes.length; i += 1) {
    value = CRC_TABLE[(value ^ bytes[i]) & 255] ^ (value >>> 8);
  }
  return ~value >>> 0;
}

function readHeader(chunk) {
  if (chunk?.type !== 'IHDR' || chunk.data.length !== 13) {
    throw createDamageError('the file has no header');
  }
  const view = new DataView(chunk.data.buffer, chunk.data.byteOffset, 13);
  const [width, height] = [view.getUint32(0), view.getUint32(4)];
  const [depth, color, packing, filter, interlace] = chunk.data.subarray(8);
  if (!DEPTHS[color]?.includes(depth) || packing || filter || interlace > 1 || !width || !height) {
    throw createDamageError('its header is invalid');
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
  if (types.lastIndexOf('IHDR') > 0) throw createDamageError('the file has several headers');
  const unknownType = types.find((type) => /^[A-Z]/.test(type) && !CRITICAL.includes(type));
  if (unknownType) throw createDamageError(`critical chunk ${unknownType} is unknown`);
  const firstDataChunk = types.indexOf('IDAT');
  if (firstDataChunk < 0) throw createDamageError('the file has no pixels');
  const dataChunks = types.filter((type) => type === 'IDAT').length;
  if (types.lastIndexOf('IDAT') - firstDataChunk + 1 !== dataChunks) {
    throw createDamageError('its IDAT chunks are not consecutive');
  }
  if (color === 3) {
    const palette = types.indexOf('PLTE');
    const { length } = chunks[palette]?.data ?? [];
    const isSingle = types.lastIndexOf('PLTE') === palette;
    const isValid = palette >= 0 && palette < firstDataChunk && isSingle;
    if (!isValid || !length || length > 768 || length % 3) {
      throw createDamageError('its palette is missing or invalid');
    }
  }
}

/** Decompress parts to at most `maxBytes` bytes; extra data after the stream are an error. */
export async function inflate(parts, maxBytes, subject) {
  const unpacked = await inflateStream(parts, maxBytes, subject);
  // Some engines ignore data after the stream. If there are any, decompression also works without
  // the last byte.
  const lastPart = parts.findLastIndex((part) => part.length > 0);
  const shortened = parts.map((part, i) => (i === lastPart ? part.subarray(0, -1) : part));
  const hasExtraData = await inflateStream(shortened, maxBytes, subject).catch(() => undefined);
  if (hasExtraData) throw createDamageError(`extra data follow ${subject}`);
  return unpacked;
}

async function inflateStream(parts, maxBytes, subject) {
  const packed = new Blob(parts).stream();
  const reader = packed.pipeThrough(new DecompressionStream('deflate')).getReader();
  const unpacked = [];
  let count = 0;
  for (;;) {
    const piece = await reader.read().catch(() => undefined);
    if (!piece) throw createDamageError(`${subject} are invalid`);
    if (piece.done) return concatenate(unpacked, count);
    count += piece.value.length;
    if (count > maxBytes) {
      await reader.cancel().catch(() => {});
      throw createDamageError(`${subject} are too long`);
    }
    unpacked.push(piece.value);
  }
}

function concatenate(parts, count) {
  const bytes = new Uint8Array(count);
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}
