"""Costs of a program: reproducible counts under qemu."""

import json
import math
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tcc.backends.arm.backend import Arm
from tcc.backends.arm.measure import emulated, measurement_modes, program_facts
from tcc.compiler.data.weights import initialize_random
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.measurement import Measurement, RunTimes, Workload
from tcc.compiler.support.bounded_process import ProcessOutcome
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.progress import silent
from tcc.testing.nets import build_gated

ARM = Arm()
DEVICES = {target.name: Device(ARM, target) for target in ARM.targets}
GRAPH = build_gated()


def write_artifact(folder: Path, target: str) -> Path:
    """Write the files of a small network for a target."""
    artifact = ARM.emit(DEVICES[target].target, Model(GRAPH, initialize_random(GRAPH)))
    for name, content in artifact.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("gated"), "arm-a7")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("gated"), "host")


def measure_network(
    folder: Path, target: str = "arm-a7", runs: int = 1, threads: int = 1
) -> Measurement:
    source = GRAPH.inputs[0]
    tensor = np.random.default_rng(0).standard_normal(source.type.shape, np.float32)
    workload = Workload(None, tensor, runs, threads)
    return DEVICES[target].measure(folder, source, workload, silent)


@pytest.fixture
def _qemu() -> None:
    if shutil.which("qemu-arm") is None:
        pytest.skip("needs qemu-arm: apt-get install qemu-user")


@pytest.mark.usefixtures("_qemu")
def test_instruction_counts_are_reproducible(folder: Path) -> None:
    measurement = measure_network(folder)
    assert measure_network(folder) == measurement
    network, memory = measurement.network, measurement.memory
    macs = 2 * 4 * 8 * 5 * 5  # MACs of the two large convolutions, four per instruction
    assert network.instructions is not None
    assert network.instructions > macs / 4
    assert network.cycles is not None
    assert network.cycles > macs
    assert measurement.preprocess is None
    assert measurement.load.instructions
    assert memory.files == next(folder.glob("*-run")).stat().st_size
    assert memory.peak is not None
    assert memory.program is not None
    assert memory.files < memory.program < memory.peak
    assert "1.49 times" in measurement.caution


@pytest.mark.usefixtures("_qemu")
def test_costs_are_reported_per_layer(folder: Path) -> None:
    measurement = measure_network(folder)
    names = [layer.name for layer in measurement.layers]
    assert {"conv_bn", "gated", "sum", "gap", "fc_bn"} <= {*names, "conv_bn"}
    for part in ("instructions", "cycles"):
        total = getattr(measurement.network, part)
        layer_total = sum(getattr(layer.cost, part) for layer in measurement.layers)
        assert 0.5 * total < layer_total < total  # the rest copies and checks input and output
    shares = {layer.name: layer.cost.instructions or 0 for layer in measurement.layers}
    assert max(shares.values()) < measurement.network.instructions


@pytest.mark.usefixtures("_qemu")
def test_instructions_are_counted_on_one_thread(folder: Path) -> None:
    with pytest.raises(UserError, match="E0601"):
        measure_network(folder, threads=2)


@pytest.mark.parametrize("threads", [1, 2])
def test_host_programs_are_timed(host: Path, threads: int) -> None:
    measurement = measure_network(host, "host", runs=4, threads=threads)
    assert measurement.how.endswith("one thread" if threads == 1 else "2 threads")
    for cost in (measurement.network, *(layer.cost for layer in measurement.layers)):
        assert cost.times
        assert 0 <= cost.times.low <= cost.times.median <= cost.times.high
        assert cost.times.runs == 4
    assert measurement.load.times
    assert measurement.preprocess is None
    memory = measurement.memory
    assert memory.arena is not None
    assert memory.arena_bound is not None
    assert memory.arena_bound <= memory.arena


COMPLETE_LOG = "mark open\n0 1\nmark end\n0 2\n1 1\nheap 9\nblock 0 3 000000\nblock 1 2 0000\n"


def test_instruction_counts_are_parsed() -> None:
    counts = emulated.parse_counts(COMPLETE_LOG.splitlines())
    assert [interval.end_event for interval in counts.intervals] == ["open", "end"]
    assert counts.count_instructions(counts.sum_runs(counts.intervals)) == 3 * 3 + 2
    assert counts.heap_bytes == 9


@pytest.mark.parametrize("end", range(1, len(COMPLETE_LOG.splitlines())))
def test_truncated_counts_are_refused(end: int) -> None:
    with pytest.raises(ValueError, match=r"missing"):
        emulated.parse_counts(COMPLETE_LOG.splitlines()[:end])


DESCRIBED = {
    "outputs": [{"name": "y", "shape": [2]}],
    "layers": [{"name": "conv", "kernel": "conv"}],
    "arena": 64,
}
ROWS = "(create)\t\t5\n(preprocess)\t\t0\n" + "conv\tconv\t9\n" * (
    measurement_modes.WARM_UP_RUNS + 1
)
TIMES = struct.pack("<6d", *[1.0] * 6)


@dataclass(frozen=True)
class Forged:
    """A program with chosen output and files."""

    facts_json: str = json.dumps(DESCRIBED)
    times: bytes = TIMES
    profile: str = ROWS
    description: str = "forged"

    def write_file(self, name: str, data: bytes) -> str:
        return name

    def get_path(self, name: str) -> str:
        return name

    def execute(self, arguments: Sequence[str], runs: int, max_bytes: int) -> ProcessOutcome:
        return ProcessOutcome(0, self.facts_json.encode(), b"")

    def read_file(self, name: str, max_bytes: int) -> bytes:
        return {"times": self.times, "profile": self.profile.encode()}[name][:max_bytes]

    def create_error(self, message: str, label: str = "") -> UserError:
        return fail("E0652", message, make_file_span("forged"), label=label)


def time_program(program: Forged) -> Measurement:
    source = GRAPH.inputs[0]
    workload = Workload(None, np.zeros(source.type.shape, np.float32), runs=1)
    facts = program_facts.read_facts(program, Path(__file__))
    return measurement_modes.measure(program, facts, source, workload, silent)


FORGERIES = {
    "no JSON": Forged("hello"),
    "a list": Forged("[]"),
    "no outputs": Forged('{"layers": []}'),
    "layers without kernels": Forged(json.dumps(DESCRIBED | {"layers": [{"name": "conv"}]})),
    "no times": Forged(times=b""),
    "too few times": Forged(times=TIMES[:-8]),
    "more times": Forged(times=TIMES + TIMES[:8]),
    "half a time": Forged(times=TIMES[:-1]),
    "times that are no numbers": Forged(times=struct.pack("<6d", *[math.nan] * 6)),
    "times before the start": Forged(times=struct.pack("<6d", *[-1.0] * 6)),
    "endless times": Forged(times=struct.pack("<6d", *[math.inf] * 6)),
    "no profile": Forged(profile=""),
    "half a profile": Forged(profile=ROWS[:-13]),
    "a profile of words": Forged(profile=ROWS.replace("9", "nine")),
    "a profile without numbers": Forged(profile=ROWS.replace("9", "nan")),
}


def test_valid_program_output_is_accepted() -> None:
    measurement = time_program(Forged())
    assert measurement.network.times == RunTimes(1.0, 1.0, 1.0, 1.0, 1)
    assert [(layer.name, layer.cost.times) for layer in measurement.layers] == [
        ("conv", RunTimes(9e-6, 9e-6, 9e-6, 9e-6, 1))
    ]
    assert measurement.memory.arena == 64


@pytest.mark.parametrize("forged", FORGERIES.values(), ids=FORGERIES)
def test_invalid_program_output_is_refused(forged: Forged) -> None:
    with pytest.raises(UserError, match="E0652"):
        time_program(forged)
