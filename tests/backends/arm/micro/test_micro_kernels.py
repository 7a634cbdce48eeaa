"""Each micro-kernel on each core that has it, bit-exact against the reference arithmetic.

Every array ends or starts at a page that must not be accessed.
"""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, cycle
from pathlib import Path
from typing import Any

import host_forms
import numpy as np
import pytest

from tcc.backends.arm.codegen import micro_objects, zig
from tcc.backends.arm.codegen.link import LINK_OPTIONS
from tcc.backends.arm.machine import MACHINES, Machine
from tcc.backends.arm.micro.cores import CORES
from tcc.backends.arm.micro.records import (
    ChannelMatrix,
    Depthwise,
    Matrix,
    MicroKernel,
    Vector,
    shift_bias,
)
from tcc.backends.arm.micro.window import MicroWindow
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.ops import integer_arithmetic

HERE = Path(__file__).parent
Array = np.ndarray[Any, Any]
UNDEFINED = ("-fsanitize=alignment,bounds,shift,signed-integer-overflow", "-fsanitize-trap=all")


@dataclass(frozen=True)
class Out:
    """An array that a function writes."""

    array: Array


@dataclass(frozen=True)
class Core:
    """A processor and a program that calls its kernels."""

    name: str
    kernels: tuple[MicroKernel, ...]
    program: tuple[str, ...]

    @property
    def symbols(self) -> list[str]:
        return [symbol for kernel in self.kernels for symbol in kernel.symbols]

    def run(self, calls: "Sequence[tuple[str, Sequence[int | Array | Out]]]") -> Iterator[Array]:
        """Yield the arrays that each call wrote."""
        sent, output_arrays = [], []
        for call_index, (symbol, arguments) in enumerate(calls):
            sent.append(_pack_int32(self.symbols.index(symbol), call_index % 2, len(arguments)))
            for argument in arguments:
                match argument:
                    case Out(array):
                        sent += [_pack_int32(2, array.nbytes), array.tobytes()]
                        output_arrays.append(array)
                    case int():
                        sent.append(_pack_int32(0, argument))
                    case _:
                        sent += [_pack_int32(1, argument.nbytes), argument.tobytes()]
        raw = subprocess.run(self.program, input=b"".join(sent), capture_output=True, check=True)
        offset = 0
        for array in output_arrays:
            yield np.frombuffer(raw.stdout, array.dtype, array.size, offset).reshape(array.shape)
            offset += array.nbytes
        assert offset == len(raw.stdout)


def _pack_int32(*numbers: int) -> bytes:
    return np.array(numbers, np.int32).tobytes()


def _build_core(machine: Machine, folder: Path, kernels: tuple[MicroKernel, ...]) -> Core:
    """Return the program that calls some kernels on a machine."""
    kernels = tuple(k for k in kernels if isinstance(k, Depthwise | Matrix | Vector))
    micro_objects.write_sources(folder)
    core = Core(machine.target.name, kernels, (str(folder / "call"),))
    names = "\n".join(f"void {symbol}(void);" for symbol in core.symbols)
    function_list = ", ".join(f"(function){symbol}" for symbol in core.symbols)
    table = f"{names}\nstatic const function functions[] = {{{function_list}}};"
    text = (HERE / "call.c").read_text("utf-8").replace("/* FUNCTIONS */", table)
    (folder / "call.c").write_text(text, "utf-8")
    options = (
        *machine.get_zig_target("musl"),
        f"-mcpu={machine.cpu}",
        *micro_objects.MICRO_KERNEL_OPTIONS,
    )
    if machine.native:  # undefined behavior ends the program
        options = (*(o for o in options if o != "-fno-sanitize=all"), *UNDEFINED)
    source_names = ("call", *(kernel.name for kernel in kernels))
    silent = "-Wno-cast-function-type-mismatch"  # intended in call.c
    for source_name in source_names:
        zig.run(
            folder,
            "cc",
            *options,
            "-Werror",
            silent,
            "-c",
            f"{source_name}.c",
            "-o",
            f"{source_name}.o",
        )
    link_arguments = (*(f"{source_name}.o" for source_name in source_names), "-o", "call")
    zig.run(
        folder, "cc", *machine.get_zig_target("musl"), *LINK_OPTIONS, "-static", *link_arguments
    )
    if machine.native:
        return core
    return replace(core, program=(machine.qemu, "-cpu", machine.qemu_cpu, *core.program))


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("arm-a53", "arm-a76")]


@pytest.fixture(scope="module", params=[*host_forms.NAMES, "arm-a7", *SLOW])
def core(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Core:
    if request.param in host_forms.NAMES:
        folder = tmp_path_factory.mktemp(request.param)
        host_core = _build_core(
            host_forms.select_isa(request.param), folder, CORES[host_forms.HOST.core]
        )
        return replace(host_core, name=request.param)
    machine = next(m for m in MACHINES if m.target.name == request.param)
    if not machine.native and shutil.which(machine.qemu) is None:
        pytest.skip(f"needs {machine.qemu}: apt-get install qemu-user")
    return _build_core(machine, tmp_path_factory.mktemp(machine.cpu), CORES[machine.core])


MAX_TEXT_BYTES = 200 << 10
"""Maximum bytes of instructions of all micro-kernels of a core together."""


def test_kernels_are_small(core: Core) -> None:
    folder = Path(core.program[-1]).parent
    objects = [folder / f"{kernel.name}.o" for kernel in core.kernels]
    # Includes symbols and relocations.
    assert sum(file.stat().st_size for file in objects) < MAX_TEXT_BYTES


@dataclass(frozen=True)
class Case:
    """A convolution with its numbers. With `extreme`, all values of x are extremes."""

    window: MicroWindow
    filters: int
    low: int = 0
    high: int = 255
    extreme: bool = False
    seed: int = 0

    @property
    def x(self) -> Array:
        """The input's quantized values."""
        rng = np.random.default_rng(self.seed)
        low, high = self.window.low, self.window.low + 255
        shape = (self.window.channels, *self.window.size)
        if self.extreme:
            return rng.choice([low, high], shape).astype(np.int16)
        return rng.integers(low, high, shape, np.int16, endpoint=True)

    @property
    def input_bytes(self) -> Array:
        """The input in memory."""
        return self.x.astype(np.uint8)

    @property
    def weight(self) -> Array:
        rng = np.random.default_rng(self.seed + 1)
        shape = (self.filters, self.window.channels, *self.window.kernel)
        if self.extreme:
            return rng.choice([-127, 127], (self.filters, 1, 1, 1)).astype(np.int8) * np.ones(
                shape, np.int8
            )
        return rng.integers(-127, 127, shape, np.int8, endpoint=True)

    @property
    def bias(self) -> Array:
        rng = np.random.default_rng(self.seed + 2)
        max_bias = 1 << (30 if self.extreme else 14)
        return rng.integers(-max_bias, max_bias, self.filters, np.int32)

    @property
    def factor(self) -> Array:
        """Return factors that saturate, vanish or make ties, among ordinary ones."""
        rng = np.random.default_rng(self.seed + 3)
        spread = 40 / np.sqrt(self.window.taps) / 127 / 60
        usual = (rng.uniform(0.5, 2, self.filters) * spread).astype(np.float32)
        odd = np.array([0.5, 3e-9, 700, 2**-9, 1e-40, 0.25], np.float32)
        usual[::3] = np.resize(odd, len(usual[::3]))
        return usual

    def compute_sums(self) -> Array:
        w = self.window
        (pad_top, pad_left), extent = (
            w.start,
            [(k - 1) * d + 1 for k, d in zip(w.kernel, w.dilation, strict=True)],
        )
        end_padding = [
            max(0, (n - 1) * s + r - p - size)
            for n, s, r, p, size in zip(w.out, w.stride, extent, w.start, w.size, strict=True)
        ]
        padded = integer_arithmetic.pad_map(self.x[None], (pad_top, pad_left, *end_padding))
        sums = integer_arithmetic.compute_convolution(padded, self.weight, w.stride, w.dilation, 1)
        sums = sums[:, :, : w.out[0], : w.out[1]]
        return sums + self.bias[:, None, None]

    def compute_quantized(self) -> Array:
        """Return the results in memory: the low 8 bits of quantized values."""
        kind = TensorType((1,), DType.U8, 1.0, zero_point=max(-self.low, 0))
        factor = self.factor[:, None, None]
        sums = self.compute_sums()
        quantized = integer_arithmetic.requantize(sums, factor, kind, self.low, self.high)
        return quantized[0].astype(np.uint8)

    def compute_reals(self) -> Array:
        reals: Array = (self.compute_sums().astype(np.float32) * self.factor[:, None, None])[0]
        return reals


def add_zero_points(cases: list["Case"]) -> list["Case"]:
    """Return the cases, and those of signed values with zero points from 1 to 254."""
    signed = [case for case in cases if case.window.low < 0]
    bounds = (-30, 225)
    return cases + [
        Case(replace(case.window, low=-zero_point), case.filters, *bounds, case.extreme, case.seed)
        for case, zero_point in zip(signed, cycle((30, 1, 254, 98)), strict=False)
    ]


def make_window(
    channels: int, size: tuple[int, int], kernel: int = 1, **settings: Any
) -> MicroWindow:
    """Return a window with "same" padding and its output."""
    unpadded = MicroWindow(channels, size, size, (kernel, kernel), **settings)
    start = tuple((kernel - 1) * d // 2 for d in unpadded.dilation)
    out = tuple(
        (n + 2 * p - (kernel - 1) * d - 1) // s + 1
        for n, p, d, s in zip(size, start, unpadded.dilation, unpadded.stride, strict=True)
    )
    return replace(unpadded, start=(start[0], start[1]), out=(out[0], out[1]))


MATRICES = [
    Case(MicroWindow(64, (1, 24), (1, 24)), 32),
    Case(MicroWindow(7, (1, 13), (1, 13), low=-128), 5, -128, 127),
    Case(MicroWindow(1, (1, 1), (1, 1)), 1, 10, 100),
    Case(MicroWindow(34, (1, 9), (1, 9)), 9, -128, 127, extreme=True),
    Case(make_window(3, (21, 19), 7, stride=(2, 2)), 12),
    Case(make_window(3, (5, 33), 7, stride=(2, 2)), 4),
    Case(make_window(5, (6, 14), 3), 8, 0, 255, extreme=True),
    Case(make_window(6, (7, 7), 3, low=-128), 6, -128, 127),
    Case(make_window(2, (1, 3), 3), 3),
    Case(make_window(4, (9, 2), 5, stride=(3, 1)), 4),
    Case(make_window(20, (5, 5), 5, stride=(1, 3), dilation=(2, 3)), 4),
    Case(make_window(8, (9, 15), 1, stride=(2, 2)), 8),
    Case(MicroWindow(513, (2, 5), (2, 5), (1, 1), (1, 1), (1, 1), (0, 0)), 3),
    Case(MicroWindow(2, (30, 130), (1, 8), (3, 100)), 4),
    Case(make_window(8, (7, 7), 3), 9, extreme=True),
    Case(make_window(4, (5, 37), 3, low=-128), 8, -128, 127),
    Case(make_window(12, (15, 33), 3, stride=(2, 2), low=-128), 5, -128, 127),
    Case(make_window(8, (9, 70), 5, stride=(2, 2)), 3),
    Case(make_window(4, (1, 2), 3, low=-128), 3, -128, 127),
    Case(MicroWindow(4, (3, 5), (9, 11), (3, 3), start=(4, 4), low=-128), 4, -128, 127),
    Case(MicroWindow(8, (6, 9), (2, 3), (3, 2), (2, 3), (1, 2)), 8),
    Case(make_window(68, (3, 19), 1, stride=(1, 2), low=-128), 8, -128, 127, extreme=True),
]
VECTORS = [
    Case(MicroWindow(160, (1, 1), (1, 1)), 12),
    Case(MicroWindow(37, (1, 1), (1, 1), low=-128), 5, -128, 127),
    Case(MicroWindow(1, (1, 1), (1, 1)), 1),
    Case(MicroWindow(512, (1, 1), (1, 1)), 7, -128, 127, extreme=True),
]
BANDS = [
    Case(
        make_window(1, size, kernel, stride=(stride, stride), low=-128 if signed else 0, band=band),
        1,
        *bounds,
    )
    for (kernel, stride, size, band, signed), bounds in zip(
        [
            (3, 1, (12, 16), 2, False),
            (3, 1, (7, 7), 4, True),
            (3, 1, (1, 1), 2, False),
            (3, 2, (13, 17), 4, False),
            (3, 2, (8, 32), 2, True),
            (5, 1, (9, 11), 2, False),
            (5, 2, (14, 14), 8, True),
            (5, 2, (3, 2), 2, False),
            (7, 1, (8, 9), 2, True),
            (3, 3, (10, 25), 2, False),
            (1, 1, (3, 20), 1, False),
            (3, 1, (4, 150), 2, True),
            (3, 2, (5, 131), 4, False),
            (5, 1, (6, 70), 4, True),
            (5, 2, (7, 129), 2, True),
            (1, 1, (7, 37), 8, True),
        ],
        [(0, 255), (-128, 127), (3, 77)] * 6,
        strict=False,
    )
] + [
    Case(make_window(1, (6, 18), 3, dilation=(2, 3), band=2), 1),
    Case(make_window(1, (6, 18), 3, band=2), 1, extreme=True),
    Case(make_window(1, (5, 9), 5, band=6, low=-128), 1, -128, 127, extreme=True),
    Case(MicroWindow(1, (3, 4), (7, 9), (3, 3), start=(3, 4), band=8, low=-128), 1, -128, 127),
    Case(MicroWindow(1, (8, 90), (4, 45), (2, 2), (2, 2), band=4, low=-128), 1, -128, 127),
    Case(make_window(1, (5, 7), 1, band=6, low=-128), 1, -128, 127),
    Case(MicroWindow(1, (12, 22), (6, 11), (2, 2), (2, 2), band=6), 1),
    Case(MicroWindow(1, (7, 5), (3, 2), (2, 2), (2, 2), band=4, low=-128), 1, -128, 127),
    Case(MicroWindow(1, (1, 1), (3, 6), (3, 3), start=(2, 7), band=4), 1),
    Case(MicroWindow(1, (12, 22), (6, 11), (2, 2), (2, 2), band=6), 1, extreme=True),
    Case(
        MicroWindow(1, (7, 17), (3, 8), (2, 2), (2, 2), (1, 1), (0, 0), -128, 4), 1, -128, 127, True
    ),
]


@pytest.mark.parametrize("case", add_zero_points(MATRICES))
def test_matrix_products_are_bit_exact(core: Core, case: Case) -> None:
    for kernel in core.kernels:
        if isinstance(kernel, Matrix):
            _check_matrix(core, kernel, case)


def _check_matrix(core: Core, kernel: Matrix, case: Case) -> None:
    w = case.window
    assert kernel.supports_window(w)
    pixels = w.out[0] * w.out[1]
    quad_count = -(-w.taps // 4)
    starts = range(0, pixels, kernel.pixels)
    counts = [min(kernel.pixels, pixels - start) for start in starts]
    symbol_name, source = "gather", case.input_bytes
    if isinstance(kernel, ChannelMatrix) and kernel.has_channel_quads(w.channels) and not w.is_flat:
        symbol_name, source = "copy", _run_deal(core, kernel, case)
    gathers = [
        (
            kernel.get_symbol(symbol_name),
            (
                source,
                Out(np.zeros(4 * kernel.pixels * quad_count, np.int8)),
                w.build_table(),
                start,
                n,
            ),
        )
        for start, n in zip(starts, counts, strict=True)
    ]
    panels = list(core.run(gathers))
    bias = kernel.pad_filters(shift_bias(case.bias, case.weight, kernel.get_shift(w)))
    constants = (kernel.pack_weights(case.weight), bias, kernel.pad_filters(case.factor))
    for symbol_name, expected, bounds in (
        ("levels", case.compute_quantized(), (case.low, case.high)),
        ("reals", case.compute_reals(), ()),
    ):
        flat = expected.reshape(case.filters, pixels)
        output_buffers = [flat.ravel()[: (case.filters - 1) * pixels + n].copy() for n in counts]
        for array in output_buffers:
            array[:] = 0x55
        sizes = (quad_count, case.filters, pixels)
        calls = [
            (kernel.get_symbol(symbol_name), (panel, *constants, Out(array), *sizes, n, *bounds))
            for panel, array, n in zip(panels, output_buffers, counts, strict=True)
        ]
        for start, n, output in zip(starts, counts, core.run(calls), strict=True):
            rows = [output[f * pixels : f * pixels + n] for f in range(case.filters)]
            assert _is_identical(np.stack(rows), flat[:, start : start + n])
            outside = np.ones(len(output), bool)
            for f in range(case.filters):
                outside[f * pixels : f * pixels + n] = False
            assert (output[outside] == np.full(1, 0x55).astype(output.dtype)).all()
        if kernel.supports_panel_spans:
            every = np.concatenate(panels), *constants, Out(np.zeros_like(flat)), *sizes, pixels
            (spanned_output,) = core.run([(kernel.get_symbol(symbol_name), (*every, *bounds))])
            assert _is_identical(spanned_output, flat)


def _run_deal(core: Core, kernel: ChannelMatrix, case: Case) -> Array:
    """Return the interleaved channels of a map, four channels after four."""
    w = case.window
    group_count, interleaved = (
        w.channels // 4,
        np.zeros(kernel.count_interleaved_quads(w, 1), np.int32),
    )
    for group_index in range(group_count):
        call = case.input_bytes, Out(interleaved), w.build_table(), group_index, group_count
        (interleaved,) = core.run([(kernel.get_symbol("deal"), call)])
    return interleaved


@pytest.mark.parametrize("case", add_zero_points(VECTORS))
def test_vector_products_are_bit_exact(core: Core, case: Case) -> None:
    for kernel in core.kernels:
        if isinstance(kernel, Vector):
            w = case.window
            assert kernel.supports_window(w)
            bias = kernel.pad_filters(shift_bias(case.bias, case.weight, w.offset))
            constants = (
                case.input_bytes,
                kernel.pack_weights(case.weight),
                bias,
                kernel.pad_filters(case.factor),
            )
            sizes = (w.channels, case.filters, w.offset)
            expected = case.compute_quantized().ravel(), case.compute_reals().ravel()
            levels, reals = (Out(np.zeros_like(e)) for e in expected)
            calls = [
                (kernel.get_symbol("levels"), (*constants, levels, *sizes, case.low, case.high)),
                (kernel.get_symbol("reals"), (*constants, reals, *sizes)),
            ]
            for output, expected_output in zip(core.run(calls), expected, strict=True):
                assert _is_identical(output, expected_output)


@pytest.mark.parametrize("case", add_zero_points(BANDS))
@pytest.mark.parametrize("seed", range(2))
def test_depthwise_planes_are_bit_exact(core: Core, case: Case, seed: int) -> None:
    case = replace(case, seed=seed + 2)
    for kernel in core.kernels:
        if isinstance(kernel, Depthwise):
            w = case.window
            assert kernel.supports_window(w)
            expected = case.compute_quantized()
            band = np.zeros(w.band_elements + kernel.overread, np.int16)
            arguments = (
                case.input_bytes, kernel.pack_weights(case.weight), case.bias, case.factor,
                Out(np.zeros_like(expected)), w.build_table(), band, case.low, case.high,
            )  # fmt: skip
            outputs = list(core.run([(kernel.get_symbol("levels"), arguments)] * 2))
            assert all(_is_identical(f, expected) for f in outputs)


def test_ties_and_extremes_are_rounded_like_the_reference(core: Core) -> None:
    """The bias is the sum: 40,000 sums for each of some factors."""
    kernel = next(k for k in core.kernels if isinstance(k, Matrix))
    rng = np.random.default_rng(0)
    edges = [np.arange(-600, 600), -(1 << 31) + np.arange(8), (1 << 31) - 1 - np.arange(8)]
    random_sums = rng.integers(-(1 << 31), 1 << 31, 2000) >> rng.integers(0, 31, 2000)
    sums = np.concatenate([*edges, random_sums]).astype(np.int32)
    factors = [0.5, 0.25, 1 / 128, 1 / 3, 3e-9, 1.5, 1e-5, 0.0123, 700, 1e-40, 2.0**-31]
    zeros = np.zeros((len(sums), 4), np.int8)
    calls, expected = [], []
    for number, factor in zip(count(), factors, strict=False):
        scale = np.full(len(sums), factor, np.float32)
        low, high = [(0, 255), (-128, 127), (-3, 9)][number % 3]
        kind = TensorType((1,), DType.I8 if low < 0 else DType.U8, 1.0)
        rounded = integer_arithmetic.requantize(sums, scale, kind, low, high)
        arguments = (
            np.zeros(4 * kernel.pixels, np.int8), kernel.pack_weights(zeros), kernel.pad_filters(sums), kernel.pad_filters(scale),
            Out(np.zeros_like(rounded)), 1, len(sums), 1, 1, low, high,
        )  # fmt: skip
        calls.append((kernel.get_symbol("levels"), arguments))
        expected.append(rounded)
    for output, rounded in zip(core.run(calls), expected, strict=True):
        assert _is_identical(output, rounded)


def _is_identical(actual: Array, expected: Array) -> bool:
    return actual.tobytes() == np.ascontiguousarray(expected).tobytes()
