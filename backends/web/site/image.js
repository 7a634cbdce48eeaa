// Decodes image files to RGB pixels. The page's own PNG decoder gives the same bytes as Pillow. The
// browser decodes JPEG, WebP and BMP, so values may differ from Pillow's by a few units. An image
// is {height, width, data, remarks, exact}.

import { checkSize } from './contract.js';
import { ImageError } from './errors.js';
import { decodePng, isPng } from './png.js';

const MAX_BYTES = 1 << 28;
const BY_THE_BROWSER = 'Decoded by the browser: pixel values may differ by a few units';

/** Return the pixels of an image file, given its bytes. */
export async function decode(bytes) {
  if (bytes.length > MAX_BYTES) throw new ImageError('The file is larger than 256 MiB');
  if (isPng(bytes)) return { ...(await decodePng(bytes)), exact: true };
  const kind = kindOf(bytes);
  if (!kind) throw new ImageError('Unknown image format: use PNG, JPEG, WebP or BMP');
  if (isAnimated(kind, bytes)) {
    throw new ImageError('Animations are not supported: save one frame as an image');
  }
  if (typeof createImageBitmap === 'undefined') {
    throw new ImageError(`There is no decoder for ${kind} here: save the image as PNG`);
  }
  const plain = kind === 'image/jpeg' ? withoutProfile(bytes) : bytes;
  const image = await byBrowser(new Blob([plain], { type: kind }));
  return { ...image, remarks: [BY_THE_BROWSER], exact: false };
}

/** Return the pixels of a camera frame, or of anything else that a canvas can draw. */
export function ofBitmap(bitmap) {
  const { width, height } = bitmap;
  checkSize(height, width);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d', { willReadFrequently: true, colorSpace: 'srgb' });
  context.drawImage(bitmap, 0, 0);
  bitmap.close?.();
  return withoutAlpha(context.getImageData(0, 0, width, height));
}

async function byBrowser(blob) {
  const options = {
    imageOrientation: 'from-image', premultiplyAlpha: 'none', colorSpaceConversion: 'none',
  };
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, options);
  } catch {
    throw new ImageError('The browser cannot decode the image: it is damaged or its format is unsupported');
  }
  return ofBitmap(bitmap);
}

function withoutAlpha({ width, height, data }) {
  const found = new Uint8Array(3 * width * height);
  for (let from = 0, at = 0; from < data.length; from += 4, at += 3) {
    // A canvas does not keep the color of transparent pixels; Pillow returns the stored color.
    if (data[from + 3] !== 255) {
      throw new ImageError('Transparent pixels are only supported in PNG: save the image as PNG');
    }
    found[at] = data[from];
    found[at + 1] = data[from + 1];
    found[at + 2] = data[from + 2];
  }
  return { width, height, data: found };
}

const text = (bytes, from, end) => String.fromCharCode(...bytes.subarray(from, end));

function kindOf(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return 'image/jpeg';
  if (text(bytes, 0, 4) === 'RIFF' && text(bytes, 8, 12) === 'WEBP') return 'image/webp';
  if (text(bytes, 0, 2) === 'BM') return 'image/bmp';
  return undefined;
}

/** Whether the header of a WebP file marks it as an animation. */
function isAnimated(kind, bytes) {
  return kind === 'image/webp' && text(bytes, 12, 16) === 'VP8X' && (bytes[20] & 2) > 0;
}

/** Remove the color profile of a JPEG file: Pillow does not apply it, some browsers do. */
export function withoutProfile(bytes) {
  const parts = [bytes.subarray(0, 2)];
  let at = 2;
  while (at + 4 <= bytes.length && bytes[at] === 0xff && bytes[at + 1] !== 0xda) {
    const end = at + 2 + bytes[at + 2] * 256 + bytes[at + 3];
    const profile = bytes[at + 1] === 0xe2 && text(bytes, at + 4, at + 15) === 'ICC_PROFILE';
    if (!profile) parts.push(bytes.subarray(at, end));
    at = end;
  }
  return joined([...parts, bytes.subarray(at)]);
}

function joined(parts) {
  const found = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    found.set(part, at);
    at += part.length;
  }
  return found;
}
