"""Bundles that somebody edited and sealed again: each command that runs them detects the change."""

import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest

from tcc.backends.onnxruntime.backend import OnnxRuntime
from tcc.compiler.bundle import manifest

RUN, VERIFY, EVAL = "run", "verify", "eval"


def read_manifest(folder: Path) -> manifest.Manifest:
    return manifest.decode((folder / manifest.NAME).read_bytes(), "manifest")


def write_sealed_manifest(folder: Path, forged_manifest: manifest.Manifest) -> None:
    """Write a manifest as a forger would: with updated file hashes and a valid seal."""
    files = tuple(
        replace(f, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for f in forged_manifest.files
        for data in [(folder / f.path).read_bytes()]
    )
    path = folder / manifest.NAME
    path.write_bytes(manifest.encode(replace(forged_manifest, files=files)))


@pytest.fixture
def commands(tcc, picture, images):
    """Run the three commands that execute a bundle."""

    def run(folder: Path, *args: str):
        return {
            RUN: tcc("run", folder, picture, *args),
            VERIFY: tcc("verify", folder, *args),
            EVAL: tcc("eval", folder, "--data", images, *args),
        }

    return run


def change_goldens(change):
    return lambda m: replace(m, goldens=change(m.goldens))


def change_tolerance(value: float):
    return change_goldens(lambda g: replace(g, tolerance=replace(g.tolerance, relative=value)))


def change_output(**change):
    return lambda m: replace(m, outputs=(replace(m.outputs[0], **change),))


def change_input(**change):
    return lambda m: replace(m, input=replace(m.input, **change))


FORGED = {
    "no goldens": (change_goldens(lambda g: replace(g, cases=())), "goldens: there are 0, but a bundle"),
    "one golden": (change_goldens(lambda g: replace(g, cases=g.cases[:1])), "goldens: there are 1, but a bun"),
    "one golden twice": (
        change_goldens(lambda g: replace(g, cases=(g.cases[0], replace(g.cases[0], name="2")))),
        "goldens: two of them have the same input",
    ),
    "a huge tolerance": (change_tolerance(1e9), "1e+09 is out of range; onnxruntime allows at most 0.0001 at fp32"),
    "a larger tolerance": (change_tolerance(0.001), "goldens/tolerance: 0.001 is out of range"),
    "a negative tolerance": (change_tolerance(-1.0), "goldens/tolerance: -1 is out of range"),
    "another precision's tolerance": (
        lambda m: change_tolerance(0.1)(replace(m, precision="fp16")),
        "0.1 is out of range; onnxruntime allows at most 0.01 at fp16",
    ),
    "integers without a calibration": (
        lambda m: replace(m, precision="int8"),
        "calibration: it is missing at int8",
    ),
    "a precision that is none": (lambda m: replace(m, precision="int7"), "onnxruntime has no precision int7"),
    "too few labels": (change_output(labels=("a", "b")), "there are 2 labels for 3 classes"),
    "too many labels": (change_output(labels=("a", "b", "c", "d")), "there are 4 labels for 3 classes"),
    "a label twice": (change_output(labels=("a", "b", "a")), "`a` is listed 2 times"),
    "no outputs": (lambda m: replace(m, outputs=()), "outputs: there are none"),
    "an output twice": (lambda m: replace(m, outputs=m.outputs * 2), "`logits` is listed 2 times"),
    "an output without a shape": (change_output(shape=()), "() is not a valid output shape"),
    "an empty output": (change_output(shape=(0,), labels=()), "0 is not a valid output shape"),
    "a huge output": (change_output(shape=(1 << 40,), labels=()), "1099511627776 is not a valid output shape"),
    "a larger output": (change_output(shape=(4,), labels=()), "its tensor has"),
    "an output of another type": (change_output(dtype="int64"), "raw outputs are float32, not `int64`"),
    "an input of no type": (change_input(dtype="text"), "`text` is not a known element type"),
    "an input of no shape": (change_input(shape=()), "() is neither an image nor a vector"),
    "an input of 0 rows": (change_input(shape=(3, 0, 8)), "3x0x8 is neither an image nor a vector"),
    "a larger input": (change_input(shape=(3, 16, 16)), "preprocessing gives 3x8x8, not 3x16x16"),
    "no preprocessing": (change_input(preprocess=None), "the input is no image"),
    "random weights, unsaid": (
        lambda m: replace(m, weights=replace(m.weights, notice=None)),
        "weights: they are random, but `notice` is empty",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "label"), FORGED.values(), ids=FORGED)
def test_inconsistent_manifest_is_refused(commands, built, change, label):
    write_sealed_manifest(built, change(read_manifest(built)))
    for command, outcome in commands(built).items():
        assert outcome.code == 2, command
        assert "error[E0621]: the bundle's manifest is damaged" in outcome.err
        assert f"--> {built / manifest.NAME}" in outcome.err
        assert label in outcome.err


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", '"0"', "true", "null"])
def test_invalid_tolerance_is_refused(commands, built, number):
    path = built / manifest.NAME
    path.write_text(path.read_text().replace('"relative": 0.0001', f'"relative": {number}'))
    for outcome in commands(built).values():
        assert outcome.code == 2
        assert "error[E0621]" in outcome.err


WRONG_OUTPUTS = {
    "another name": (
        lambda outputs: {"other": outputs["logits"]},
        "its outputs are other, not logits",
    ),
    "one too many": (
        lambda outputs: {**outputs, "other": outputs["logits"]},
        "its outputs are logits, other, not logits",
    ),
    "none": (lambda outputs: {}, "its outputs are none, not logits"),
    "another shape": (
        lambda outputs: {"logits": outputs["logits"][:2]},
        "output `logits` is float32 2, not float32 3",
    ),
    "another rank": (
        lambda outputs: {"logits": outputs["logits"][:, None]},
        "output `logits` is float32 3x1, not float32 3",
    ),
    "empty": (
        lambda outputs: {"logits": outputs["logits"][:0]},
        "output `logits` is float32 0, not float32 3",
    ),
    "another type": (
        lambda outputs: {"logits": outputs["logits"].astype(np.int64)},
        "output `logits` is int64 3, not float32 3",
    ),
}


@pytest.mark.parametrize(("change", "label"), WRONG_OUTPUTS.values(), ids=WRONG_OUTPUTS)
def test_artifact_with_other_outputs_is_refused(commands, built, monkeypatch, change, label):
    infer = OnnxRuntime.infer
    monkeypatch.setattr(OnnxRuntime, "infer", lambda *w: [change(o) for o in infer(*w)])
    for command, outcome in commands(built).items():
        assert outcome.code == 2, command
        assert "error[E0655]: the artifact's outputs do not match the bundle's" in outcome.err
        assert f"--> {built / 'model'}" in outcome.err
        assert label in outcome.err


def test_build_with_other_outputs_is_not_written(tcc, home, monkeypatch):
    infer = OnnxRuntime.infer
    truncate_outputs = lambda *args: [{"logits": o["logits"][:2]} for o in infer(*args)]  # noqa: E731
    monkeypatch.setattr(OnnxRuntime, "infer", truncate_outputs)
    outcome = tcc("build", "tiny.yaml", "--target", "ort")
    assert outcome.code == 4
    assert "does not match the reference outputs; nothing is written" in outcome.err
    assert "output `logits` is float32 2, not float32 3" in outcome.err
    assert list((home / "build").iterdir()) == []


class TestCollapse:
    """Outputs that would pass if only the difference relative to the largest number counted."""

    @pytest.fixture
    def small(self, tcc, built, monkeypatch):
        """An artifact with outputs smaller than the allowed rounding error of `dynamic`."""
        dynamic = ("build", "tiny.yaml", "--target", "ort", "--precision", "dynamic", "-q")
        assert tcc(*dynamic).code == 0
        rmtree(built)
        Path("build/tiny-onnxruntime-dynamic").rename(built)
        infer = OnnxRuntime.infer
        share = np.float32(1e-3)
        scale_outputs = lambda outputs: {k: v * share for k, v in outputs.items()}  # noqa: E731
        monkeypatch.setattr(OnnxRuntime, "infer", lambda *w: [scale_outputs(o) for o in infer(*w)])
        for path in built.glob("goldens/*/output_0.bin"):
            path.write_bytes((np.frombuffer(path.read_bytes(), "<f4") * share).tobytes())
        write_sealed_manifest(built, read_manifest(built))
        assert tcc("verify", built).code == 0
        return OnnxRuntime.infer

    @pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
    def test_constant_outputs_disagree(self, tcc, built, small, monkeypatch, value):
        outputs = {"logits": np.full(3, value, np.float32)}
        monkeypatch.setattr(OnnxRuntime, "infer", lambda *args: [outputs, outputs])
        assert tcc("verify", built).code == 4

    def test_tolerance_is_relative_to_the_golden_values(self, tcc, built, small, monkeypatch):
        def verify_scaled(share):
            scaled = lambda *args: [  # noqa: E731
                {k: v * np.float32(1 + share) for k, v in o.items()} for o in small(*args)
            ]
            monkeypatch.setattr(OnnxRuntime, "infer", scaled)
            return tcc("verify", built)

        assert verify_scaled(0.3).code == 4
        assert verify_scaled(0.05).code == 0

    def test_same_output_for_every_image_disagrees(self, tcc, built, small, monkeypatch):
        repeat_first = lambda *args: [small(*args)[0]] * 2  # noqa: E731
        monkeypatch.setattr(OnnxRuntime, "infer", repeat_first)
        outcome = tcc("verify", built, "--json")
        assert outcome.code == 4
        agreement = outcome.document["bundles"][0]["agreement"]
        assert [comparison["stuck"] for comparison in agreement] == [True, True]

    def test_nan_goldens_disagree(self, tcc, built, monkeypatch):
        nan_outputs = np.full(3, np.nan, np.float32)
        monkeypatch.setattr(OnnxRuntime, "infer", lambda *args: [{"logits": nan_outputs}] * 2)
        for path in built.glob("goldens/*/output_0.bin"):
            path.write_bytes(nan_outputs.tobytes())
        write_sealed_manifest(built, change_tolerance(0.0)(read_manifest(built)))
        assert tcc("verify", built).code == 4

    def test_equal_goldens_are_reported(self, tcc, built, monkeypatch):
        logits = np.float32([1, 2, 3])
        monkeypatch.setattr(OnnxRuntime, "infer", lambda *args: [{"logits": logits}] * 2)
        for path in built.glob("goldens/*/output_0.bin"):
            path.write_bytes(logits.tobytes())
        write_sealed_manifest(built, read_manifest(built))
        outcome = tcc("verify", built)
        assert outcome.code == 0
        assert "all goldens have the same output `logits`" in outcome.err

    def test_golden_tensor_must_match_its_image(self, tcc, built):
        path = built / "goldens/1/input.bin"
        path.write_bytes(bytes(len(path.read_bytes())))
        write_sealed_manifest(built, read_manifest(built))
        outcome = tcc("verify", built)
        assert outcome.code == 2
        assert "its stored tensor differs from the preprocessed image" in outcome.err


def test_unlisted_file_is_refused(commands, built):
    (built / "model/evil-run").write_text("#!/bin/sh\n")
    for outcome in commands(built).values():
        assert outcome.code == 2
        assert "error[E0622]: the manifest does not list this file" in outcome.err


@pytest.mark.parametrize("name", ["model/model.onnx", "goldens/1/input.bin", "manifest.json"])
@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_pipes_devices_and_folders_are_refused(commands, built, name, kind):
    path = built / name
    path.unlink()
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
    for outcome in commands(built).values():
        assert outcome.code == 2
        assert "error[" in outcome.err
        assert str(built) in outcome.err


def replace_while_running(monkeypatch, built, change, times):
    """Replace the bundle with another one during its first runs, as a build does."""
    infer, calls = OnnxRuntime.infer, []

    def infer_and_replace(*args):
        outputs = infer(*args)
        calls.append(args)
        if len(calls) <= times:
            fresh = built.with_name("fresh")
            copytree(built, fresh)
            change(fresh)
            built.rename(built.with_name(f"old-{len(calls)}"))
            fresh.rename(built)
        return outputs

    monkeypatch.setattr(OnnxRuntime, "infer", infer_and_replace)
    return calls


@pytest.mark.parametrize("times", [1, 3])
def test_same_bundle_rebuilt_during_a_run(tcc, built, images, monkeypatch, times):
    """Two builds into one folder do not disturb a reader: it runs once more."""
    evaluate = ("eval", built, "--data", images, "--json")
    expected_document = json.loads(tcc(*evaluate).out)
    calls = replace_while_running(monkeypatch, built, lambda _: None, times)
    document = json.loads(tcc(*evaluate).out)
    assert {k: v for k, v in document.items() if v != expected_document[k]}.keys() <= {"seconds"}
    assert len(calls) > times  # the counted run started and ended with the same folder
    assert tcc("verify", built).code == 0


def change_model_name(fresh):
    original_manifest = read_manifest(fresh)
    write_sealed_manifest(
        fresh, replace(original_manifest, model=replace(original_manifest.model, name="another"))
    )


def change_model_byte(fresh):
    path = fresh / "model/model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def remove_manifest(fresh):
    (fresh / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("change", "times"),
    [
        pytest.param(lambda _: None, 1000, id="replaced every time"),
        *((change, 1) for change in (change_model_name, change_model_byte, remove_manifest)),
    ],
)
def test_other_bundle_written_during_a_run_is_refused(
    tcc, built, images, monkeypatch, change, times
):
    replace_while_running(monkeypatch, built, change, times)
    for args in (("eval", built, "--data", images), ("verify", built)):
        outcome = tcc(*args)
        assert outcome.code == 2
        assert "error[E0622]" in outcome.err
        assert "another bundle replaced this one while it was in use" in outcome.err
        if times == 1:
            return  # the new bundle is another one, and is evaluated as such


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    """A bundle for this machine, built once."""
    pytest.importorskip("tvm", reason="needs the extra `arm`")
    from typer.testing import CliRunner

    from tcc.compiler.cli import app

    folder = tmp_path_factory.mktemp("host")
    text = (Path(__file__).parent / "conftest.py").read_text().partition('SPEC = """\\\n')[2]
    (folder / "tiny.yaml").write_text(text.partition('"""')[0])
    args = ["build", str(folder / "tiny.yaml"), "--target", "host", "--out", str(folder), "-q"]
    assert CliRunner().invoke(app, args).exit_code == 0
    return folder / "tiny-host-fp32"


DESCRIPTION = json.dumps({"outputs": [{"name": "logits", "shape": [3]}]})
PROGRAMS = {
    "no JSON": ("print('hello')", "E0652", "it is not JSON"),
    "nothing": ("", "E0652", "it is not JSON"),
    "no text": ("sys.stdout.buffer.write(bytes(range(256)))", "E0652", "lists no valid outputs"),
    "another document": ("print('[]')", "E0652", "it has no outputs, or they are too large"),
    "no shape": ("print('{\"outputs\": [{\"name\": \"x\"}]}')", "E0652", "no valid name or shape"),
    "a shape of words": (
        "print('{\"outputs\": [{\"name\": \"x\", \"shape\": [\"3\"]}]}')", "E0652", "no valid name or shape",
    ),
    "a huge shape": (
        "print('{\"outputs\": [{\"name\": \"x\", \"shape\": [99999999999]}]}')", "E0652", "too lar",
    ),
    "deep": ("print('[' * 100000)", "E0652", "lists no valid outputs"),
    "without end": (
        "while True: print('x' * 65536)", "E0652", "the program writes more than its outputs",
    ),
    "no raw file": (f"print('{DESCRIPTION}')", "E0652", "the program did not write its raw outputs"),
    "a short raw file": (
        f"print('{DESCRIPTION}'); raw(b'1234')", "E0652", "4 bytes instead of ",
    ),
    "a long raw file": (f"print('{DESCRIPTION}'); raw(bytes(999))", "E0652", "more bytes instead of"),
    "another output": (
        f"print('{DESCRIPTION}'.replace('logits', 'x')); raw(bytes(12 * images))", "E0655",
        "its outputs are x, not logits",
    ),
    "status 9": ("sys.stderr.write('no\\n'); sys.exit(9)", "E0652", "failed with status 9"),
    "a signal": ("os.kill(os.getpid(), 11)", "E0652", "the program failed with signal 11"),
    "sleep": ("import time; time.sleep(600)", "E0652", "the program used no processor time for "),
}  # fmt: skip


@pytest.mark.parametrize(("text", "code", "label"), PROGRAMS.values(), ids=PROGRAMS)
def test_replaced_program_is_refused(commands, runner, tmp_path, monkeypatch, text, code, label):

    from tcc.compiler.support import bounded_process

    if "sleep" in text:  # for other cases one second without a processor is possible
        monkeypatch.setattr(bounded_process, "IDLE_SECONDS", 1)
    folder = tmp_path / "forged"
    copytree(runner, folder)
    program = folder / "model/tiny-run"
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "images = sum(1 for word in sys.argv if word.endswith(('.ppm', '.bin')))\n"
        "def raw(data):\n"
        "    if '--raw' in sys.argv:\n"
        "        open(sys.argv[sys.argv.index('--raw') + 1], 'wb').write(data)\n"
        f"{text}\n"
    )
    write_sealed_manifest(folder, read_manifest(folder))
    for command, outcome in commands(folder, "--trust").items():
        assert outcome.code == 2, (command, outcome.out, outcome.err)
        assert f"error[{code}]" in outcome.err
        assert label in outcome.err


@pytest.mark.parametrize("op_name", ["WHILE", "IF", "CALL_ONCE", "VAR_HANDLE"])
def test_tflite_file_with_control_flow_is_refused(tcc, home, images, commands, op_name):
    pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    assert tcc("build", "tiny.yaml", "--target", "tflite", "-q").code == 0
    folder = home / "build/tiny-tflite-fp32"
    path = folder / "model/model.tflite"
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    code = model.operatorCodes[-1]
    code.builtinCode = getattr(schema.BuiltinOperator, op_name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    write_sealed_manifest(folder, read_manifest(folder))
    for outcome in commands(folder).values():
        assert outcome.code == 2
        assert f"--> {path}" in outcome.err
        assert f"it has the operator `{op_name}`, which tcc does not write" in outcome.err
