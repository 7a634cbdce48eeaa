"""Quantises with ai-edge-quantizer: ai_edge_guest.py MODEL IMAGES CONTRACT RESULT."""

import sys
from pathlib import Path

import guest_images
from ai_edge_quantizer import quantizer, recipe


def main() -> None:
    """Quantise by the recipe for 8-bit weights and activations, with floats at the ends."""
    model, folder, contract, result = sys.argv[1:]
    made = quantizer.Quantizer(bytearray(Path(model).read_bytes()), recipe.static_wi8_ai8())
    # Release 0.10 goes through them twice, first to count them.
    images = [
        {name: x.transpose(0, 2, 3, 1) for name, x in feed.items()}
        for feed in guest_images.feeds(folder, contract)
    ]
    seen = made.calibrate({"serving_default": images})
    Path(result).write_bytes(made.quantize(seen).quantized_model)


if __name__ == "__main__":
    main()
