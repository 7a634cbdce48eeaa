"""The board programs with fake vendor headers."""

import json
import runpy
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest

from tcc.backends.pulsar import contract
from tcc.compiler.ir.graph import Graph, Input, Output
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.ir.types import TensorType

COMPILER = shutil.which("c++") or shutil.which("g++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
LABELS = ('a "b"', "日本\\??/", "line\nbreak1")


def make_graph(color, channels):
    source = Input("image", TensorType((channels, 2, 3)), Preprocess(color))
    logits = Input("logits", TensorType((3,)))
    return Graph("net", (source, logits), (), (Output("logits", "logits", "softmax", LABELS),))


def make_single_input_graph(color, channels):
    """Return a graph with one input, as `contract` takes it."""
    trimmed = make_graph(color, channels)
    object.__setattr__(trimmed, "types", trimmed.types)
    object.__setattr__(trimmed, "inputs", trimmed.inputs[:1])
    return trimmed


CHECKED = "-fsanitize=address,undefined -fno-sanitize-recover=all"
PROGRAMS = [
    "joint",
    *(
        pytest.param(f"{arguments} {CHECKED}", marks=pytest.mark.slow)
        for arguments in ("joint", "engine", "engine -DSTUB_NO_ATTRIBUTES")
    ),
]
"""One unchanged, and all with checks of every access and overflow."""


@pytest.fixture(params=PROGRAMS, scope="module")
def program(request, tmp_path_factory, root):
    """Compile one of the programs."""
    folder = tmp_path_factory.mktemp("program")
    source, *extra_flags = request.param.split()
    (folder / "contract.h").write_bytes(contract.render_header(make_single_input_graph("bgr", 3)))
    (folder / "network_io.h").write_bytes(contract.read_device_file("network_io.h"))
    (folder / "classify.cc").write_bytes(contract.read_device_file(f"{source}.cc"))
    strict = ["-Wall", "-Wextra", "-Wconversion", "-Wcast-qual", "-pedantic", "-Werror"]
    flags = ["-std=c++11", "-O0", *strict, "-DSTUB_INPUT=18", *extra_flags]
    headers = ["-I", root / "tests/npu_headers"]
    command = [COMPILER, *flags, *headers, "classify.cc", "-o", "classify"]
    completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    return folder


def run(folder, *arguments):
    return subprocess.run(
        ["./classify", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def compute_classes(pixels):
    """Return the fake network's probability of each label for bytes, the largest first."""
    sums = np.array([np.sum(pixels.reshape(-1)[n::3] / 1000.0) for n in range(3)])
    shares = np.exp(sums) / np.exp(sums).sum()
    return [(LABELS[n], shares[n]) for n in np.argsort(-shares)]


def parse_lines(text):
    return [
        tuple(line.split("\t")) for line in text.replace("line\nbreak", "line break").splitlines()
    ]


@needs_compiler
def test_a_program_prints_the_probabilities_of_an_image(program):
    folder = program
    (folder / "model").write_bytes(b"model")
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3, 3), np.uint8)
    (folder / "in.ppm").write_bytes(b"P6 # size\n3 2\n255\n" + pixels.tobytes())
    bgr = np.ascontiguousarray(pixels[:, :, ::-1])
    (folder / "in.bin").write_bytes(bgr.tobytes())
    expected = [
        ("logits", label.replace("\n", " "), probability)
        for label, probability in compute_classes(bgr)
    ]
    for name in ("in.ppm", "in.bin"):
        completed = run(folder, "model", name, ".")
        assert completed.returncode == 0, completed.stderr
        lines = parse_lines(completed.stdout)
        assert [line[:2] for line in lines] == [line[:2] for line in expected]
        assert [float(line[2]) for line in lines] == pytest.approx(
            [line[2] for line in expected], rel=1e-4
        )
        raw = np.fromfile(folder / "logits.bin", np.float32)
        assert raw == pytest.approx(
            [np.sum(bgr.reshape(-1)[n::3] / 1000.0) for n in range(3)], rel=1e-5
        )


WRONG = {
    "another size": (
        b"P6 2 3 255\n" + bytes(18),
        "image is 2x3 with 3 channels, but the network needs 3x2 with 3",
    ),
    "grey": (
        b"P5 3 2 255\n" + bytes(18),
        "image is 3x2 with 1 channels, but the network needs 3x2 with 3",
    ),
    "cut short": (b"P6 3 2 255\n" + bytes(17), "but the network needs"),
    "16 bits": (b"P6 3 2 65535\n" + bytes(36), "49 bytes, but the network needs 18"),
    "nothing": (b"", "0 bytes, but the network needs 18"),
}


@needs_compiler
def test_a_program_refuses_inputs_that_do_not_fit(program):
    folder = program
    (folder / "model").write_bytes(b"model")
    for content, message in WRONG.values():
        (folder / "in").write_bytes(content)
        completed = run(folder, "model", "in")
        assert (completed.returncode, message in completed.stderr) == (1, True), completed.stderr
    assert run(folder, "none", "in").returncode == 2
    assert run(folder).returncode == 2
    (folder / "model").write_bytes(b"other model")
    completed = run(folder, "model", "in")
    assert (completed.returncode, "CreateHandle failed: 0x80" in completed.stderr) == (1, True)


def test_the_python_program_prints_the_same(tmp_path, monkeypatch, capsys):
    from PIL import Image

    pixels = np.random.default_rng(2).integers(0, 256, (2, 3, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "in.png")
    bgr = np.ascontiguousarray(pixels[:, :, ::-1])
    (tmp_path / "in.bin").write_bytes(bgr.tobytes())

    class Session:
        def __init__(self, path):
            assert path == "model"

        def get_inputs(self):
            return [types.SimpleNamespace(name="image", shape=[1, 2, 3, 3])]

        def get_outputs(self):
            return [types.SimpleNamespace(name="logits")]

        def run(self, names, feeds):
            assert feeds["image"].dtype == np.uint8
            return [np.array([np.sum(feeds["image"].reshape(-1)[n::3] / 1000.0) for n in range(3)])]

    (tmp_path / "classify.py").write_bytes(contract.read_device_file("engine.py"))
    (tmp_path / "contract.json").write_bytes(
        contract.encode_contract(make_single_input_graph("bgr", 3))
    )
    monkeypatch.setitem(sys.modules, "axengine", types.SimpleNamespace(InferenceSession=Session))
    for name in ("in.png", "in.bin"):
        monkeypatch.setattr(sys, "argv", ["classify.py", "model", str(tmp_path / name)])
        runpy.run_path(str(tmp_path / "classify.py"), run_name="__main__")
        lines = parse_lines(capsys.readouterr().out)
        expected = compute_classes(bgr)
        assert [line[1] for line in lines] == [label.replace("\n", " ") for label, _ in expected]
    assert json.loads(contract.encode_labels(make_single_input_graph("bgr", 3))) == {
        "logits": list(LABELS)
    }
