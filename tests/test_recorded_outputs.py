"""Network outputs equal the record: a change is reported with its layer and target."""

import copy
import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tcc.backends.onnxruntime.backend import OnnxRuntime
from tcc.compiler.ir.graph import Model

ROOT = Path(__file__).resolve().parents[1]
TOOL = runpy.run_path(str(ROOT / "tools/recorded_outputs.py"))
changes, here = TOOL["list_changes"], TOOL["list_runnable_targets"]()


@pytest.fixture(scope="module")
def small():
    return TOOL["load_network"]("small")


@pytest.fixture
def stored_record():
    return json.loads(TOOL["get_record_path"]("small").read_text())


@pytest.mark.parametrize(
    "target",
    [
        "onnxruntime",
        "tflite",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("arm-a7", "host", "web")),
    ],
)
def test_outputs_equal_the_record(small, stored_record, target):
    if target not in here:
        pytest.skip(f"{target} does not run here")
    assert list(changes(small, stored_record, [target])) == []


@pytest.mark.slow
def test_outputs_of_a_zoo_network_equal_the_record():
    record = json.loads(TOOL["get_record_path"]("ddsnet-blood").read_text())
    assert list(changes(TOOL["load_network"]("ddsnet-blood"), record, ["onnxruntime"])) == []


def test_each_record_is_small_and_has_a_reason():
    for name in TOOL["NETWORKS"]:
        path = TOOL["get_record_path"](name)
        assert json.loads(path.read_text())["reason"]
        assert path.stat().st_size < 64_000


def test_a_change_of_reference_and_artifacts_is_reported(small, stored_record):
    """Changed weights of one layer change every target, so that no target disagrees."""
    programs = {}
    for program_kind, program in small.programs.items():
        weights = {k: np.array(v) for k, v in program.weights.items()}
        weights["conv_3.weight"].reshape(-1)[:64] ^= 0x7F
        programs[program_kind] = Model(program.graph, weights)
    reported_changes = list(
        changes(replace(small, programs=programs), stored_record, ["onnxruntime"])
    )
    assert [line.partition(":")[0] for line in reported_changes] == [
        "small int8 reference",
        "small int8-i8 reference",
        "small int8 onnxruntime",
        "small int8-i8 onnxruntime",
        "small int8-u8u8 onnxruntime",
    ]
    assert all("`conv_3` gives" in line for line in reported_changes)


def test_a_change_of_float_outputs_is_reported(small, stored_record):
    weights = {k: v * np.float32(1.01) for k, v in small.floats.weights.items()}
    scaled_network = replace(small, floats=Model(small.floats.graph, weights))
    reported_changes = list(changes(scaled_network, stored_record, ["onnxruntime"]))
    assert [line.partition(":")[0] for line in reported_changes] == [
        "small fp32 reference",
        "small fp32 onnxruntime",
        "small fp16 onnxruntime",
    ]


def test_a_change_of_qdq_outputs_is_reported(small, stored_record, monkeypatch):
    """These outputs are compared with the reference, which is in the record."""
    original_infer = OnnxRuntime.infer

    def infer_off_by_one(self, target, folder, source, tensors):
        return [
            {k: v + 1 for k, v in outputs.items()}
            for outputs in original_infer(self, target, folder, source, tensors)
        ]

    monkeypatch.setattr(OnnxRuntime, "infer", infer_off_by_one)
    reported_changes = list(changes(small, stored_record, ["onnxruntime"]))
    assert {line.partition(":")[0] for line in reported_changes} >= {
        "small int8-qdq onnxruntime", "small dynamic onnxruntime",
    }  # fmt: skip


@pytest.fixture
def change_layers(monkeypatch):
    def change(by):
        original_method = OnnxRuntime.trace_quantized_values
        monkeypatch.setattr(
            OnnxRuntime,
            "trace_quantized_values",
            lambda self, *arguments: map(by, original_method(self, *arguments)),
        )

    return change


def test_a_change_of_one_target_is_reported(small, stored_record, change_layers):
    change_layers(lambda layers: {**layers, "max_pool": layers["max_pool"] ^ 1})
    reported_changes = list(changes(small, stored_record, ["onnxruntime"]))
    assert len(reported_changes) == 3
    assert all("onnxruntime: `max_pool` gives" in line for line in reported_changes)


def test_a_target_without_layer_outputs_is_reported(small, stored_record, change_layers):
    change_layers(lambda layers: {})
    reported_changes = list(changes(small, stored_record, ["onnxruntime"]))
    assert [line.partition(": ")[2] for line in reported_changes] == [
        "none of its layers is shown"
    ] * 3


@pytest.mark.parametrize("part", ["layers", "outputs"])
def test_an_empty_record_is_reported(small, stored_record, part):
    emptied = copy.deepcopy(stored_record)
    emptied["int8"][part] = {}
    assert list(changes(small, emptied, []))


def test_a_record_without_floats_is_reported(small, stored_record):
    del stored_record["fp32"]["outputs"]["logits"]
    assert list(changes(small, stored_record, []))
