"""Integer programs as ARM kernels: the result of each step against the reference executor."""

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from arm_steps import Array, Library, read_stored

from tcc.backends.arm.machine import Machine
from tcc.backends.arm.schedule.partition import partition
from tcc.backends.arm.schedule.program import Program
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import integer_program
from tcc.testing.int8_models import calibrate_on_input, lower_for_int8, sample_input
from tcc.testing.random_steps import sample_graph


def build_random_program(seed: int) -> Model:
    """Return the integer program of a random graph with random weights.

    One in two has quantized outputs. One in four keeps a few layers in float.
    """
    graph, weights = sample_graph(seed)
    model = lower_for_int8(graph, weights)
    calibration = calibrate_on_input(
        model, sample_input(model.graph, seed), stretch=(1.0, 0.6, 2.0)[seed % 3]
    )
    rng = np.random.default_rng(seed)
    names = [node.name for node in model.graph.nodes if rng.random() < (seed % 4 == 1) / 3]
    mixed_calibration = replace(calibration, float_io=seed % 2 == 0, in_float=frozenset(names))
    return quantize(model, mixed_calibration)


def find_exact_values(graph: Graph) -> set[str]:
    """Return the values of node groups that compute only on integers."""
    inexact = set(integer_program.find_inexact_nodes(graph))
    groups = partition(graph)
    return {g.output_node.name for g in groups if not inexact & {node.name for node in g.all_nodes}}


FLOATS = 1e-4
"""Allowed error of float layers, relative to the largest value of the layer."""
LEVELS = 1
"""Allowed difference of the quantized outputs of a float layer."""


def count_differences(
    model: Model,
    seed: int,
    compute_results: Callable[[Mapping[str, Array]], Mapping[str, Array]],
    *,
    in_turn: bool = False,
) -> dict[str, int]:
    """Return how many elements differ in the result of each step.

    Integers must be bit-exact, floats within their bound. `compute_results` gives the results of
    steps on correct inputs. With `in_turn`, each step reads the results before it, and the
    reference runs on the same inputs.
    """
    x = sample_input(model.graph, seed)
    (expected,) = integer_program.run(model, [x], keep_all=True)
    exact = find_exact_values(model.graph)
    source = model.graph.inputs[0]
    actual = compute_results({**expected, source.name: x.astype(source.type.dtype.value)})
    if in_turn:
        (expected,) = integer_program.run(model, [x], keep_all=True, overrides=actual)
    return {
        name: _count_differing(step_output, expected[name], name in exact)
        for name, step_output in actual.items()
    }


def _count_differing(actual: Array, expected: Array, exact: bool) -> int:
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    if exact:
        bits = np.dtype(f"u{actual.itemsize}")
        return int((actual.view(bits) != expected.view(bits)).sum())
    real = expected.dtype == np.float32
    allowed = FLOATS * float(np.abs(expected).max()) if real else LEVELS
    within_tolerance = np.abs(actual.astype(np.float64) - expected.astype(np.float64)) <= allowed
    return int((~within_tolerance).sum())  # NaN is close to nothing


def find_differing_steps(
    library: Library, program: Program, model: Model, seed: int = 0
) -> Mapping[str, int]:
    """Return the number of elements that differ from the reference, for steps with differences."""
    source = model.graph.inputs[0].name

    def run_steps(expected: Mapping[str, Array]) -> Mapping[str, Array]:
        return dict(library.steps(program, {source: expected[source]}, expected))

    return {name: n for name, n in count_differences(model, seed, run_steps).items() if n}


def run_artifact_layers(
    folder: Path, machine: Machine, model: Model, x: Array, threads: int = 1
) -> dict[str, Array]:
    """Return the layer outputs of the runner program in a folder for one input.

    It runs in qemu if the machine needs it.
    """
    source, types = model.graph.inputs[0], model.graph.types
    (program,) = folder.glob("*-run")
    emulator = [] if machine.native else [machine.qemu, "-cpu", machine.qemu_cpu]
    kind = "u1" if source.type.dtype.value == "uint8" else "<f4"
    (folder / "tensor.bin").write_bytes(np.ascontiguousarray(x, kind).tobytes())
    arguments = (
        "--quiet",
        "--threads",
        str(threads),
        "--layers",
        "layers",
        "--tensor",
        "tensor.bin",
    )
    run = partial(subprocess.run, cwd=folder, check=True, capture_output=True)
    run([*emulator, program, *arguments])
    layers = json.loads(run([*emulator, program, "--describe"]).stdout)["layers"]
    output_bytes = (folder / "layers").read_bytes()
    assert len(output_bytes) == sum(layer["bytes"] for layer in layers)
    layer_outputs: dict[str, Array] = {}
    offset = 0
    for layer in layers:
        kind = types[layer["name"]]
        layer_bytes = output_bytes[offset : offset + layer["bytes"]]
        tensor = read_stored(np.frombuffer(layer_bytes, layer["type"].partition("-")[0]), kind)
        offset += layer["bytes"]
        if layer["kernel"] != "copy":  # the last call completes the value
            layer_outputs[layer["name"]] = tensor.reshape(types[layer["name"]].shape)
    return layer_outputs
