// The camera: a stream that ends when the page is hidden, and its frames.

/** Whether a browser lets this page ask for the camera: on localhost and over https. */
export const isPossible = () => globalThis.isSecureContext && !!navigator.mediaDevices?.getUserMedia;

export class Camera {
  constructor(video) {
    this.video = video;
  }

  async start() {
    const video = { facingMode: { ideal: 'environment' } };
    this.video.srcObject = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    await this.video.play();
  }

  /** What it sees now, at its full size. */
  frame() {
    return createImageBitmap(this.video, { colorSpaceConversion: 'none' });
  }

  stop() {
    for (const track of this.video.srcObject?.getTracks() ?? []) track.stop();
    this.video.srcObject = null;
  }
}
