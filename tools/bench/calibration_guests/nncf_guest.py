"""Quantize with NNCF: nncf_guest.py MODEL IMAGES CONTRACT RESULT."""

import logging
import sys

import guest_images
import nncf
import onnx


def main() -> None:
    """Quantize with NNCF's defaults on all images."""
    model, folder, contract, output_file = sys.argv[1:]
    nncf.set_log_level(logging.ERROR)
    images = list(guest_images.read_feeds(folder, contract))
    int8_model = nncf.quantize(onnx.load(model), nncf.Dataset(images), subset_size=len(images))
    onnx.save(int8_model, output_file)


if __name__ == "__main__":
    main()
