"""Read images of the network's size for the peers' programs, and convert them to its input."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def read_feeds(folder: str, contract: str) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Yield a model's input for each image: (1, 3, height, width) by name.

    The contract is JSON: the input's name, the divisor of pixels, and the mean and std to
    normalize.
    """
    input_contract = json.loads(contract)
    mean, std = (np.array(input_contract[name], np.float32) for name in ("mean", "std"))
    for path in sorted(Path(folder).iterdir()):
        with Image.open(path) as image:
            image_pixels = np.asarray(image.convert("RGB"))
        # Without a divisor in the contract, divide by the image's own maximum.
        divisor = input_contract.get("divisor") or max(int(image_pixels.max()), 1)
        pixels = (image_pixels.astype(np.float32) / np.float32(divisor) - mean) / std
        yield {input_contract["name"]: np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])}
