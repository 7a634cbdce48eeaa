// Decodes image files to RGB pixels. The page's PNG decoder returns the same bytes as Pillow. The
// browser decodes JPEG, WebP and BMP, so values may differ from Pillow's by a few units. An image
// is {height, width, data, remarks, exact}.

import { checkSize } from './contract.js';
import { ImageError } from './errors.js';
import { decodePng, isPng } from './png.js';

const MAX_BYTES = 1 << 28;
const BROWSER_REMARK = 'Decoded by the browser: pixel values may differ by a few units';

/** Return the pixels of an image file from its bytes. */
export async function decode(bytes) {
  if (bytes.length > MAX_BYTES) throw new ImageError('The file is larger than 256 MiB');
  if (isPng(bytes)) return { ...(await decodePng(bytes)), exact: true };
  const mimeType = detectType(bytes);
  if (!mimeType) throw new ImageError('Unknown image format: use PNG, JPEG, WebP or BMP');
  if (isAnimated(mimeType, bytes)) {
    throw new ImageError('Animations are not supported: save one frame as an image');
  }
  if (typeof createImageBitmap === 'undefined') {
    throw new ImageError(`There is no decoder for ${mimeType} here: save the image as PNG`);
  }
  const encoded = mimeType === 'image/jpeg' ? stripProfile(bytes) : bytes;
  const image = await decodeWithBrowser(new Blob([encoded], { type: mimeType }));
  return { ...image, remarks: [BROWSER_REMARK], exact: false };
}

/** Return the pixels of a camera frame or of another source that a canvas can draw. */
export function readBitmap(bitmap) {
  const { width, height } = bitmap;
  checkSize(height, width);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d', { willReadFrequently: true, colorSpace: 'srgb' });
  context.drawImage(bitmap, 0, 0);
  bitmap.close?.();
  return dropAlpha(context.getImageData(0, 0, width, height));
}

async function decodeWithBrowser(blob) {
  const options = {
    imageOrientation: 'from-image', premultiplyAlpha: 'none', colorSpaceConversion: 'none',
  };
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, options);
  } catch {
    throw new ImageError(
      'The browser cannot decode the image: it is damaged or its format is unsupported',
    );
  }
  return readBitmap(bitmap);
}

function dropAlpha({ width, height, data }) {
  const rgb = new Uint8Array(3 * width * height);
  for (let source = 0, target = 0; source < data.length; source += 4, target += 3) {
    // A canvas does not keep the color of transparent pixels; Pillow returns the stored color.
    if (data[source + 3] !== 255) {
      throw new ImageError('Transparent pixels are only supported in PNG: save the image as PNG');
    }
    rgb[target] = data[source];
    rgb[target + 1] = data[source + 1];
    rgb[target + 2] = data[source + 2];
  }
  return { width, height, data: rgb };
}

const decodeAscii = (bytes, from, end) => String.fromCharCode(...bytes.subarray(from, end));

function detectType(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return 'image/jpeg';
  const isWebp = decodeAscii(bytes, 0, 4) === 'RIFF' && decodeAscii(bytes, 8, 12) === 'WEBP';
  if (isWebp) return 'image/webp';
  if (decodeAscii(bytes, 0, 2) === 'BM') return 'image/bmp';
  return undefined;
}

/** Return whether the header of a WebP file marks it as an animation. */
function isAnimated(mimeType, bytes) {
  return mimeType === 'image/webp' && decodeAscii(bytes, 12, 16) === 'VP8X' && (bytes[20] & 2) > 0;
}

/** Remove the color profile of a JPEG file: Pillow does not apply it, some browsers do. */
export function stripProfile(bytes) {
  const parts = [bytes.subarray(0, 2)];
  let offset = 2;
  while (offset + 4 <= bytes.length && bytes[offset] === 0xff && bytes[offset + 1] !== 0xda) {
    const end = offset + 2 + bytes[offset + 2] * 256 + bytes[offset + 3];
    const name = decodeAscii(bytes, offset + 4, offset + 15);
    const isProfile = bytes[offset + 1] === 0xe2 && name === 'ICC_PROFILE';
    if (!isProfile) parts.push(bytes.subarray(offset, end));
    offset = end;
  }
  return concatenate([...parts, bytes.subarray(offset)]);
}

function concatenate(parts) {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    bytes.set(part, offset);
    offset += part.length;
  }
  return bytes;
}
