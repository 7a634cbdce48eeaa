"""The target `host` on each x86-64 instruction set of this machine."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
from arm_models import write_artifact

from tcc.backends.arm.backend import Arm
from tcc.backends.arm.micro.cores import ISAS
from tcc.compiler.ir.graph import Graph, Model, Output
from tcc.compiler.ops import Conv, Flatten, GlobalAvgPool, Linear, Relu, Relu6
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import float_program, integer_program
from tcc.testing.int8_models import calibrate_on_input, lower_for_int8, sample_input
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights

ARM = Arm()
HOST = next(target for target in ARM.targets if target.name == "host")
NAMES = [isa.name for isa in ISAS]
pytestmark = pytest.mark.skipif(
    "x86-64" not in HOST.title, reason="instruction sets are chosen among on x86-64 alone"
)


def build_graph() -> Graph:
    """Return convolutions of every kind, with sizes that fit no tile."""
    add = NetBuilder(3, 45, 38)
    add("stem", Conv(17, (7, 7), stride=(2, 2), padding=3))
    add("bounded", Relu())
    add("rows", Conv(17, (3, 3), padding=1, groups=17))
    add("halved", Conv(17, (5, 5), stride=(2, 2), padding=2, groups=17))
    add("between", Relu6())
    add("wide", Conv(40, (3, 3), padding=1))
    add("dealt", Conv(40, (3, 3), stride=(2, 2), padding=1, groups=40))
    add("groups", Conv(30, (3, 3), padding=(2, 2), dilation=(2, 2), groups=2))
    add("point", Conv(70, (1, 1)))
    add("mean", GlobalAvgPool())
    add("flat", Flatten())
    add("logits", Linear(5))
    return add.build(Output("y", "logits"), Output("map", "point"))


FLOATS = Model(build_graph(), sample_weights(build_graph()))
INPUT_IMAGE = sample_input(FLOATS.graph)


@pytest.fixture(scope="module")
def integers() -> Model:
    lowered_model = lower_for_int8(FLOATS.graph, FLOATS.weights)
    return quantize(lowered_model, calibrate_on_input(lowered_model, INPUT_IMAGE))


@pytest.fixture(scope="module")
def programs(integers: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the built fp32 and int8 programs."""
    models = {"fp32": lower_for_int8(FLOATS.graph, FLOATS.weights), "int8": integers}
    by_name = {precision.name: precision for precision in HOST.precisions}
    return {
        name: write_artifact(tmp_path_factory.mktemp(name), ARM.emit(HOST, model, by_name[name]))
        for name, model in models.items()
    }


def run(folder: Path, isa: str, *options: str | Path) -> "subprocess.CompletedProcess[str]":
    (program,) = folder.glob("*-run")
    command = [program, "--isa", isa, "--quiet", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def list_runnable_isas(folder: Path) -> list[str]:
    """Return the instruction sets with which the program runs here."""
    return [name for name in NAMES if run(folder, name, "--describe").returncode == 0]


@pytest.mark.parametrize("name", NAMES)
def test_outputs_match_the_reference_on_every_instruction_set(
    name: str, programs: dict[str, Path], integers: Model, tmp_path: Path
) -> None:
    if name not in list_runnable_isas(programs["fp32"]):
        pytest.skip(f"this machine has no {name}: its kernels are not run")
    (tmp_path / "x").write_bytes(INPUT_IMAGE.tobytes())
    outputs = {}
    for precision, folder in programs.items():
        completed = run(folder, name, "--raw", tmp_path / "raw", "--tensor", tmp_path / "x")
        assert completed.returncode == 0, completed.stderr
        outputs[precision] = np.fromfile(tmp_path / "raw", np.float32)
    (exact,) = integer_program.run(integers, [INPUT_IMAGE])
    assert outputs["int8"].tobytes() == b"".join(exact[n].tobytes() for n in ("y", "map"))
    (reference,) = float_program.run(FLOATS, [INPUT_IMAGE])
    expected = np.concatenate([reference[n].ravel() for n in ("y", "map")])
    bound = 2e-6 * float(np.abs(expected).max())
    np.testing.assert_allclose(outputs["fp32"], expected, rtol=0, atol=bound)


def test_unsupported_instruction_sets_are_refused(programs: dict[str, Path]) -> None:
    folder = programs["fp32"]
    lacking = [name for name in NAMES if name not in list_runnable_isas(folder)]
    for name in [*lacking, "x86-64-v9", ""]:
        completed = run(folder, name, "--describe")
        assert completed.returncode == 2
        isa_names = ", ".join(NAMES)
        assert f"--isa: takes one that this processor has, of {isa_names}" in completed.stderr


def test_the_library_selects_the_best_instruction_set_at_load(programs: dict[str, Path]) -> None:
    (file,) = programs["fp32"].glob("lib*.so")
    library, name = ctypes.CDLL(str(file)), file.stem.removeprefix("lib")
    get_isa, set_isa = library[f"{name}_isa"], library[f"{name}_set_isa"]
    get_isa.restype = ctypes.c_char_p
    best = list_runnable_isas(programs["fp32"])[-1].encode()
    assert get_isa() == best
    assert set_isa(b"x86-64-v2") == 0
    assert get_isa() == b"x86-64-v2"
    assert set_isa(b"x86-64") != 0
    assert get_isa() == b"x86-64-v2"
    assert set_isa(None) == 0
    assert get_isa() == best
