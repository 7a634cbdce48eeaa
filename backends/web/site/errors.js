/** What is wrong with an image of the user's, in words for the user. */
export class ImageError extends Error {}
