"""Quantize with ai-edge-quantizer: ai_edge_guest.py MODEL IMAGES CONTRACT RESULT."""

import sys
from pathlib import Path

import guest_images
from ai_edge_quantizer import quantizer, recipe


def main() -> None:
    """Quantize by the recipe for 8-bit weights and activations, with float32 I/O."""
    model, folder, contract, output_file = sys.argv[1:]
    int8_quantizer = quantizer.Quantizer(
        bytearray(Path(model).read_bytes()), recipe.static_wi8_ai8()
    )
    # Release 0.10 iterates over the feeds twice, first to count them.
    images = [
        {name: tensor.transpose(0, 2, 3, 1) for name, tensor in feed.items()}
        for feed in guest_images.read_feeds(folder, contract)
    ]
    statistics = int8_quantizer.calibrate({"serving_default": images})
    Path(output_file).write_bytes(int8_quantizer.quantize(statistics).quantized_model)


if __name__ == "__main__":
    main()
