"""Libraries that count saturated values, and those without counters."""

import ctypes
import subprocess

import numpy as np
import pytest
from quant_sets import make_lowered_model, write_tensors

from tcc.backends.arm import compile_model
from tcc.backends.arm.codegen import c_header
from tcc.backends.arm.machine import MACHINES
from tcc.compiler.passes import INT8
from tcc.compiler.quant.calibrate import calibrate
from tcc.compiler.quant.methods.minmax import MINMAX
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import integer_program
from tcc.testing.nets import build_dense

HOST = next(machine for machine in MACHINES if machine.target.name == "host")


class Saturation(ctypes.Structure):
    _fields_ = (("at_end", ctypes.c_uint64), ("count", ctypes.c_uint64))


def count_saturated(program, inputs, layers):
    """Return the counts of the reference."""
    rows = integer_program.run(program, inputs, keep_all=True)
    counts = {}
    for name in layers:
        if program.graph.types[name].dtype.value in ("int8", "uint8"):
            quantized_values = np.concatenate([row[name].ravel() for row in rows])
            low, high = program.graph.types[name].limits
            assert quantized_values.dtype == (np.int8 if low else np.uint8)
            at_limits = (quantized_values == high) | (quantized_values == low if low else False)
            counts[name] = (int(at_limits.sum()), quantized_values.size)
    return counts


@pytest.mark.slow
def test_saturation_counts_match_the_reference(tmp_path):
    model = make_lowered_model(build_dense(), INT8)
    shape = model.graph.inputs[0].type.shape
    program = quantize(
        model, calibrate(model, write_tensors(tmp_path, shape, 4), MINMAX).calibration
    )
    inputs = [3 * x for x in np.random.default_rng(3).normal(size=(3, *shape)).astype(np.float32)]
    artifact = compile_model.emit(HOST, program, is_instrumented=True)
    for path, content in artifact.files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    library = ctypes.CDLL(str(tmp_path / "libdense.so"))
    library.dense_create.restype = ctypes.c_void_p
    header = (tmp_path / "dense.h").read_text()
    size = int(header.partition("_ARENA_SIZE ")[2].split()[0])
    arena = ctypes.create_string_buffer(b"\xa5" * size, size)
    instance = ctypes.c_void_p(library.dense_create(arena, ctypes.c_size_t(size)))
    output = (ctypes.c_float * 64)()
    layers = list(artifact.layers)

    def read_counts():
        counts = {}
        for number, name in enumerate(layers):
            layer_saturation = Saturation()
            assert (
                library.dense_layer_saturation(instance, number, ctypes.byref(layer_saturation))
                == 0
            )
            counts[name] = (layer_saturation.at_end, layer_saturation.count)
        return {name: pair for name, pair in counts.items() if pair[1]}

    assert read_counts() == {}
    for tensor in inputs:
        assert library.dense_run(instance, tensor.ctypes.data_as(ctypes.c_void_p), output) == 0
    expected = count_saturated(program, inputs, layers)
    assert any(saturated_count for saturated_count, _ in expected.values())
    assert read_counts() == expected
    assert library.dense_layer_saturation(instance, len(layers), ctypes.byref(Saturation())) == 1
    assert library.dense_layer_saturation(instance, 0, None) == 1
    assert library.dense_reset_saturation(instance) == 0
    assert read_counts() == {}
    runner = tmp_path / "dense-run"
    runner.chmod(0o755)
    options = []
    for number, tensor in enumerate(inputs):
        tensor.tofile(tmp_path / f"{number}.bin")
        options += ["--tensor", str(tmp_path / f"{number}.bin")]
    summary = subprocess.run([runner, *options], capture_output=True, text=True, check=True).stdout
    for name, (saturated_count, count) in expected.items():
        assert f"%  {name} ({saturated_count} of {count})\n" in summary
    quiet = subprocess.run(
        [runner, "--quiet", *options], capture_output=True, text=True, check=True
    )
    assert quiet.stdout == ""


def test_uninstrumented_sources_have_no_counters():
    plain_sources, counting_sources = (
        c_header.load_runtime_sources("net", frozenset(features)) for features in ((), ("COUNTS",))
    )
    for file in plain_sources:
        assert "saturation" not in plain_sources[file]
        assert "COUNTS" not in plain_sources[file]
        counting_lines = counting_sources[file].splitlines()
        assert all(line in counting_lines for line in plain_sources[file].splitlines())
    assert "net_reset_saturation" in counting_sources["functions.h"]
    assert "print_saturation" in counting_sources["runner.c"]
