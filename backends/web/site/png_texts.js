// Reads the image orientation from texts and EXIF data of a PNG file as Pillow does, with the same
// rules as the reference (compiler/data/png_file.py).

import { readExifOrientation, readXmpOrientation } from './exif.js';
import { createDamageError, inflate } from './png_chunks.js';

const MAX_UNPACKED = (1 << 20) - 1; // bytes of a decompressed text or profile
const MAX_TEXTS = 1 << 26; // bytes of all texts
const RESERVED = ['interlace', 'bbox', 'transparency', 'default_image', 'xmp'];
const PROFILE = 'Raw profile type exif';
const XMP = 'XML:com.adobe.xmp';

/** Return the orientation of the image. */
export async function readOrientation(chunks) {
  const sources = { exif: undefined, profile: undefined, xmp: '', xmpBytes: '' };
  let totalLength = 0;
  for (const { type, data } of chunks) {
    if (type === 'eXIf') sources.exif = checkExif(data);
    if (type === 'iCCP') await decompress(type, data.subarray(data.indexOf(0) + 1));
    if (['tEXt', 'zTXt', 'iTXt'].includes(type)) totalLength += await readText(type, data, sources);
  }
  if (totalLength > MAX_TEXTS) throw createDamageError('its text chunks are too long');
  const exif = sources.exif ?? sources.profile;
  const xmp = sources.xmp || sources.xmpBytes;
  return (exif && readExifOrientation(exif)) ?? readXmpOrientation(xmp) ?? 1;
}

/** Check EXIF data and return them. */
function checkExif(exif) {
  readExifOrientation(exif);
  return exif;
}

/** Store EXIF or XMP data of a text chunk in `sources`; return the length of the text. */
async function readText(type, data, sources) {
  const end = data.indexOf(0);
  const key = decodeLatin1(end < 0 ? data : data.subarray(0, end));
  let content = end < 0 ? new Uint8Array() : data.subarray(end + 1);
  let readable = true;
  if (type === 'zTXt' && content.length) content = await decompress(type, content);
  if (type === 'iTXt') {
    const international = await readInternational(content);
    if (!international) return 0;
    ({ content, readable } = international);
  }
  if (RESERVED.includes(key) || (key === 'exif' && type !== 'tEXt')) {
    throw createDamageError(`it has a text chunk with the reserved key ${key}`);
  }
  if (key === 'exif') sources.exif = checkExif(content);
  if (key === PROFILE) {
    const profile = checkExif(parseHex(decodeLatin1(content)));
    if (readable) sources.profile = profile;
  }
  if (key === XMP) {
    if (type === 'iTXt') sources.xmpBytes = decodeLatin1(content);
    if (readable) sources.xmp = decodeLatin1(content);
  }
  return content.length;
}

/** Return the text of an iTXt chunk and whether all of it is UTF-8; undefined if it is ignored. */
async function readInternational(data) {
  const languageEnd = data.indexOf(0, 2);
  const translationEnd = languageEnd < 0 ? -1 : data.indexOf(0, languageEnd + 1);
  if (data.length < 2 || translationEnd < 0 || (data[0] && data[1])) return undefined;
  const encodedText = data.subarray(translationEnd + 1);
  const content = data[0] ? await decompressText('iTXt', encodedText) : encodedText;
  return { content, readable: isUtf8(data.subarray(2, translationEnd)) && isUtf8(content) };
}

function isUtf8(bytes) {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

/** Decompress data; the first byte is the compression method. */
async function decompress(type, data) {
  if (!data.length || data[0]) {
    throw createDamageError(`chunk ${type} uses an unknown compression method`);
  }
  return decompressText(type, data.subarray(1));
}

async function decompressText(type, packed) {
  if (!packed.length) return packed;
  return inflate([packed], MAX_UNPACKED, `the compressed data of chunk ${type}`);
}

/** Return the bytes of an ImageMagick text profile: three lines, then hexadecimal digits. */
function parseHex(text) {
  const digits = text.split('\n').slice(3).join('');
  if (!/^[ \t\r\f\v]*([0-9a-fA-F]{2}[ \t\r\f\v]*)*$/.test(digits)) {
    throw createDamageError('its EXIF data are invalid');
  }
  return Uint8Array.from(digits.match(/[0-9a-fA-F]{2}/g) ?? [], (pair) => parseInt(pair, 16));
}

function decodeLatin1(bytes) {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}
