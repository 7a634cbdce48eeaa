"""The input contract in JavaScript gives the tensors of the reference, bit for bit."""

from itertools import product

import numpy as np
import pytest
from web_node import compute_tensors, needs_node

from tcc.compiler.ir import preprocess
from tcc.compiler.ir.preprocess import COLORS, MODES, SCALES, PixelResize, Preprocess
from tcc.compiler.support import json_records
from tcc.compiler.support.diagnostics import UserError

SIZES = ((1, 1), (7, 5), (16, 16), (33, 61), (97, 40), (200, 3))
RESIZES = (
    None,
    *(PixelResize((h, w), mode) for h, w in ((16, 16), (9, 31), (64, 5)) for mode in MODES),
)
CROPS = (None, (16, 16), (11, 8), (70, 90))
NORMS = (((0.0,), (1.0,)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.1,), (3e-3,)))


def generate_contracts():
    """Yield contracts of every color, resize, crop and scale, raw and not."""
    for color, resize, crop, scale, raw in product(COLORS, RESIZES, CROPS, SCALES, (False, True)):
        if raw and scale != "255":
            continue
        for mean, std in NORMS[: 1 if raw else None]:
            if color == "gray" and len(mean) > 1:
                continue
            yield Preprocess(color, resize, crop, mean, std, raw, scale)


def compute_shape(contract, image):
    target_shape = preprocess.compute_output_shape(contract)
    return target_shape or (contract.channels, *image.shape[:2])


@pytest.mark.slow
@needs_node
def test_preprocessing_is_bit_exact(tmp_path):
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]
    images += [np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)]
    all_contracts = list(generate_contracts())
    # Each contract runs on some images in turn. All images run with each resize mode.
    pairs = [
        (c, images[(3 * i + k) % len(images)])
        for i, c in enumerate(all_contracts)
        for k in range(3)
    ]
    cases = [(json_records.encode(c), compute_shape(c, image), image) for c, image in pairs]
    combinations = set()
    for (contract, image), tensor in zip(pairs, compute_tensors(tmp_path, cases), strict=True):
        reference = preprocess.apply(contract, image, compute_shape(contract, image))
        assert tensor.view(np.uint32).tolist() == reference.view(np.uint32).tolist(), (
            contract,
            image.shape,
        )
        combinations.add((contract.resize, image.shape))
    assert len(cases) > 1000
    assert len(combinations) == len(RESIZES) * len({image.shape for image in images})


@needs_node
def test_images_that_the_reference_refuses_are_refused(tmp_path):
    cases = [
        (Preprocess(), (3, 4, 4), np.zeros((5, 4, 3), np.uint8), "the network takes 4x4"),
        (Preprocess(resize=PixelResize((4, 4), "cover")), (3, 4, 4), np.zeros((1, 1 << 17, 3), np.uint8), "is too large"),
    ]  # fmt: skip
    encoded_cases = [(json_records.encode(c), shape, image) for c, shape, image, _ in cases]
    for (contract, shape, image, message), refusal in zip(
        cases, compute_tensors(tmp_path, encoded_cases), strict=True
    ):
        with pytest.raises(UserError, match="image is"):
            preprocess.apply(contract, image, shape)
        assert message in refusal
