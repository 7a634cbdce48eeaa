"""Synthetic slides whose content is known for every pixel."""

import numpy as np
from safetensors.numpy import save_file

SPEC = """\
tcc: 1
name: colour
input:
  image: {shape: [3, 8, 8], preprocess: {resize: {size: [8, 8], mode: stretch}}}
graph:
  - global_avg_pool
  - flatten
  - linear: {units: 2}
output:
  logits: {activation: softmax, labels: [normal, tumour]}
"""
PAPER, PINK, PURPLE = (243, 243, 244), (205, 120, 170), (110, 60, 140)
"""Background color and two tissue colors."""


def draw_pixels(width, height, *areas):
    """Return white pixels with colored rectangles: (x0, y0, x1, y1, color)."""
    pixels = np.full((height, width, 3), PAPER, np.uint8)
    for x0, y0, x1, y1, colour in areas:
        pixels[y0:y1, x0:x1] = colour
    return pixels


def write(path, pixels, mpp=0.5, levels=1, tile=64, *, big=False):
    """Write pixels as a tiled TIFF or BigTIFF file with pyramid levels, each half the size."""
    import tifffile

    unit = {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"} if mpp else {}
    with tifffile.TiffWriter(path, bigtiff=big) as file:
        for level in range(levels):
            small = pixels[:: 2**level, :: 2**level]
            tags = unit if level == 0 else {"subfiletype": 1}
            file.write(
                small, photometric="rgb" if pixels.ndim == 3 else "minisblack",
                tile=(tile, tile), compression="zlib", metadata=None, **tags,
            )  # fmt: skip
    return path


def build_colour_bundle(tcc, home):
    """Build a network that classifies purple as tumour from the red channel."""
    (home / "colour.yaml").write_text(SPEC)
    weight = np.array([[0, 0, 0], [-60, 0, 0]], np.float32)
    bias = np.array([0, 60 * 160 / 255], np.float32)
    save_file({"linear.weight": weight, "linear.bias": bias}, home / "w.safetensors")
    arguments = ("colour.yaml", "--weights", "w.safetensors", "--target", "onnxruntime", "-q")
    completed = tcc("build", *arguments)
    assert completed.code == 0, completed.err
    return "build/colour-onnxruntime-fp32"
