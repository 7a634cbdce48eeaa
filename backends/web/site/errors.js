/** A problem with an image; the message is for the user. */
export class ImageError extends Error {}
