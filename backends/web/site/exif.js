// The orientation of an image from EXIF, or from XMP if EXIF has none, as Pillow reads them. Images
// are {height, width, data} with three bytes per pixel.

import { ImageError } from './errors.js';

const ORIENTATION = 0x0112;
const SHORT = 3;
const LONG = 4;
const EXIF_PREFIX = 'Exif\0\0';
// Bytes per number of each TIFF type.
const TYPE_SIZES = {
  1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8,
};

/**
 * Return the orientation in EXIF data; undefined if there is none. Invalid data are rejected with
 * the same rules as in the reference (compiler/data/png_exif.py).
 */
export function readExifOrientation(exif) {
  const data = stripPrefix(exif);
  if (data.length === 0) return undefined;
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  try {
    return readDirectory(view);
  } catch (error) {
    if (error instanceof RangeError) {
      throw new ImageError('The image is damaged: its EXIF data are invalid');
    }
    throw error;
  }
}

function readDirectory(view) {
  const byteOrder = view.getUint32(0);
  const littleEndian = byteOrder === 0x49492a00;
  if (!littleEndian && byteOrder !== 0x4d4d002a) throw new RangeError('the byte order is missing');
  const start = view.getUint32(4, littleEndian);
  const count = view.getUint16(start, littleEndian);
  const orientations = [];
  for (let entry = start + 2; entry < start + 2 + 12 * count; entry += 12) {
    const type = view.getUint16(entry + 2, littleEndian);
    const length = view.getUint32(entry + 4, littleEndian);
    const size = (TYPE_SIZES[type] ?? 0) * length;
    if (view.getUint32(entry + 8, littleEndian) + size > view.byteLength && size > 4) {
      throw new RangeError('an entry is beyond the end');
    }
    if (view.getUint16(entry, littleEndian) === ORIENTATION) {
      if (length !== 1) throw new RangeError('several orientations');
      orientations.push(readNumber(view, entry + 8, type, littleEndian));
    }
  }
  if (orientations.length > 1) throw new RangeError('several orientations');
  return orientations[0];
}

function readNumber(view, offset, type, littleEndian) {
  if (type === SHORT) return view.getUint16(offset, littleEndian);
  if (type === LONG) return view.getUint32(offset, littleEndian);
  throw new RangeError('the orientation is not a number');
}

function stripPrefix(exif) {
  const hasPrefix = String.fromCharCode(...exif.subarray(0, EXIF_PREFIX.length)) === EXIF_PREFIX;
  return hasPrefix ? exif.subarray(EXIF_PREFIX.length) : exif;
}

/** Return the orientation in an XMP text; undefined if there is none. */
export function readXmpOrientation(text) {
  const match = /tiff:Orientation(="|>)([0-9])/.exec(text);
  return match ? Number(match[2]) : undefined;
}

/** Return an image rotated or mirrored by its orientation; values other than 2 to 8 do nothing. */
export function applyOrientation(image, orientation) {
  const { height: h, width: w } = image;
  switch (orientation) {
    case 2:
      return remapPixels(image, h, w, (x, y) => y * w + (w - 1 - x));
    case 3:
      return remapPixels(image, h, w, (x, y) => (h - 1 - y) * w + (w - 1 - x));
    case 4:
      return remapPixels(image, h, w, (x, y) => (h - 1 - y) * w + x);
    case 5:
      return remapPixels(image, w, h, (x, y) => x * w + y);
    case 6:
      return remapPixels(image, w, h, (x, y) => (h - 1 - x) * w + y);
    case 7:
      return remapPixels(image, w, h, (x, y) => (h - 1 - x) * w + (w - 1 - y));
    case 8:
      return remapPixels(image, w, h, (x, y) => x * w + (w - 1 - y));
    default:
      return image;
  }
}

/** Return an image of the given size with source pixel `getSourceIndex(x, y)` at (x, y). */
function remapPixels({ data }, height, width, getSourceIndex) {
  const result = new Uint8Array(data.length);
  let target = 0;
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const source = 3 * getSourceIndex(x, y);
      result[target] = data[source];
      result[target + 1] = data[source + 1];
      result[target + 2] = data[source + 2];
      target += 3;
    }
  }
  return { height, width, data: result };
}
