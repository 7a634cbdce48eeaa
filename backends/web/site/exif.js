// Orientation of an image from EXIF, or from XMP if EXIF has none, as Pillow reads them. Images are
// {height, width, data} with three bytes per pixel.

import { ImageError } from './errors.js';

const ORIENTATION = 0x0112;
const SHORT = 3;
const LONG = 4;
const PREFIX = 'Exif\0\0';
// Bytes per number of each TIFF type.
const SIZES = {
  1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8,
};

/**
 * Return the orientation in EXIF data; undefined if there is none. Invalid data are refused by the
 * same rules as in the reference (compiler/data/png_exif.py).
 */
export function orientation(exif) {
  const data = withoutPrefix(exif);
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
  const order = view.getUint32(0);
  if (order !== 0x49492a00 && order !== 0x4d4d002a) throw new RangeError('the byte order is missing');
  const little = order === 0x49492a00;
  const start = view.getUint32(4, little);
  const count = view.getUint16(start, little);
  const orientations = [];
  for (let entry = start + 2; entry < start + 2 + 12 * count; entry += 12) {
    const type = view.getUint16(entry + 2, little);
    const length = view.getUint32(entry + 4, little);
    const size = (SIZES[type] ?? 0) * length;
    if (view.getUint32(entry + 8, little) + size > view.byteLength && size > 4) {
      throw new RangeError('an entry is beyond the end');
    }
    if (view.getUint16(entry, little) === ORIENTATION) {
      if (length !== 1) throw new RangeError('several orientations');
      orientations.push(read(view, entry + 8, type, little));
    }
  }
  if (orientations.length > 1) throw new RangeError('several orientations');
  return orientations[0];
}

function read(view, place, type, little) {
  if (type === SHORT) return view.getUint16(place, little);
  if (type === LONG) return view.getUint32(place, little);
  throw new RangeError('the orientation is not a number');
}

function withoutPrefix(exif) {
  const begins = String.fromCharCode(...exif.subarray(0, PREFIX.length)) === PREFIX;
  return begins ? exif.subarray(PREFIX.length) : exif;
}

/** Return the orientation in an XMP text; undefined if there is none. */
export function orientationOfXmp(text) {
  const found = /tiff:Orientation(="|>)([0-9])/.exec(text);
  return found ? Number(found[2]) : undefined;
}

/** Return an image turned by its orientation; values other than 2 to 8 change nothing. */
export function turned(image, how) {
  const { height: h, width: w } = image;
  switch (how) {
    case 2:
      return moved(image, h, w, (x, y) => y * w + (w - 1 - x));
    case 3:
      return moved(image, h, w, (x, y) => (h - 1 - y) * w + (w - 1 - x));
    case 4:
      return moved(image, h, w, (x, y) => (h - 1 - y) * w + x);
    case 5:
      return moved(image, w, h, (x, y) => x * w + y);
    case 6:
      return moved(image, w, h, (x, y) => (h - 1 - x) * w + y);
    case 7:
      return moved(image, w, h, (x, y) => (h - 1 - x) * w + (w - 1 - y));
    case 8:
      return moved(image, w, h, (x, y) => x * w + (w - 1 - y));
    default:
      return image;
  }
}

function moved({ data }, height, width, place) {
  const result = new Uint8Array(data.length);
  let at = 0;
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const from = 3 * place(x, y);
      result[at] = data[from];
      result[at + 1] = data[from + 1];
      result[at + 2] = data[from + 2];
      at += 3;
    }
  }
  return { height, width, data: result };
}
