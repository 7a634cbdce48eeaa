"""ARM kernels compiled for this machine: each op, and fused and joined ops."""

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnxruntime as ort
import pytest
from arm_graphs import make_model_with_consumers, make_model_with_producers, make_random_model
from arm_steps import Array, Library, compile_library
from numpy.typing import NDArray
from refused_ops import is_refused
from tables import looped

from tcc.backends.arm.backend import Arm
from tcc.backends.arm.codegen.objects import BUILDERS
from tcc.backends.arm.kernels import conv, window
from tcc.backends.arm.kernels.base import Kernel
from tcc.backends.arm.kernels.conv import DirectConv, GatherMode
from tcc.backends.arm.kernels.loops import conv as conv_loops
from tcc.backends.arm.kernels.loops import pool as pool_loops
from tcc.backends.arm.kernels.pool import WindowPool
from tcc.backends.arm.machine import MACHINES
from tcc.backends.arm.schedule.program import Program, build_program
from tcc.compiler.ir.graph import Model
from tcc.compiler.lower.onnx import lower
from tcc.compiler.ops import (
    AvgPool,
    ChannelShuffle,
    Conv,
    DepthwiseConv,
    Gelu,
    GlobalAvgPool,
    HardSwish,
    LayerNorm,
    LeakyRelu,
    Linear,
    MaxPool,
    Op,
    Relu,
    Relu6,
    Resize,
    Sigmoid,
    Silu,
    Softmax,
    Tanh,
)
from tcc.testing.op_cases import CASES, Case, build_one_input_model, build_op_model, sample_inputs

HOST = next(m for m in MACHINES if m.target.name == "host")
FOLLOWED = {
    "conv": (Conv(10, (3, 3), padding=1), (4, 9, 11)),
    "conv-small": (Conv(10, (3, 3), padding=1), (12, 4, 5)),
    "conv-1x1": (Conv(9, (1, 1)), (8, 5, 3)),
    "conv-1x1-strided": (Conv(9, (1, 1), (2, 2)), (8, 5, 9)),
    "conv-narrow": (Conv(18, (1, 1)), (8, 1, 3)),
    "conv-narrow-rows": (Conv(18, (3, 3), padding=1), (8, 3, 2)),
    "conv-one-pixel": (Conv(18, (1, 1)), (8, 1, 1)),
    "conv-groups": (Conv(8, (3, 3), groups=2), (12, 6, 9)),
    "depthwise": (DepthwiseConv((3, 3), (2, 2), 1), (6, 9, 9)),
    "linear": (Linear(21), (10,)),
    "linear-few": (Linear(3), (10,)),
    "max_pool": (MaxPool((3, 3), (2, 2), 1), (5, 9, 9)),
    "avg_pool": (AvgPool((3, 3), (2, 2), 1, count_include_pad=False), (5, 9, 6)),
    "global_avg_pool": (GlobalAvgPool(), (5, 9, 6)),
    "softmax": (Softmax(), (5, 3, 6)),
    "softmax-vector": (Softmax(), (5,)),
    "layer_norm": (LayerNorm(), (5, 3, 6)),
    "layer_norm-vector": (LayerNorm(), (6,)),
    "channel_shuffle": (ChannelShuffle(2), (6, 3, 5)),
    "resize": (Resize(scale=(2, 3)), (4, 3, 5)),
    "resize-bilinear": (Resize((4, 7), mode="bilinear"), (4, 3, 5)),
    "relu": (Relu(), (4, 3, 5)),
}
LED = {
    "avg_pool": (AvgPool((2, 2)), (4, 8, 12)),
    "avg_pool-odd": (AvgPool((2, 2)), (5, 7, 9)),
    "avg_pool-padded": (AvgPool((3, 3), (3, 3), 1), (4, 8, 22)),
    "avg_pool-inside": (AvgPool((2, 2), (2, 2), 1, count_include_pad=False), (3, 8, 9)),
    "max_pool-padded": (MaxPool((2, 2), (2, 2), 1), (4, 9, 8)),
    "max_pool-gaps": (MaxPool((1, 2), (2, 3), ceil=True), (4, 9, 11)),
}
RUN = {
    name: c
    for name, c in CASES.items()
    if not is_refused(Arm(), HOST.target, build_one_input_model(c).graph)
}
MODELS = {
    **{name: build_op_model(case) for name, case in RUN.items()},
    **{f"followed-{name}": make_model_with_consumers(*case) for name, case in FOLLOWED.items()},
    **{f"led-{name}": make_model_with_producers(*case) for name, case in LED.items()},
    **{f"random-{seed}": make_random_model(seed) for seed in range(12)},
}


def run_onnxruntime(model: Model, inputs: dict[str, Array]) -> dict[str, Array]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(lower(model).SerializeToString(), options)
    names = [o.name for o in session.get_outputs()]
    outputs = session.run(names, {name: x[None] for name, x in inputs.items()})
    return {name: y[0] for name, y in zip(names, outputs, strict=True)}


def make_vector_model(op: Op, size: int) -> Model:
    return build_op_model(Case(op, ((size,),)))


def assert_agree(actual: Array, expected: Array, rtol: float) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(
        actual, expected, rtol=rtol, atol=rtol * float(np.abs(expected).max())
    )


WIDE = np.concatenate([np.linspace(-12, 12, 2001), np.linspace(-120, 120, 400), [0.0, -0.0]])
erf = np.vectorize(math.erf)
FUNCTIONS: dict[str, tuple[Op, Callable[[NDArray[np.float64]], NDArray[np.float64]]]] = {
    "sigmoid": (Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
    "tanh": (Tanh(), np.tanh),
    "silu": (Silu(), lambda x: x / (1 + np.exp(-x))),
    "gelu": (Gelu(), lambda x: x / 2 * (1 + erf(x / np.sqrt(2)))),
    "softmax": (Softmax(), lambda x: np.exp(x - x.max()) / np.exp(x - x.max()).sum()),
}
MODELS |= {f"wide-{name}": make_vector_model(op, WIDE.size) for name, (op, _) in FUNCTIONS.items()}
ANYTHING = {
    "relu": Relu(), "relu6": Relu6(), "leaky_relu": LeakyRelu(), "hard_swish": HardSwish(),
    "sigmoid": Sigmoid(), "tanh": Tanh(), "silu": Silu(), "gelu": Gelu(), "softmax": Softmax(),
    "layer_norm": LayerNorm(), "linear": Linear(9),
}  # fmt: skip
MODELS |= {f"nan-{name}": make_vector_model(op, 7) for name, op in ANYTHING.items()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Library, dict[str, Program]]:
    """The kernels of all models in one library, with loops in three parts."""
    folder = tmp_path_factory.mktemp("kernels")
    compiled, programs = compile_library(list(MODELS.values()), HOST, folder, tasks=3)
    return compiled, dict(zip(MODELS, programs, strict=True))


@pytest.mark.parametrize("name", FOLLOWED)
def test_pointwise_consumers_are_fused(name: str) -> None:
    model = MODELS[f"followed-{name}"]
    results = [step.output for step in build_program(model.graph, model.weights, HOST).steps]
    gate_of_one_pixel = name in {"global_avg_pool", "conv-one-pixel"}  # takes the end of the chain
    maps = ["other", "sum", "end"] if gate_of_one_pixel else ["other", "gate", "end"]
    vector = len(model.graph.types["op"].shape) == 1
    assert results == (["other", "end"] if vector else maps)


@pytest.mark.parametrize("name", LED)
def test_pointwise_producers_are_fused_into_a_pooling(name: str) -> None:
    model = MODELS[f"led-{name}"]
    (step,) = build_program(model.graph, model.weights, HOST).steps
    assert step.output == "end"


def test_producers_of_an_overlapping_pooling_are_not_fused() -> None:
    model = make_model_with_producers(MaxPool((3, 3), (2, 2), 1), (4, 8, 8))
    assert len(build_program(model.graph, model.weights, HOST).steps) == 2


@looped({name: name for name in MODELS if not name.startswith(("wide-", "nan-"))})
def test_outputs_match_onnxruntime(case: str, built: tuple[Library, dict[str, Program]]) -> None:
    compiled, programs = built
    model = MODELS[case]
    inputs = {
        i.name: x[0] for i, x in zip(model.graph.inputs, sample_inputs(model, 1), strict=True)
    }
    actual = compiled.run(programs[case], inputs)
    expected = run_onnxruntime(model, inputs)
    assert actual.keys() == expected.keys()
    for output, values in expected.items():
        assert_agree(actual[output], values, 2e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_within_a_few_ulp(
    name: str, built: tuple[Library, dict[str, Program]]
) -> None:
    compiled, programs = built
    x = WIDE.astype(np.float32)
    actual = compiled.run(programs[f"wide-{name}"], {"x0": x})["y"]
    with np.errstate(over="ignore"):
        exact = FUNCTIONS[name][1](x.astype(np.float64))
    # below 2**-126 floats lose precision; gelu's terms cancel; softmax rounds x - max(x) first
    floor = 2e-7 if name == "gelu" else 1e-35
    units = 128 if name == "softmax" else 8
    np.testing.assert_allclose(actual, exact, rtol=units * 2.0**-24, atol=floor)


@pytest.mark.parametrize("name", ANYTHING)
def test_nan_is_propagated(name: str, built: tuple[Library, dict[str, Program]]) -> None:
    compiled, programs = built
    x = np.linspace(-1, 1, 7, dtype=np.float32)
    x[3] = np.nan
    actual = compiled.run(programs[f"nan-{name}"], {"x0": x})["y"]
    spreads = name in {"softmax", "layer_norm", "linear"}
    assert np.isnan(actual).all() if spreads else np.isnan(actual[3])
    assert np.isnan(actual).sum() == (actual.size if spreads else 1)


def list_leaf_classes(kernel: type[Kernel]) -> set[str]:
    """Return the names of subclasses that have no subclasses."""
    subclasses = kernel.__subclasses__()
    return (
        {kernel.__name__}
        if not subclasses
        else {name for subclass in subclasses for name in list_leaf_classes(subclass)}
    )


def test_every_kernel_class_has_a_loop_builder() -> None:
    assert list_leaf_classes(Kernel) == {kernel_class.__name__ for kernel_class in BUILDERS}


BANDED = (
    "conv-stem", "conv-kernel-5", "conv-kernel-1x7", "conv-groups", "conv-dilated",
    "conv-3x3-on-1x1-image", "followed-conv", "followed-conv-1x1-strided",
    "followed-conv-narrow-rows", "followed-depthwise", "depthwise", "conv_transpose-lopsided",
    "conv_transpose-padded", "conv_transpose-depthwise", "max_pool-stem",
    "max_pool-ceil-drops-last", "avg_pool-lopsided-ceil-inside", "led-avg_pool-padded",
    "led-max_pool-padded",
)  # fmt: skip
LIMITS = {
    "a few rows on a thread's stack": {"MAX_STACK_BAND_BYTES": 1 << 16, "L1_BAND_BYTES": 700},
    "single rows on a thread's stack": {"MAX_STACK_BAND_BYTES": 1 << 16, "L1_BAND_BYTES": 0},
    "a few rows that threads share": {"MAX_STACK_BAND_BYTES": 0, "SHARED_BAND_BYTES": 300},
}
BandedBuild = tuple[Library, Mapping[str, Program]]


@pytest.fixture(scope="module", params=LIMITS)
def banded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BandedBuild]:
    """The kernels under some limits, with loops in three parts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, limit in LIMITS[request.param].items():
            patch.setattr(window, name, limit)
        for module in (conv, conv_loops, pool_loops):
            patch.setattr(module, "PARALLEL", 1)
        models = [MODELS[name] for name in BANDED]
        compiled, programs = compile_library(
            models, HOST, tmp_path_factory.mktemp("bands"), tasks=3
        )
        yield compiled, dict(zip(BANDED, programs, strict=True))


@pytest.mark.slow
def test_bands_match_onnxruntime(banded: BandedBuild) -> None:
    compiled, programs = banded
    cut = set()
    for name in BANDED:
        model = MODELS[name]
        inputs = {
            i.name: x[0] for i, x in zip(model.graph.inputs, sample_inputs(model, 1), strict=True)
        }
        actual, expected = compiled.run(programs[name], inputs), run_onnxruntime(model, inputs)
        for output, values in expected.items():
            assert_agree(actual[output], values, 2e-5)
        for kernel in programs[name].kernels:
            if isinstance(kernel, DirectConv | WindowPool) and kernel.band:
                gathered = kernel.gather_mode if isinstance(kernel, DirectConv) else None
                cut |= {gathered} if kernel.band.rows < kernel.window.out[0] else set()
    assert cut == {None, *GatherMode}


def test_wide_maps_buffer_few_rows_in_the_arena() -> None:
    wide = window.Window((128, 512, 512), (512, 512), (3, 3), pads=(1, 1, 1, 1))
    kernel = DirectConv(wide, 64, 1, HOST.tile)
    (space,) = kernel.scratch
    assert kernel.band is not None
    assert (kernel.band.rows, kernel.band.is_thread_local) == (1, False)
    assert space.nbytes == 128 * 3 * 514 * 4
    assert space.nbytes * 100 < np.prod(wide.source) * 4
