"""`tcc verify` against the integer program of a bundle: layers, goldens, and the first wrong one."""

import hashlib
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tcc.compiler.bundle import manifest
from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load

ORT = "build/tiny-onnxruntime-int8"
BUILD = ("build", "tiny.yaml", "--precision", "int8", "--method", "minmax", "-q")


@pytest.fixture(scope="module")
def bundle_cache(tmp_path_factory) -> Path:
    """A folder with bundles that were already built."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def build_once(tcc, home, images, bundle_cache):
    """Build an int8 bundle for ONNX Runtime, or copy an earlier one."""

    def build(name: str, *args: str) -> Path:
        if not (bundle_cache / name).exists():
            assert tcc(*BUILD, "--target", "ort", "--data", images, *args).code == 0
            shutil.copytree(home / ORT, bundle_cache / name)
        else:
            shutil.copytree(bundle_cache / name, home / ORT)
        return home / ORT

    return build


@pytest.fixture
def probed(build_once) -> Path:
    """A bundle for ONNX Runtime with its integer program."""
    return build_once("probed", "--probes")


@pytest.fixture
def unprobed(build_once) -> Path:
    """The same bundle without its integer program."""
    return build_once("plain")


def read_manifest(folder: Path) -> manifest.Manifest:
    return manifest.decode((folder / manifest.NAME).read_bytes(), "manifest")


def write_sealed_manifest(folder: Path, forged_manifest: manifest.Manifest) -> None:
    """Write a manifest as a forger would: with updated file hashes and a valid seal."""
    files = tuple(
        replace(f, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for f in forged_manifest.files
        for data in [(folder / f.path).read_bytes()]
    )
    (folder / manifest.NAME).write_bytes(manifest.encode(replace(forged_manifest, files=files)))


def change_weight(folder: Path) -> None:
    """Change the first weights of the first convolution of a file."""
    path = folder / "model/model.onnx"
    model = onnx.load(path)
    first_conv = next(node for node in model.graph.node if node.op_type == "QLinearConv")
    tensor = next(t for t in model.graph.initializer if t.name == first_conv.input[3])
    values = numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[:9] ^= 0x40
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path.write_bytes(model.SerializeToString())
    write_sealed_manifest(folder, read_manifest(folder))


def test_layers_and_goldens_match_the_program(tcc, probed):
    outcome = tcc("verify", probed, "--json")
    assert outcome.code == 0, outcome.err
    program = outcome.document["bundles"][0]["program"]
    assert [layer["name"] for layer in program["layers"]] == ["relu", "global_avg_pool"]
    assert [layer["values"] for layer in program["layers"]] == [2 * 4 * 8 * 8, 2 * 4]
    assert all(layer["differing"] == 0 and layer["exact"] for layer in program["layers"])
    assert [golden["differing"] for golden in program["goldens"]] == [0, 0]
    assert "2 layers, 520 values compared with the reference: 0 differ" in tcc("verify", probed).out


def test_bisect_without_a_program_is_refused(tcc, unprobed):
    assert tcc("verify", ORT, "--json").document["bundles"][0]["program"] is None
    outcome = tcc("verify", ORT, "--bisect")
    assert outcome.code == 2
    assert "error[E0663]: --bisect needs the network of this bundle" in outcome.err


class TestSpec:
    """The program is rebuilt from the spec if the bundle has none."""

    @pytest.fixture
    def wide(self, build_once) -> Path:
        return build_once("wide", "--set", "width=5")

    def test_spec_gives_the_layers(self, tcc, wide):
        outcome = tcc("verify", wide, "--spec", "tiny.yaml", "--json")
        assert outcome.code == 0, outcome.err
        layers = outcome.document["bundles"][0]["program"]["layers"]
        assert [layer["values"] for layer in layers] == [2 * 5 * 8 * 8, 2 * 5]

    def test_spec_of_another_network_is_refused(self, tcc, wide):
        outcome = tcc("verify", wide, "--spec", "fastnet")
        assert outcome.code == 2
        assert "error[E0664]: the bundle does not match the given spec or weights" in outcome.err

    def test_other_weights_are_refused(self, tcc, home, wide):
        graph = load(home / "tiny.yaml", {"width": "5"}).graph
        weights.write(home / "w.safetensors", weights.initialize_random(graph, 7))
        outcome = tcc("verify", wide, "--spec", "tiny.yaml", "--weights", "w.safetensors")
        assert outcome.code == 2
        assert "error[E0664]: the bundle does not match the given spec or weights" in outcome.err
        assert "its weights have the digest " in outcome.err

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda m: replace(
                    m, outputs=(replace(m.outputs[0], labels=("dog", "cat", "owl")),)
                ),
                "its outputs or their labels differ from the spec",
            ),
            (
                lambda m: replace(m, outputs=(replace(m.outputs[0], activation="sigmoid"),)),
                "its outputs or their labels differ from the spec",
            ),
        ],
        ids=["swapped labels", "another activation"],
    )
    def test_changed_outputs_in_the_manifest_are_detected(self, tcc, wide, change, message):
        write_sealed_manifest(wide, change(read_manifest(wide)))
        outcome = tcc("verify", wide, "--spec", "tiny.yaml")
        assert outcome.code == 2
        assert "error[E0664]: the bundle does not match the given spec or weights" in outcome.err
        assert message in outcome.err


class TestBisect:
    def test_correct_bundle_has_no_reproducer(self, tcc, probed, home):
        assert tcc("verify", probed, "--bisect").code == 0
        assert not (home / "reproducer").exists()

    def test_reproducer_runs_on_both_runtimes(self, tcc, probed, home):
        pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
        change_weight(probed)
        outcome = tcc("verify", probed, "--bisect", "--json")
        assert outcome.code == 4
        (bundle_report,) = outcome.document["bundles"]
        assert (
            bundle_report["program"]["first_wrong"]
            == bundle_report["reproducer"]["layer"]
            == "relu"
        )
        folder = home / bundle_report["reproducer"]["path"]
        reproducer_json = json.loads((folder / "reproducer.json").read_text())
        assert (reproducer_json["name"], reproducer_json["target"], reproducer_json["shape"]) == (
            "relu",
            "onnxruntime",
            [4, 8, 8],
        )
        expected_values, actual_values = (
            np.frombuffer((folder / name).read_bytes(), reproducer_json["dtype"])
            for name in ("expected.bin", "found.bin")
        )
        difference = np.abs(expected_values.astype(int) - actual_values)
        assert (np.count_nonzero(difference), difference.max()) == (
            reproducer_json["differing"],
            reproducer_json["largest"],
        )
        _, *args = shlex.split(bundle_report["reproducer"]["command"])
        assert tcc("check", folder / "spec.yaml").out.count("conv") == 1
        # Its weights are correct, so both runtimes give the expected outputs.
        outcome = tcc(*args, "--json")
        assert outcome.code == 0, outcome.err
        for target_row in outcome.document["agreement"]["targets"]:
            assert target_row["outputs"]["differing"] == 0
            assert target_row["outputs"]["values"] == 3 * expected_values.size

    def test_reproducer_is_named_in_text_output(self, tcc, probed):
        change_weight(probed)
        outcome = tcc("verify", probed, "--bisect", "-o", "found")
        assert "reproducer of layer `relu`: found/tiny-onnxruntime-relu" in outcome.out
        assert "tcc build found/tiny-onnxruntime-relu/spec.yaml" in outcome.out
        assert "relu" in outcome.out.split("DIFFERS")[0]

    def test_existing_folder_is_kept(self, tcc, probed, home):
        change_weight(probed)
        own_file = home / "reproducer/tiny-onnxruntime-relu/mine.txt"
        own_file.parent.mkdir(parents=True)
        own_file.write_text("mine")
        assert tcc("verify", probed, "--bisect").code == 2
        assert own_file.read_text() == "mine"


class TestForged:
    def test_flipped_bit_of_any_file_is_located(self, tcc, probed):
        for file in read_manifest(probed).files:
            path = probed / file.path
            original_bytes = path.read_bytes()
            data = bytearray(original_bytes)
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
            outcome = tcc("verify", probed)
            assert outcome.code == 2
            assert "error[E0622]: a file of the bundle was changed" in outcome.err
            assert file.path in outcome.err
            path.write_bytes(original_bytes)
        assert tcc("verify", probed).code == 0

    def test_flipped_bit_of_the_manifest_is_detected(self, tcc, probed):
        path = probed / manifest.NAME
        original_bytes = path.read_bytes()
        for at in range(2, len(original_bytes) - 2, len(original_bytes) // 11):
            data = bytearray(original_bytes)
            data[at] ^= 1
            path.write_bytes(data)
            outcome = tcc("verify", probed)
            assert outcome.code == 2, (at, original_bytes[at - 20 : at + 20])
            assert str(path) in outcome.err or str(probed) in outcome.err

    def test_changed_weight_with_new_hashes_names_its_layer(self, tcc, probed):
        change_weight(probed)
        outcome = tcc("verify", probed)
        assert outcome.code == 4
        program = tcc("verify", probed, "--json").document["bundles"][0]["program"]
        assert program["first_wrong"] == "relu"
        assert program["layers"][0]["differing"] > 0

    def test_goldens_that_differ_from_the_program_are_detected(self, tcc, probed):
        """Goldens and artifact changed together would agree, but not with the program."""
        case = read_manifest(probed).goldens.cases[0]
        path = probed / case.outputs["logits"]
        path.write_bytes((np.frombuffer(path.read_bytes(), "<f4") + 1).astype("<f4").tobytes())
        write_sealed_manifest(probed, read_manifest(probed))
        outcome = tcc("verify", probed, "--json")
        assert outcome.code == 4
        goldens = outcome.document["bundles"][0]["program"]["goldens"]
        assert [golden["holds"] for golden in goldens] == [False, True]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda p: {**p, "tcc_program": 9}, "its version is not 1"),
            (lambda p: {**p, "nodes": p["nodes"][:-1]}, "output logits is not defined"),
            (lambda p: {**p, "nodes": []}, ""),
            (lambda p: {**p, "name": "other"}, "it does not match graph/int8.txt"),
            (lambda p: {**p, "outputs": []}, "its outputs do not match the manifest"),
            (lambda p: {}, "it cannot be read: KeyError"),
            (lambda p: [p], "it cannot be read: TypeError"),
            (
                lambda p: {**p, "nodes": [{**n, "op": {"word": "os"}} for n in p["nodes"]]},
                "it cannot be read: KeyError",
            ),
            (
                lambda p: {**p, "inputs": [{**p["inputs"][0], "shape": [3, 1 << 20, 1 << 20]}]},
                "",
            ),
        ],
    )
    def test_damaged_program_is_refused(self, tcc, probed, change, message):
        path = probed / "probes/program.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
        write_sealed_manifest(probed, read_manifest(probed))
        outcome = tcc("verify", probed)
        assert outcome.code == 2
        assert "error[E0665]: the bundle's integer program is damaged" in outcome.err
        assert message in outcome.err

    @pytest.mark.parametrize(
        "change", [lambda d: d[:-1], lambda d: d + b"\0"], ids=["less", "more"]
    )
    def test_probe_weights_of_another_size_are_refused(self, tcc, probed, change):
        path = probed / "probes/weights.bin"
        path.write_bytes(change(path.read_bytes()))
        write_sealed_manifest(probed, read_manifest(probed))
        outcome = tcc("verify", probed)
        assert outcome.code == 2
        assert "probes/weights.bin" in outcome.err

    def test_program_with_other_weights_disagrees(self, tcc, probed):
        path = probed / "probes/weights.bin"
        data = bytearray(path.read_bytes())
        data[0] ^= 0x40
        path.write_bytes(data)
        write_sealed_manifest(probed, read_manifest(probed))
        outcome = tcc("verify", probed)
        assert outcome.code == 4
        assert "not those of its int8 program" in outcome.err or "relu" in outcome.err


def test_probes_need_an_int8_target(tcc):
    outcome = tcc("build", "tiny.yaml", "--target", "ort", "--probes")
    assert outcome.code == 2
    assert "error[E0601]: `--probes` has no effect: no target is built as int8" in outcome.err


def test_probes_only_add_files(build_once, home):
    digests_by_bundle = {}
    for name, args in (("probed", ("--probes",)), ("plain", ())):
        digests_by_bundle[name] = {
            f.path: f.sha256 for f in read_manifest(build_once(name, *args)).files
        }
        shutil.rmtree(home / ORT)
    probe_files = {"probes/program.json", "probes/weights.bin"}
    assert digests_by_bundle["probed"].keys() - digests_by_bundle["plain"].keys() == probe_files
    # The bill of materials lists every file, including these.
    differing_files = {
        k
        for k, digest in digests_by_bundle["plain"].items()
        if digests_by_bundle["probed"][k] != digest
    }
    assert differing_files == {"bom.cdx.json"}
