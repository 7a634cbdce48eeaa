"""`tcc verify` beside the integer program of a bundle: layers, goldens, and the first that breaks."""

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
def kept(tmp_path_factory) -> Path:
    """Where bundles lie that were built once."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def once(tcc, home, images, kept):
    """Build for ONNX Runtime with integers, or copy what was built so before."""

    def build(name: str, *words: str) -> Path:
        if not (kept / name).exists():
            assert tcc(*BUILD, "--target", "ort", "--data", images, *words).code == 0
            shutil.copytree(home / ORT, kept / name)
        else:
            shutil.copytree(kept / name, home / ORT)
        return home / ORT

    return build


@pytest.fixture
def probed(once) -> Path:
    """A bundle for ONNX Runtime with its integer program."""
    return once("probed", "--probes")


@pytest.fixture
def plain(once) -> Path:
    """The same without."""
    return once("plain")


def about(folder: Path) -> manifest.Manifest:
    return manifest.decode((folder / manifest.NAME).read_bytes(), "manifest")


def sealed(folder: Path, found: manifest.Manifest) -> None:
    """Write a manifest as a forger would: files hashed anew, sealed."""
    files = tuple(
        replace(f, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for f in found.files
        for data in [(folder / f.path).read_bytes()]
    )
    (folder / manifest.NAME).write_bytes(manifest.encode(replace(found, files=files)))


def other_weight(folder: Path) -> None:
    """Change the first weight of the first convolution of a file."""
    path = folder / "model/model.onnx"
    model = onnx.load(path)
    first = next(node for node in model.graph.node if node.op_type == "QLinearConv")
    tensor = next(t for t in model.graph.initializer if t.name == first.input[3])
    values = numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[:9] ^= 0x40
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    path.write_bytes(model.SerializeToString())
    sealed(folder, about(folder))


def test_layers_and_goldens_beside_the_program(tcc, probed):
    ended = tcc("verify", probed, "--json")
    assert ended.code == 0, ended.err
    found = ended.document["bundles"][0]["program"]
    assert [layer["name"] for layer in found["layers"]] == ["relu", "global_avg_pool"]
    assert [layer["values"] for layer in found["layers"]] == [2 * 4 * 8 * 8, 2 * 4]
    assert all(layer["differing"] == 0 and layer["exact"] for layer in found["layers"])
    assert [one["differing"] for one in found["goldens"]] == [0, 0]
    assert "2 layers, 520 levels beside the reference: 0 differ" in tcc("verify", probed).out


def test_a_bundle_without_its_program(tcc, plain):
    assert tcc("verify", ORT, "--json").document["bundles"][0]["program"] is None
    ended = tcc("verify", ORT, "--bisect")
    assert ended.code == 2
    assert "error[E0663]: there is no network to look for a layer in" in ended.err


class TestSpec:
    """The program made again from the spec, where a bundle has none."""

    @pytest.fixture
    def wide(self, once) -> Path:
        return once("wide", "--set", "width=5")

    def test_gives_the_layers(self, tcc, wide):
        ended = tcc("verify", wide, "--spec", "tiny.yaml", "--json")
        assert ended.code == 0, ended.err
        layers = ended.document["bundles"][0]["program"]["layers"]
        assert [layer["values"] for layer in layers] == [2 * 5 * 8 * 8, 2 * 5]

    def test_of_another_network(self, tcc, wide):
        ended = tcc("verify", wide, "--spec", "fastnet")
        assert ended.code == 2
        assert "error[E0664]: this is not what the bundle was built from" in ended.err

    def test_of_other_weights(self, tcc, home, wide):
        graph = load(home / "tiny.yaml", {"width": "5"}).graph
        weights.write(home / "w.safetensors", weights.initialize_random(graph, 7))
        ended = tcc("verify", wide, "--spec", "tiny.yaml", "--weights", "w.safetensors")
        assert ended.code == 2
        assert "error[E0664]: this is not what the bundle was built from" in ended.err
        assert "its weights have the digest " in ended.err

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            (
                lambda m: replace(
                    m, outputs=(replace(m.outputs[0], labels=("dog", "cat", "owl")),)
                ),
                "its outputs, or their labels, are not the spec's",
            ),
            (
                lambda m: replace(m, outputs=(replace(m.outputs[0], activation="sigmoid"),)),
                "its outputs, or their labels, are not the spec's",
            ),
        ],
        ids=["swapped labels", "another activation"],
    )
    def test_a_changed_contract_is_found(self, tcc, wide, change, found):
        sealed(wide, change(about(wide)))
        ended = tcc("verify", wide, "--spec", "tiny.yaml")
        assert ended.code == 2
        assert "error[E0664]: this is not what the bundle was built from" in ended.err
        assert found in ended.err


class TestBisect:
    def test_nothing_diverges(self, tcc, probed, home):
        assert tcc("verify", probed, "--bisect").code == 0
        assert not (home / "reproducer").exists()

    def test_the_first_layer_by_itself_runs_on_both_runtimes(self, tcc, probed, home):
        pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")
        other_weight(probed)
        ended = tcc("verify", probed, "--bisect", "--json")
        assert ended.code == 4
        (found,) = ended.document["bundles"]
        assert found["program"]["first_wrong"] == found["reproducer"]["layer"] == "relu"
        folder = home / found["reproducer"]["path"]
        said = json.loads((folder / "reproducer.json").read_text())
        assert (said["name"], said["target"], said["shape"]) == ("relu", "onnxruntime", [4, 8, 8])
        right, wrong = (
            np.frombuffer((folder / name).read_bytes(), said["dtype"])
            for name in ("expected.bin", "found.bin")
        )
        off = np.abs(right.astype(int) - wrong)
        assert (np.count_nonzero(off), off.max()) == (said["differing"], said["largest"])
        _, *words = shlex.split(found["reproducer"]["command"])
        assert tcc("check", folder / "spec.yaml").out.count("conv") == 1
        # The weights in it are right, so that both runtimes give what is expected.
        ended = tcc(*words, "--json")
        assert ended.code == 0, ended.err
        for each in ended.document["agreement"]["targets"]:
            assert each["outputs"]["differing"] == 0
            assert each["outputs"]["values"] == 3 * right.size

    def test_is_named_without_json(self, tcc, probed):
        other_weight(probed)
        ended = tcc("verify", probed, "--bisect", "-o", "found")
        assert "layer `relu` by itself: found/tiny-onnxruntime-relu" in ended.out
        assert "tcc build found/tiny-onnxruntime-relu/spec.yaml" in ended.out
        assert "relu" in ended.out.split("DIFFERS")[0]

    def test_leaves_another_folder_alone(self, tcc, probed, home):
        other_weight(probed)
        mine = home / "reproducer/tiny-onnxruntime-relu/mine.txt"
        mine.parent.mkdir(parents=True)
        mine.write_text("mine")
        assert tcc("verify", probed, "--bisect").code == 2
        assert mine.read_text() == "mine"


class TestForged:
    def test_a_flipped_bit_of_any_file_says_where(self, tcc, probed):
        for file in about(probed).files:
            path = probed / file.path
            right = path.read_bytes()
            data = bytearray(right)
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
            ended = tcc("verify", probed)
            assert ended.code == 2
            assert "error[E0622]: a file of the bundle was changed" in ended.err
            assert file.path in ended.err
            path.write_bytes(right)
        assert tcc("verify", probed).code == 0

    def test_a_flipped_bit_of_the_manifest(self, tcc, probed):
        path = probed / manifest.NAME
        right = path.read_bytes()
        for at in range(2, len(right) - 2, len(right) // 11):
            data = bytearray(right)
            data[at] ^= 1
            path.write_bytes(data)
            ended = tcc("verify", probed)
            assert ended.code == 2, (at, right[at - 20 : at + 20])
            assert str(path) in ended.err or str(probed) in ended.err

    def test_a_weight_with_hashes_made_anew_names_its_layer(self, tcc, probed):
        other_weight(probed)
        ended = tcc("verify", probed)
        assert ended.code == 4
        found = tcc("verify", probed, "--json").document["bundles"][0]["program"]
        assert found["first_wrong"] == "relu"
        assert found["layers"][0]["differing"] > 0

    def test_goldens_that_are_not_the_programs(self, tcc, probed):
        """Goldens and artifact changed together would agree; the program tells."""
        case = about(probed).goldens.cases[0]
        path = probed / case.outputs["logits"]
        path.write_bytes((np.frombuffer(path.read_bytes(), "<f4") + 1).astype("<f4").tobytes())
        sealed(probed, about(probed))
        ended = tcc("verify", probed, "--json")
        assert ended.code == 4
        goldens = ended.document["bundles"][0]["program"]["goldens"]
        assert [one["holds"] for one in goldens] == [False, True]

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            (lambda p: {**p, "tcc_program": 9}, "its version is not 1"),
            (lambda p: {**p, "nodes": p["nodes"][:-1]}, "output logits is not defined"),
            (lambda p: {**p, "nodes": []}, ""),
            (lambda p: {**p, "name": "other"}, "it is not the program of graph/int8.txt"),
            (lambda p: {**p, "outputs": []}, "its outputs are not the manifest's"),
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
    def test_a_damaged_program(self, tcc, probed, change, found):
        path = probed / "probes/program.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
        sealed(probed, about(probed))
        ended = tcc("verify", probed)
        assert ended.code == 2
        assert "error[E0665]: the bundle's integer program is damaged" in ended.err
        assert found in ended.err

    @pytest.mark.parametrize(
        "change", [lambda d: d[:-1], lambda d: d + b"\0"], ids=["less", "more"]
    )
    def test_weights_of_another_size(self, tcc, probed, change):
        path = probed / "probes/weights.bin"
        path.write_bytes(change(path.read_bytes()))
        sealed(probed, about(probed))
        ended = tcc("verify", probed)
        assert ended.code == 2
        assert "probes/weights.bin" in ended.err

    def test_a_program_of_other_weights_does_not_give_the_goldens(self, tcc, probed):
        path = probed / "probes/weights.bin"
        data = bytearray(path.read_bytes())
        data[0] ^= 0x40
        path.write_bytes(data)
        sealed(probed, about(probed))
        ended = tcc("verify", probed)
        assert ended.code == 4
        assert "not what its integer program gives" in ended.err or "relu" in ended.err


def test_probes_are_for_integers(tcc):
    ended = tcc("build", "tiny.yaml", "--target", "ort", "--probes")
    assert ended.code == 2
    assert "error[E0601]: `--probes` has no effect: no target is built in integers" in ended.err


def test_nothing_else_of_a_bundle_changes_with_probes(once, home):
    found = {}
    for name, words in (("probed", ("--probes",)), ("plain", ())):
        found[name] = {f.path: f.sha256 for f in about(once(name, *words)).files}
        shutil.rmtree(home / ORT)
    more = {"probes/program.json", "probes/weights.bin"}
    assert found["probed"].keys() - found["plain"].keys() == more
    # The bill of materials lists every file, these too.
    apart = {k for k, digest in found["plain"].items() if found["probed"][k] != digest}
    assert apart == {"bom.cdx.json"}
