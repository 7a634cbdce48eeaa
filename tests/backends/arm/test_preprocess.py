"""Preprocessing in C equals the reference and Pillow, bit for bit."""

import ctypes
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike, NDArray
from PIL import Image

from tcc.backends.arm.codegen import c_header, zig
from tcc.backends.arm.codegen.link import LINK_OPTIONS
from tcc.backends.arm.machine import MACHINES
from tcc.backends.arm.schedule import arena
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.preprocess import COLORS, SCALES, PixelResize, Preprocess, apply, plan
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.support.diagnostics import UserError

Pixels = NDArray[np.uint8]
Shape3 = tuple[int, int, int]

OK, BAD_SIZE, TOO_COSTLY = 0, 2, 9
HARNESS = """
enum { MODEL_OK, MODEL_BAD_SIZE = 2, MODEL_FAILED = 7, MODEL_TOO_COSTLY = 9 };
#define MODEL_MAX_ROWS_BYTES (1 << 28)
#include <stddef.h>
#include "preprocess.h"
int go(const preprocess_contract *contract, const uint8_t *rgb, int width, int height, void *to,
       void *scratch, size_t size)
{
    preprocess_memory memory = {scratch, size};
    return preprocess(contract, rgb, width, height, to, memory);
}
"""


class Contract(ctypes.Structure):
    _fields_ = [
        ("color", ctypes.c_int),
        ("resize", ctypes.c_int),
        ("size", ctypes.c_int * 2),
        ("crop", ctypes.c_int),
        ("input", ctypes.c_int * 3),
        ("scale", ctypes.c_int),
        ("mean", ctypes.c_float * 3),
        ("std", ctypes.c_float * 3),
        ("bytes", ctypes.c_int),
    ]


def make_contract(pre: Preprocess, shape: Shape3, dtype: DTypeLike) -> Contract:
    mode = ("stretch", "cover").index(pre.resize.mode) + 1 if pre.resize else 0
    return Contract(
        COLORS.index(pre.color),
        mode,
        pre.resize.size if pre.resize else (0, 0),
        pre.crop is not None,
        shape,
        len(SCALES) if pre.raw else SCALES.index(pre.scale),
        tuple(np.float32(pre.mean * 3)[:3]),
        tuple(np.float32(pre.std * 3)[:3]),
        dtype == np.uint8,
    )


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., int]:
    folder = tmp_path_factory.mktemp("preprocess")
    machine = next(m for m in MACHINES if m.target.name == "host")
    (folder / "preprocess.h").write_text(
        c_header.load_runtime_sources("model", frozenset())["preprocess.h"]
    )
    (folder / "harness.c").write_text(HARNESS)
    options = (
        *machine.get_zig_target("gnu"),
        *zig.COMPILE_OPTIONS,
        *LINK_OPTIONS,
        "-Werror",
        "-shared",
        "-o",
        "harness.so",
    )
    zig.run(folder, "cc", *options, "harness.c")
    function: Callable[..., int] = ctypes.CDLL(str(folder / "harness.so")).go
    return function


def run(
    function: Callable[..., int],
    pre: Preprocess,
    image: Pixels,
    shape: Shape3,
    dtype: DTypeLike = np.float32,
) -> tuple[int, NDArray[Any]]:
    """Return the status and the output, computed in exactly the memory of the arena.

    The image ends at the end of its buffer. Nothing is written around the output and the scratch
    memory.
    """
    margin, kind = 64, DType.U8 if dtype == np.uint8 else DType.F32
    size = arena.create_input_scratch(Input("x", TensorType(shape, kind), pre)).nbytes
    result = np.full(math.prod(shape) + 2 * margin, 77, dtype)
    scratch = np.full(size + 2 * margin, 99, np.uint8)
    height, width, _ = image.shape
    status = function(
        ctypes.byref(make_contract(pre, shape, dtype)),
        np.ascontiguousarray(image).ctypes.data_as(ctypes.c_void_p),
        width,
        height,
        result[margin:].ctypes.data_as(ctypes.c_void_p),
        scratch[margin:].ctypes.data_as(ctypes.c_void_p),
        ctypes.c_size_t(size),
    )
    for guarded, fill in ((result, 77), (scratch, 99)):
        assert (guarded[:margin] == fill).all()
        assert (guarded[-margin:] == fill).all()
    return status, result[margin:-margin].reshape(shape)


def make_noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


SIDES = st.integers(1, 70)
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@st.composite
def draw_cases(draw: st.DrawFn) -> tuple[Preprocess, Pixels, Shape3]:
    color = draw(st.sampled_from(COLORS))
    channels = 1 if color == "gray" else 3
    resize = draw(
        st.none() | st.builds(PixelResize, size=SIZES, mode=st.sampled_from(["stretch", "cover"]))
    )
    crop = draw(st.none() | SIZES)
    count = draw(st.sampled_from([1, channels]))
    numbers = st.lists(st.floats(0.01, 2), min_size=count, max_size=count).map(tuple)
    scale = draw(st.sampled_from(SCALES))
    pre = Preprocess(color, resize, crop, draw(numbers), draw(numbers), scale=scale)
    image = make_noise(
        draw(SIDES), draw(st.one_of(SIDES, st.integers(500, 700))), draw(st.integers(0, 9))
    )
    image //= draw(st.sampled_from([1, 1, 3, 50, 255]))
    size = crop or (resize.size if resize else image.shape[:2])
    return pre, image, (channels, *size)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=draw_cases())
def test_float_outputs_are_bit_exact(
    in_c: Callable[..., int], case: tuple[Preprocess, Pixels, Shape3]
) -> None:
    status, actual = run(in_c, *case)
    assert status == OK
    assert actual.tobytes() == apply(*case).tobytes()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=draw_cases(), dtype=st.sampled_from([np.uint8, np.float32]))
def test_quantized_outputs_are_bit_exact(
    in_c: Callable[..., int], case: tuple[Preprocess, Pixels, Shape3], dtype: DTypeLike
) -> None:
    pre, image, shape = case
    pre = replace(pre, raw=True, scale="255")
    status, actual = run(in_c, pre, image, shape, dtype)
    assert status == OK
    assert np.array_equal(actual, apply(pre, image, shape))


@pytest.mark.slow
@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize(("height", "width"), [(1, 65536), (65536, 1), (2, 65535), (1, 1)])
@pytest.mark.parametrize("to", [(1, 1), (3, 2), (2, 301)])
def test_the_longest_images_fit_into_the_arena(
    in_c: Callable[..., int], color: str, height: int, width: int, to: tuple[int, int]
) -> None:
    pre, image = Preprocess(color, PixelResize(to)), make_noise(height, width)
    shape = (pre.channels, *to)
    status, actual = run(in_c, pre, image, shape)
    assert status == OK
    assert actual.tobytes() == apply(pre, image, shape).tobytes()


@pytest.mark.parametrize(
    ("height", "width", "to"),
    [(512, 512, (224, 224)), (450, 601, (224, 224)), (37, 53, (96, 101)), (1, 9, (5, 3))],
)
def test_resize_equals_pillow(
    in_c: Callable[..., int], height: int, width: int, to: tuple[int, int]
) -> None:
    image = make_noise(height, width)
    # one axis per call: the order depends on the Pillow version
    across = Image.fromarray(image).resize((to[1], height), Image.Resampling.BILINEAR)
    resized = np.asarray(across.resize((to[1], to[0]), Image.Resampling.BILINEAR))
    status, actual = run(in_c, Preprocess("rgb", PixelResize(to)), image, (3, *to))
    assert status == OK
    assert np.array_equal(np.round(actual * 255).astype(np.uint8).transpose(1, 2, 0), resized)


def test_a_wrong_size_is_refused_without_resize(
    in_c: Callable[..., int],
) -> None:
    assert run(in_c, Preprocess("rgb"), make_noise(8, 9), (3, 8, 9))[0] == OK
    assert run(in_c, Preprocess("rgb"), make_noise(8, 8), (3, 8, 9))[0] == BAD_SIZE
    assert run(in_c, Preprocess("rgb"), make_noise(9, 9), (3, 8, 9))[0] == BAD_SIZE


def test_cover_resize_of_a_very_thin_image(in_c: Callable[..., int]) -> None:
    pre = Preprocess("rgb", PixelResize((32, 32), "cover"))
    image = make_noise(1, 5000)
    status, actual = run(in_c, pre, image, (3, 32, 32))
    assert status == OK
    assert actual.tobytes() == apply(pre, image, (3, 32, 32)).tobytes()


def test_a_black_image_gives_zeros(in_c: Callable[..., int]) -> None:
    pre = Preprocess("rgb", scale="max", mean=(0.5,), std=(0.25,))
    status, actual = run(in_c, pre, np.zeros((4, 5, 3), np.uint8), (3, 4, 5))
    assert status == OK
    assert np.array_equal(actual, np.full((3, 4, 5), -2, np.float32))


@pytest.mark.parametrize(
    ("pre", "height", "width", "shape"),
    [
        (Preprocess("rgb", PixelResize((1, 4096))), 21845, 1, (3, 1, 4096)),
        (Preprocess("gray", PixelResize((1, 4097))), 65520, 2, (1, 1, 4097)),
    ],
)
def test_a_resize_that_needs_too_much_memory_is_refused(
    in_c: Callable[..., int],
    pre: Preprocess,
    height: int,
    width: int,
    shape: Shape3,
) -> None:
    image = np.full((height + 1, width, 3), 9, np.uint8)
    assert plan(pre, (height, width), shape, "x")
    assert run(in_c, pre, image[:height], shape)[0] == OK
    with pytest.raises(UserError, match="E0704"):
        plan(pre, image.shape, shape, "x")
    assert run(in_c, pre, image, shape)[0] == TOO_COSTLY
