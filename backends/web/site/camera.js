// The camera: its stream and its frames.

/** Whether the browser allows this page to use the camera: on localhost or over HTTPS. */
export const isSupported = () =>
  globalThis.isSecureContext && !!navigator.mediaDevices?.getUserMedia;

export class Camera {
  constructor(video) {
    this.video = video;
  }

  async start() {
    const video = { facingMode: { ideal: 'environment' } };
    this.video.srcObject = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    await this.video.play();
  }

  /** Return the current frame at full size. */
  captureFrame() {
    return createImageBitmap(this.video, { colorSpaceConversion: 'none' });
  }

  stop() {
    for (const track of this.video.srcObject?.getTracks() ?? []) track.stop();
    this.video.srcObject = null;
  }
}
