"""Time how quickly photographs are read for training, relative to Pillow's decoding.

    python tools/bench/reading.py [--size 1024x768] [--to 224] [--images 64] [--runs 5]

Prints JSON: images per second of one thread's CPU time, medians of alternating runs in one process.
`decode` is `Image.open(file).convert("RGB")` and its pixels as an array. `levels` is the work of
`tcc train` for each file: check, decode, resize by the preprocessing. `set` is the complete work,
from the list of files, with reading and hashing them, to the pixels for training. `ratio` is `set`
relative to `decode`. The photographs are synthetic: smooth colours with some noise, JPEG of quality
90.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import PIL
from PIL import Image

from tcc.compiler.data import dataset, pillow_resampling
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.preprocess import PixelResize, Preprocess
from tcc.compiler.ir.types import TensorType
from tcc.compiler.train.pixel_store import DecodeOptions, decode_images


def main() -> None:
    """Run the benchmark and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", default="1024x768")
    parser.add_argument("--to", type=int, default=224)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    contract = Preprocess(resize=PixelResize((arguments.to, arguments.to)))
    source = Input("image", TensorType((3, arguments.to, arguments.to)), contract)
    with TemporaryDirectory() as folder:
        files = [
            _draw_photograph(Path(folder), number, (width, height))
            for number in range(arguments.images)
        ]
        labelled = [(file, "a") for file in files]
        data_set = dataset.load_files(labelled)
        options = DecodeOptions(Path(folder))
        rates = _measure_rates(
            {
                "decode": lambda: [_decode_image(file) for file in files],
                "levels": lambda: [
                    data_set.read_pixels(index, source) for index in range(len(data_set))
                ],
                "set": lambda: (
                    decode_images(dataset.load_files(labelled), source, ("a",), options).names
                ),
            },
            arguments.images,
            arguments.runs,
        )
    header = {
        "size": arguments.size,
        "to": arguments.to,
        "images": arguments.images,
        "pillow": PIL.__version__,
    }
    ratio = round(rates["set"] / rates["decode"], 3)
    equal = pillow_resampling.is_equal()
    print(json.dumps({**header, "pillow_resizes": equal, **rates, "ratio": ratio}, indent=2))


def _draw_photograph(folder: Path, number: int, size: tuple[int, int]) -> Path:
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
    pixels = (smooth + random.integers(-6, 7, smooth.shape)).clip(0, 255).astype(np.uint8)
    path = folder / f"{number}.jpg"
    Image.fromarray(pixels).save(path, quality=90)
    return path


def _decode_image(path: Path) -> object:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))


def _measure_rates(
    readers: dict[str, Callable[[], Sequence[object]]], images: int, runs: int
) -> dict[str, float]:
    """Return images per second of CPU time by each reader; the first run of each is a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(runs + 1):
        for name, read_images in readers.items():
            begin = time.process_time()
            read_images()
            seconds[name].append(time.process_time() - begin)
    return {
        name: round(images / statistics.median(times[1:]), 1) for name, times in seconds.items()
    }


if __name__ == "__main__":
    main()
