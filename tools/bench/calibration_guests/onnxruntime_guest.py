"""Quantize with ONNX Runtime: onnxruntime_guest.py MODEL IMAGES CONTRACT RESULT METHOD TYPE."""

import logging
import sys

import guest_images
import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Returns one image after another."""

    def __init__(self, folder: str, contract: str) -> None:
        self.feeds = guest_images.read_feeds(folder, contract)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next image, or None after the last."""
        return next(self.feeds, None)


def main() -> None:
    """Quantize with 8-bit activations and per-channel weights."""
    model, folder, contract, output_file, method, kind = sys.argv[1:]
    logging.getLogger().setLevel(logging.ERROR)
    quantize_static(
        model,
        output_file,
        Reader(folder, contract),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType[kind],
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[method],
    )


if __name__ == "__main__":
    main()
