// Texts and EXIF data of a PNG file, and the image orientation in them, as Pillow reads them; same
// rules as in the reference (compiler/data/png_file.py).

import { orientation, orientationOfXmp } from './exif.js';
import { damaged, inflate } from './png_chunks.js';

const MAX_UNPACKED = (1 << 20) - 1; // bytes of a decompressed text or profile
const MAX_TEXTS = 1 << 26; // bytes of all texts
const RESERVED = ['interlace', 'bbox', 'transparency', 'default_image', 'xmp'];
const PROFILE = 'Raw profile type exif';
const XMP = 'XML:com.adobe.xmp';

/** Return the orientation of the image. */
export async function direction(chunks) {
  const said = { exif: undefined, profile: undefined, xmp: '', xmpBytes: '' };
  let length = 0;
  for (const { type, data } of chunks) {
    if (type === 'eXIf') said.exif = checked(data);
    if (type === 'iCCP') await unpack(type, data.subarray(data.indexOf(0) + 1));
    if (['tEXt', 'zTXt', 'iTXt'].includes(type)) length += await readText(type, data, said);
  }
  if (length > MAX_TEXTS) throw damaged('its text chunks are too long');
  const exif = said.exif ?? said.profile;
  return (exif && orientation(exif)) ?? orientationOfXmp(said.xmp || said.xmpBytes) ?? 1;
}

/** Return EXIF data after checking them. */
function checked(exif) {
  orientation(exif);
  return exif;
}

/** Store the orientation in a text; return the length of the text. */
async function readText(type, data, said) {
  const end = data.indexOf(0);
  const key = latin1(end < 0 ? data : data.subarray(0, end));
  let rest = end < 0 ? new Uint8Array() : data.subarray(end + 1);
  let readable = true;
  if (type === 'zTXt' && rest.length) rest = await unpack(type, rest);
  if (type === 'iTXt') {
    const international = await readInternational(rest);
    if (!international) return 0;
    ({ content: rest, readable } = international);
  }
  if (RESERVED.includes(key) || (key === 'exif' && type !== 'tEXt')) {
    throw damaged(`it has a text chunk with the reserved key ${key}`);
  }
  if (key === 'exif') said.exif = checked(rest);
  if (key === PROFILE) {
    const profile = checked(fromHex(latin1(rest)));
    if (readable) said.profile = profile;
  }
  if (key === XMP) {
    if (type === 'iTXt') said.xmpBytes = latin1(rest);
    if (readable) said.xmp = latin1(rest);
  }
  return rest.length;
}

/** Return the text of iTXt, and whether all of it is UTF-8; undefined if it is ignored. */
async function readInternational(rest) {
  const language = rest.indexOf(0, 2);
  const translated = language < 0 ? -1 : rest.indexOf(0, language + 1);
  if (rest.length < 2 || translated < 0 || (rest[0] && rest[1])) return undefined;
  const stored = rest.subarray(translated + 1);
  const content = rest[0] ? await unpackText('iTXt', stored) : stored;
  return { content, readable: isUtf8(rest.subarray(2, translated)) && isUtf8(content) };
}

function isUtf8(bytes) {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
}

/** Decompress the data after the byte with the compression method. */
async function unpack(type, data) {
  if (!data.length || data[0]) throw damaged(`chunk ${type} uses an unknown compression method`);
  return unpackText(type, data.subarray(1));
}

async function unpackText(type, packed) {
  return packed.length ? inflate([packed], MAX_UNPACKED, `the compressed data of chunk ${type}`) : packed;
}

/** Return the bytes of a text profile of ImageMagick: three lines, then hexadecimal digits. */
function fromHex(text) {
  const digits = text.split('\n').slice(3).join('');
  if (!/^[ \t\r\f\v]*([0-9a-fA-F]{2}[ \t\r\f\v]*)*$/.test(digits)) throw damaged('its EXIF data are invalid');
  return Uint8Array.from(digits.match(/[0-9a-fA-F]{2}/g) ?? [], (pair) => parseInt(pair, 16));
}

function latin1(bytes) {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return text;
}
