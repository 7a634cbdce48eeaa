"""Run ncnn twice in the emulated Python: a warm-up, and a run between opened marker files.

    ncnn_guest.py PARAM BIN WIDTH HEIGHT PIXELS|- FORM [MEAN STD]

PIXELS are bytes: red, green and blue of each pixel. With `-`, the input is constant. FORM is fp32,
or fp16 storage as ncnn's default. MEAN and STD are comma-separated numbers for pixels from 0 to
255. Without them, the pixels are divided by their maximum. Prints the outputs.
"""

import os
import sys
from typing import Any

import ncnn
import numpy as np

CHANNELS = 3
ChannelStatistics = list[list[float]]


def main() -> None:
    """Load the network, warm up, run once more and exit at once."""
    param, binary, width, height, pixels, form = sys.argv[1:7]
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.lightmode = True
    if form == "fp32":
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.load_param(param)
    net.load_model(binary)
    size = int(width), int(height)
    image = None
    if pixels != "-":
        image = np.fromfile(pixels, np.uint8).reshape(size[1], size[0], CHANNELS)
    statistics = [[float(number) for number in argument.split(",")] for argument in sys.argv[7:9]]
    for mark in (skip_mark, open_mark):
        mark()
        source = ncnn.Mat(*size, CHANNELS)
        source.fill(0.01)
        if image is not None:
            source = prepare_input(image, size, statistics)
        mark()
        extractor = net.create_extractor()
        extractor.input(net.input_names()[0], source)
        failed, out = extractor.extract(net.output_names()[-1])
        mark()
        logits = np.array(out).reshape(-1)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        mark()
    print(failed, *logits[:8])
    sys.stdout.flush()
    os._exit(0)


def prepare_input(image: Any, size: tuple[int, int], statistics: ChannelStatistics) -> Any:
    """Return the input of an image: (pixel - mean) / std, by ncnn's own functions."""
    source = ncnn.Mat.from_pixels(image, ncnn.Mat.PixelType.PIXEL_RGB, *size)
    mean, std = statistics or ([0.0] * CHANNELS, [float(image.max())] * CHANNELS)
    source.substract_mean_normalize(mean, [1 / deviation for deviation in std])
    return source


def skip_mark() -> None:
    """Replace `open_mark` in the warm-up run."""


def open_mark() -> None:
    """Open a file; the counting plugin treats this as a marker."""
    os.close(os.open(os.devnull, os.O_RDONLY))


main()
