"""Bundles: their contents, the checks of their integrity, and which folders they may replace."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcc.compiler.bundle import bundle_folder, manifest
from tcc.compiler.data import images
from tcc.compiler.driver import pipeline
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.device import Device, Plan
from tcc.compiler.ir.precision import FP32
from tcc.compiler.ir.printer import print_graph
from tcc.compiler.ir.target import Artifact, Refusal, Target
from tcc.compiler.passes import INFERENCE
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.external_tools import Tool
from tcc.compiler.support.progress import silent

SPEC = """\
tcc: 1
name: tiny
doc: A small network.
params: {classes: 3}
input:
  image: {shape: [3, 8, 8], preprocess: {resize: {size: [8, 8], mode: stretch}, mean: [0.5], std: [0.25]}}
graph:
  - conv: {filters: classes, kernel: 3, padding: 1}
  - batch_norm
  - relu
  - global_avg_pool
  - flatten
output:
  logits: {activation: softmax, labels: [a, b, c]}
"""
MEANS = """\
tcc: 1
name: means
input:
  image: {shape: [3, 8, 8], preprocess: {resize: {size: [8, 8], mode: stretch}}}
graph: [global_avg_pool, flatten]
output: {value: {}}
"""


class PrintingBackend:
    """A backend that writes the printed graph as the artifact."""

    targets = (Target("printer", "the graph", (FP32,)),)

    def tools(self, target):
        return (Tool("printer", "print", "1.2"),)

    def refusals(self, target, graph):
        return ()

    def passes(self, precision):
        return INFERENCE

    def emit(self, target, model, precision, progress):
        progress("print", 1, 1)
        return Artifact(
            {"graph.txt": print_graph(model.graph).encode(), "run": b"#!"}, frozenset({"run"})
        )


class RefusingBackend(PrintingBackend):
    targets = (Target("picky", "no graph", (FP32,)),)

    def refusals(self, target, graph):
        for node in graph.nodes:
            if node.op.keyword == "conv":
                yield Refusal(node, "kernels of 3 are too small", "take 5")


def parse_precision(target, precision):
    return FP32 if precision == FP32.name else None


def read_bundle(folder):
    return bundle_folder.read_bundle(folder, parse_precision, None)


def build_bundle(folder: Path, text: str = SPEC, weights=None, backend=None):
    path = folder / "net.yaml"
    path.write_text(text)
    spec = load(path)
    model_weights = pipeline.create_random_weights(spec.graph)
    if weights:
        model_weights = replace(model_weights, tensors={**model_weights.tensors, **weights})
    backend = backend or PrintingBackend()
    device = Device(backend, *backend.targets)
    bundles = pipeline.build(spec, model_weights, [Plan(device, FP32)], silent)
    return next(iter(bundles))


@pytest.fixture
def contents(tmp_path):
    return build_bundle(tmp_path)


@pytest.fixture
def folder(contents, tmp_path):
    return bundle_folder.write_bundle(contents, tmp_path / "out")


def list_errors(folder: Path) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_bundle(folder)
    return [d.code for d in caught.value.diagnostics]


def reseal_manifest(folder: Path, change) -> None:
    """Change a manifest and seal it again, as a forger would."""
    path = folder / "manifest.json"
    bundle_manifest = manifest.decode(path.read_bytes(), "manifest.json")
    path.write_bytes(manifest.encode(change(bundle_manifest)))


def read_values(folder: Path, name: str) -> np.ndarray:
    return np.frombuffer((folder / name).read_bytes(), "<f4")


def test_manifest_describes_the_model(contents):
    bundle_manifest = contents.manifest
    assert contents.name == "tiny-printer-fp32"
    assert (bundle_manifest.model.name, bundle_manifest.model.doc) == ("tiny", "A small network.")
    assert bundle_manifest.model.params == {"classes": "3"}
    assert len(bundle_manifest.model.spec) == 64
    assert bundle_manifest.made_with.keys() == {"numpy", "onnx", "onnxruntime", "printer", "tcc"}
    assert bundle_manifest.made_with["printer"] == "1.2"
    assert (
        bundle_manifest.input.name,
        bundle_manifest.input.shape,
        bundle_manifest.input.dtype,
    ) == (
        "image",
        (3, 8, 8),
        "float32",
    )
    (output,) = bundle_manifest.outputs
    assert (output.name, output.shape, output.activation) == ("logits", (3,), "softmax")
    assert output.labels == ("a", "b", "c")


def test_random_weights_have_a_notice(contents):
    assert contents.manifest.weights.origin == "random"
    assert contents.manifest.weights.seed == 0
    assert contents.manifest.weights.notice == (
        "the weights are random (seed 0): predictions mean nothing"
    )


def test_written_bundle_is_read_back(contents, folder):
    reread = read_bundle(folder)
    assert reread.manifest == contents.manifest
    assert (reread.model / "graph.txt").read_text().startswith("graph tiny {")
    assert (reread.model / "run").stat().st_mode & 0o100
    assert reread.input.preprocess == preprocess.Preprocess(
        resize=preprocess.PixelResize((8, 8)), mean=(0.5,), std=(0.25,)
    )


def test_the_same_build_gives_the_same_bytes(tmp_path):
    first_bundle, second_bundle = build_bundle(tmp_path), build_bundle(tmp_path)
    assert first_bundle.files == second_bundle.files
    assert manifest.encode(first_bundle.manifest) == manifest.encode(second_bundle.manifest)


def test_golden_images_give_the_golden_outputs(tmp_path):
    """The network computes the mean of each channel, so numpy gives the expected outputs."""
    folder = bundle_folder.write_bundle(build_bundle(tmp_path, MEANS), tmp_path / "out")
    bundle_manifest = read_bundle(folder).manifest
    assert len(bundle_manifest.goldens.cases) == 2
    for case in bundle_manifest.goldens.cases:
        pixels = images.read_image(folder / case.image)
        tensor = preprocess.apply(bundle_manifest.input.preprocess, pixels, (3, 8, 8))
        assert read_values(folder, case.tensor).tobytes() == tensor.astype("<f4").tobytes()
        expected = tensor.mean(axis=(1, 2), dtype=np.float64)
        np.testing.assert_allclose(read_values(folder, case.outputs["value"]), expected, rtol=1e-6)
        assert case.source.startswith("sample image ")
    assert 0 < bundle_manifest.goldens.tolerance.relative < 1e-3
    assert bundle_manifest.goldens.tolerance.reason


def test_goldens_are_noise_for_a_fixed_input_size(tmp_path):
    text = MEANS.replace(
        ", preprocess: {resize: {size: [8, 8], mode: stretch}}", ", preprocess: {}"
    )
    text = text.replace("[3, 8, 8]", "[3, 5, 7]")
    folder = bundle_folder.write_bundle(build_bundle(tmp_path, text), tmp_path / "out")
    for case in read_bundle(folder).manifest.goldens.cases:
        assert case.source == "noise"
        assert images.read_image(folder / case.image).shape == (5, 7, 3)


def test_goldens_without_an_image(tmp_path):
    text = MEANS.replace(", preprocess: {resize: {size: [8, 8], mode: stretch}}", "")
    folder = bundle_folder.write_bundle(build_bundle(tmp_path, text), tmp_path / "out")
    for case in read_bundle(folder).manifest.goldens.cases:
        assert (case.source, case.image) == ("noise", None)
        tensor = read_values(folder, case.tensor).reshape(3, 8, 8)
        assert np.abs(tensor).max() <= 1
        np.testing.assert_allclose(
            read_values(folder, case.outputs["value"]), tensor.mean(axis=(1, 2)), atol=1e-6
        )


def test_weights_that_overflow_are_refused(tmp_path):
    huge = {"conv.weight": np.full((3, 3, 3, 3), 3e38, np.float32)}
    with pytest.raises(UserError, match=r"E0508.*output `logits` is not finite") as caught:
        build_bundle(tmp_path, weights=huge)
    assert caught.value.diagnostics[0].at.line == 12


def test_unsupported_layer_is_located_before_any_work(tmp_path):
    with pytest.raises(UserError) as caught:
        build_bundle(tmp_path, backend=RefusingBackend())
    text = str(caught.value).replace(str(tmp_path), "TMP")
    assert text.startswith("error[E0607]: picky cannot run `batch_norm` (conv)\n")
    assert "--> TMP/net.yaml:8:5" in text
    assert "kernels of 3 are too small\n" in text
    assert text.endswith("= help: take 5")


class TestReplacing:
    def test_older_bundle_is_replaced(self, contents, folder):
        (folder / "model/graph.txt").write_text("damaged")
        bundle_folder.write_bundle(contents, folder.parent)
        assert read_bundle(folder)

    def test_empty_folder_is_replaced(self, contents, tmp_path):
        (tmp_path / "out/tiny-printer-fp32").mkdir(parents=True)
        assert read_bundle(bundle_folder.write_bundle(contents, tmp_path / "out"))

    @pytest.mark.parametrize(
        ("spoil", "reason"),
        [
            (lambda f: (f / "notes.txt").write_text("mine"), "not belong to the bundle: notes.txt"),
            (lambda f: (f / "model/x").write_text("mine"), "not belong to the bundle: model/x"),
            (lambda f: (f / "manifest.json").unlink(), "it is not a bundle"),
            (lambda f: (f / "manifest.json").write_text("{}"), "not a bundle's manifest"),
            (lambda f: (f / "manifest.json").write_text("{"), "manifest is damaged"),
        ],
    )
    def test_folder_with_other_files_is_kept(self, contents, folder, spoil, reason):
        spoil(folder)
        previous_files = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        with pytest.raises(UserError, match=f"E0602.*{reason}"):
            bundle_folder.write_bundle(contents, folder.parent)
        assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == previous_files

    def test_existing_file_is_kept(self, contents, tmp_path):
        (tmp_path / "tiny-printer-fp32").write_text("mine")
        with pytest.raises(UserError, match=r"E0602.*it is not a folder"):
            bundle_folder.write_bundle(contents, tmp_path)
        assert (tmp_path / "tiny-printer-fp32").read_text() == "mine"


class TestDamage:
    def test_missing_bundle_is_reported(self, tmp_path):
        with pytest.raises(UserError, match=r"E0620.*there is no bundle here"):
            read_bundle(tmp_path / "nothing")

    def test_all_damaged_files_are_listed(self, folder):
        (folder / "model/graph.txt").write_bytes(b"x")
        (folder / "goldens/1/input.bin").unlink()
        data = bytearray((folder / "goldens/2/input.bin").read_bytes())
        data[100] ^= 1
        (folder / "goldens/2/input.bin").write_bytes(data)
        with pytest.raises(UserError) as caught:
            read_bundle(folder)
        assert [d.message for d in caught.value.diagnostics] == [
            "a file of the bundle is missing",
            "a file of the bundle was changed",
            "a file of the bundle was changed",
        ]
        assert [d.code for d in caught.value.diagnostics] == ["E0622"] * 3
        assert caught.value.diagnostics[1].label == "its SHA-256 differs from the manifest"
        assert caught.value.diagnostics[2].label.startswith("it has 1 bytes; the manifest lists ")

    def test_edited_manifest_is_refused(self, folder):
        path = folder / "manifest.json"
        path.write_text(path.read_text().replace('"a",', '"z",'))
        assert list_errors(folder) == ["E0621"]

    def test_manifest_of_another_version_is_refused(self, folder):
        path = folder / "manifest.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"tcc_bundle": 1}))
        with pytest.raises(UserError, match="`tcc_bundle` is 1, but this tcc reads 2"):
            read_bundle(folder)

    @pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a": NaN}'])
    def test_invalid_manifest_is_refused(self, folder, data):
        (folder / "manifest.json").write_bytes(data)
        assert list_errors(folder) == ["E0621"]

    @pytest.mark.parametrize("path", ["../../net.yaml", "/etc/passwd", "model/../../../net.yaml"])
    def test_path_outside_the_folder_is_refused(self, folder, path):
        def escape(bundle_manifest):
            return replace(
                bundle_manifest,
                files=(replace(bundle_manifest.files[0], path=path), *bundle_manifest.files[1:]),
            )

        reseal_manifest(folder, escape)
        assert list_errors(folder) == ["E0623"]

    def test_link_outside_the_folder_is_refused(self, folder, tmp_path):
        (tmp_path / "same").write_bytes((folder / "model/run").read_bytes())
        (folder / "model/run").unlink()
        (folder / "model/run").symlink_to(tmp_path / "same")
        assert list_errors(folder) == ["E0623"]

    def test_invalid_preprocessing_is_refused(self, folder):
        def set_negative_std(bundle_manifest):
            contract = replace(bundle_manifest.input.preprocess, std=(-1.0,))
            return replace(
                bundle_manifest, input=replace(bundle_manifest.input, preprocess=contract)
            )

        reseal_manifest(folder, set_negative_std)
        assert list_errors(folder) == ["E0621"]


@pytest.fixture(scope="module")
def manifest_bytes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    return manifest.encode(build_bundle(folder).manifest)


@given(st.data())
def test_truncated_or_changed_manifest_is_refused(manifest_bytes, data):
    at = data.draw(st.integers(0, len(manifest_bytes) - 2))
    byte = data.draw(st.none() | st.integers(0, 255).filter(lambda b: b != manifest_bytes[at]))
    spoiled = (
        manifest_bytes[:at]
        if byte is None
        else manifest_bytes[:at] + bytes([byte]) + manifest_bytes[at + 1 :]
    )
    if byte is not None and spoiled.split() == manifest_bytes.split():
        return  # whitespace replaced by whitespace
    with pytest.raises(UserError, match="E0621"):
        manifest.decode(spoiled, "manifest.json")
