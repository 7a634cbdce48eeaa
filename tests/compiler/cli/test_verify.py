"""`tcc verify`: goldens replayed on the artifact, bundles beside each other."""

import hashlib
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from tcc.backends.onnxruntime.backend import OnnxRuntime
from tcc.compiler.bundle import manifest
from tcc.compiler.support import json_records
from tcc.compiler.support.external_tools import MissingTool, Tool

INT8 = ("build", "tiny.yaml", "--target", "onnxruntime", "--precision", "int8", "-q")


@pytest.fixture
def wrong(monkeypatch):
    """Artifacts whose outputs something is done to."""

    def by(change) -> None:
        right = OnnxRuntime.infer

        def run(self, *arguments):
            return [{k: change(v) for k, v in o.items()} for o in right(self, *arguments)]

        monkeypatch.setattr(OnnxRuntime, "infer", run)

    return by


def resealed(folder, change):
    """Change the manifest of a bundle, and seal it again."""
    path = folder / manifest.NAME
    about = change(manifest.decode(path.read_bytes(), "manifest"))
    plain = json_records.encode(replace(about, seal=""))
    seal = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**plain, "seal": seal}))


def test_a_bundle_gives_its_goldens(tcc, built):
    found = tcc("verify", built)
    assert (found.code, found.err) == (0, "")
    head, *rows, uncompared = found.out.splitlines()
    assert "its weights and scales were not compared: --spec SPEC" in uncompared
    assert head.split() == ["bundle", "golden", "output", "differ", "by", "relative", "allowed"]
    assert [row.split()[1:3] for row in rows] == [["1", "logits"], ["2", "logits"]]
    assert all(row.split()[-1] in ("agrees", "bit") for row in rows)


def test_as_json(tcc, built):
    found = tcc("verify", built, "--json").document
    (one,) = found["bundles"]
    assert (one["path"], one["target"], one["precision"]) == (str(built), "onnxruntime", "fp32")
    assert one["tolerance"]["relative"] == 1e-4
    assert [each["golden"] for each in one["agreement"]] == ["1", "2"]
    assert all(0 <= each["differing"] <= each["values"] == 3 for each in one["agreement"])
    assert one["holds"] is True
    assert found["pairs"] == found["not_compared"] == []
    assert found["exit"] == 0


def test_counts_what_differs_and_by_how_much(tcc, built, wrong):
    wrong(lambda v: v + np.array([0, 0.5, 0], np.float32))
    found = tcc("verify", built, "--json")
    assert found.code == 4
    assert f"error: {built}: the artifact does not give its goldens" in found.err
    for each in found.document["bundles"][0]["agreement"]:
        assert each["differing"] >= 1
        assert each["largest"] == pytest.approx(0.5, rel=1e-4)
        assert each["difference"] == pytest.approx(each["largest"])  # the outputs are below 1
        assert each["holds"] is False
    assert "DISAGREES" in tcc("verify", built).out


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_agrees_with_nothing(tcc, built, wrong, value):
    wrong(lambda v: v * np.float32(value))
    found = tcc("verify", built, "--json")
    assert found.code == 4
    assert {each["largest"] for each in found.document["bundles"][0]["agreement"]} == {None}


def test_an_output_of_another_size(tcc, built, wrong):
    wrong(lambda v: v[:2])
    found = tcc("verify", built, built)
    assert found.code == 2
    assert "error[E0655]: the artifact does not give what the bundle's manifest says" in found.err
    assert "output `logits` is float32 2, not float32 3" in found.err


def test_integers_must_be_equal_to_the_bit(tcc, home, images, wrong):
    assert tcc(*INT8, "--data", images).code == 0
    folder = "build/tiny-onnxruntime-int8"
    found = tcc("verify", folder, "--json").document["bundles"][0]
    assert [each["differing"] for each in found["agreement"]] == [0, 0]
    assert tcc("verify", folder).out.count("to the bit") == 2
    wrong(lambda v: np.nextafter(v, np.float32(9)))
    found = tcc("verify", folder, "--json")
    assert found.code == 4
    assert [e["differing"] for e in found.document["bundles"][0]["agreement"]] == [3, 3]


class TestPairs:
    def test_one_network_in_two_forms(self, tcc, built):
        assert tcc("build", "tiny.yaml", "--target", "ort", "--precision", "fp16", "-q").code == 0
        found = tcc("verify", built, "build/tiny-onnxruntime-fp16", "--json")
        (pair,) = found.document["pairs"]
        assert (pair["first"], pair["output"], pair["inputs"]) == (str(built), "logits", 2)
        assert pair["exact"] is False
        assert 0 < pair["largest"] < 1e-2
        assert pair["cosine"] > 0.999
        assert pair["same"] == 2
        assert "2 of 2" in tcc("verify", built, "build/tiny-onnxruntime-fp16").out

    def test_the_difference_is_that_of_the_outputs(self, tcc, built, monkeypatch):
        other = built.with_name("other")
        shutil.copytree(built, other)
        right = OnnxRuntime.infer

        def run(self, target, folder, source, images):
            off = np.float32([3, 0, 0] if folder.parent == other else [0, 0, 0])
            return [
                {k: v + off for k, v in o.items()}
                for o in right(self, target, folder, source, images)
            ]

        monkeypatch.setattr(OnnxRuntime, "infer", run)
        (pair,) = tcc("verify", built, other, "--json").document["pairs"]
        assert pair["largest"] == pytest.approx(3, rel=1e-6)
        assert pair["differing"] == 2

    def test_two_exact_ones_are_equal_to_the_bit(self, tcc, home, images):
        assert tcc(*INT8, "--data", images).code == 0
        assert tcc(*INT8, "--data", images, "--out", "again").code == 0
        folders = ("build/tiny-onnxruntime-int8", "again/tiny-onnxruntime-int8")
        found = tcc("verify", *folders, "--json")
        (pair,) = found.document["pairs"]
        assert (pair["exact"], pair["differing"], pair["largest"]) == (True, 0, 0)

    def test_exact_and_float_share_the_images(self, tcc, built, images):
        assert tcc(*INT8, "--data", images).code == 0
        (pair,) = tcc("verify", built, "build/tiny-onnxruntime-int8", "--json").document["pairs"]
        assert (pair["exact"], pair["inputs"]) == (False, 2)
        assert 0 < pair["largest"] < 0.2

    @pytest.mark.parametrize(
        ("words", "why"),
        [
            (("--seed", "3"), "their weights differ"),
            (("--set", "width=5"), "their specs differ"),
        ],
        ids=str,
    )
    def test_other_networks_are_not_compared(self, tcc, built, words, why):
        build = ("build", "tiny.yaml", "--target", "ort", "--out", "other", "-q")
        assert tcc(*build, *words).code == 0
        found = tcc("verify", built, "other/tiny-onnxruntime-fp32", "--json").document
        assert found["pairs"] == []
        assert [each["why"] for each in found["not_compared"]] == [why]

    def test_another_contract(self, tcc, built):
        other = built.with_name("other")
        shutil.copytree(built, other)

        def darker(about):
            contract = replace(about.input.preprocess, mean=(0.5, 0.5, 0.5))
            return replace(about, input=replace(about.input, preprocess=contract))

        resealed(other, darker)
        found = tcc("verify", built, other)
        assert found.code == 2
        assert "its tensor is not what the input contract makes of it" in found.err


class TestTargets:
    """One network on two targets."""

    @pytest.fixture(autouse=True)
    def litert(self):
        pytest.importorskip("ai_edge_litert", reason="needs the extra `tflite`")

    def test_floats(self, tcc, home):
        assert tcc("build", "tiny.yaml", "--target", "ort,tflite", "-q").code == 0
        folders = ("build/tiny-onnxruntime-fp32", "build/tiny-tflite-fp32")
        found = tcc("verify", *folders, "--json")
        assert found.code == 0, found.err
        (pair,) = found.document["pairs"]
        assert pair["largest"] < 1e-5
        assert pair["same"] == pair["inputs"] == 2

    def test_integers(self, tcc, home, images):
        build = ("build", "tiny.yaml", "--precision", "int8", "--data", images, "-q")
        assert tcc(*build, "--target", "ort,tflite").code == 0
        folders = ("build/tiny-onnxruntime-int8", "build/tiny-tflite-int8")
        found = tcc("verify", *folders, "--json")
        assert found.code == 0, found.err
        for each in found.document["bundles"]:
            assert [one["differing"] for one in each["agreement"]] == [0, 0]
        # the last layer gives real numbers in one and 8-bit integers in the other
        assert [pair["exact"] for pair in found.document["pairs"]] == [False]

    def test_accuracy(self, tcc, home, images):
        assert tcc("build", "tiny.yaml", "--target", "ort,tflite", "-q").code == 0
        folders = ("build/tiny-onnxruntime-fp32", "build/tiny-tflite-fp32")
        first, second = (tcc("eval", f, "--data", images, "--json").document for f in folders)
        assert first["confusion"] == second["confusion"]
        assert second["target"] == "tflite"

    def test_a_model_that_the_runtime_cannot_load(self, tcc, home):
        assert tcc("build", "tiny.yaml", "--target", "tflite", "-q").code == 0
        folder = home / "build/tiny-tflite-fp32"
        (folder / "model/model.tflite").write_bytes(b"TFL3")
        digest = hashlib.sha256(b"TFL3").hexdigest()

        def listed(about):
            files = [
                replace(f, bytes=4, sha256=digest) if f.path == "model/model.tflite" else f
                for f in about.files
            ]
            return replace(about, files=tuple(files))

        resealed(folder, listed)
        found = tcc("verify", folder)
        assert found.code == 2
        assert "error[E0651]: LiteRT cannot run the model" in found.err


def test_a_missing_runtime(tcc, built, monkeypatch):
    tool = Tool("a-runtime", "run this", None, builds=False)

    def run(self, target, folder, *rest):
        if folder.parent != built:
            raise MissingTool(tool)
        return right(self, target, folder, *rest)

    right = OnnxRuntime.infer
    other = built.with_name("other")
    shutil.copytree(built, other)
    monkeypatch.setattr(OnnxRuntime, "infer", run)
    found = tcc("verify", other, built)
    assert found.code == 3
    assert "error: a-runtime is needed to run this, and is not here" in found.err
    assert "help: install it: pip install a-runtime" in found.err
    assert str(built) in found.out  # what can run is verified all the same
    listed = tcc("verify", other, built, "--json").document
    assert [each["holds"] for each in listed["bundles"]] == [None, True]
    assert listed["bundles"][0]["missing"]["name"] == "a-runtime"


class TestWhatIsNoBundle:
    def test_all_are_listed(self, tcc, built, home):
        (built / "model/model.onnx").write_bytes(b"")
        found = tcc("verify", home, built, "nothing")
        assert found.code == 2
        assert found.err.count("error[E0620]: there is no bundle here") == 2
        assert "error[E0622]: a file of the bundle was changed" in found.err
        assert found.out == ""

    def test_an_unknown_target(self, tcc, built):
        resealed(built, lambda m: replace(m, target="tin"))
        found = tcc("verify", built)
        assert found.code == 2
        assert "there is no target `tin`" in found.err

    @pytest.mark.parametrize(
        ("change", "label"),
        [
            ({"image": "../../one.png"}, "../../one.png is none of the bundle's files"),
            ({"image": None}, "goldens/1: it has no image"),
            ({"tensor": "gone.bin"}, "gone.bin is none of the bundle's files"),
            ({"tensor": "manifest.json"}, "none of the bundle's files"),
            ({"outputs": {"logits": "goldens/1/input.bin"}}, "is not its tensor's size"),
            ({"outputs": {"other": "goldens/1/output_0.bin"}}, "it has no output `logits`"),
            ({"outputs": {}}, "it has no output `logits`"),
            ({"name": "2"}, "goldens: `2` is there 2 times"),
        ],
        ids=str,
    )
    def test_goldens_that_are_not_there(self, tcc, built, change, label):
        def damaged(about):
            first, *rest = about.goldens.cases
            cases = (replace(first, **change), *rest)
            return replace(about, goldens=replace(about.goldens, cases=cases))

        resealed(built, damaged)
        found = tcc("verify", built)
        assert found.code == 2, found.out
        assert "error[E0621]: the bundle's manifest is damaged" in found.err
        assert label in found.err


def test_a_network_that_takes_no_image(tcc, home):
    text = (home / "tiny.yaml").read_text()
    (home / "tiny.yaml").write_text(
        text.replace("    preprocess: {resize: {size: [8, 8], mode: stretch}}\n", "")
    )
    assert tcc("build", "tiny.yaml", "--target", "ort", "-q").code == 0
    folder = "build/tiny-onnxruntime-fp32"
    found = tcc("verify", folder, folder, "--json")
    assert found.code == 0, found.err
    assert json.loads((home / folder / "manifest.json").read_text())["input"]["preprocess"] is None
    assert found.document["pairs"][0]["inputs"] == 2


@pytest.mark.parametrize(
    ("output", "decided"),
    [("activation: softmax", True), ("activation: sigmoid", True), ("activation: none", False)],
)
def test_what_is_decided_is_compared(tcc, home, output, decided):
    spec = (home / "tiny.yaml").read_text()
    head = spec[: spec.index("output:")]
    (home / "tiny.yaml").write_text(f"{head}output:\n  logits: {{{output}}}\n")
    for precision in ("fp32", "fp16"):
        words = ("build", "tiny.yaml", "--target", "onnxruntime", "--precision", precision)
        assert tcc(*words, "-q").code == 0
    folders = [f"build/tiny-onnxruntime-{precision}" for precision in ("fp32", "fp16")]
    (pair,) = tcc("verify", *folders, "--json").document["pairs"]
    assert pair["same"] == (pair["inputs"] if decided else None)


def swapped(about):
    """Call the first class as the second."""
    first, second, *rest = about.outputs[0].labels
    return replace(about, outputs=(replace(about.outputs[0], labels=(second, first, *rest)),))


def cropped(about):
    """Cut images instead of stretching them, which goldens of the input's own size do not show."""
    known = about.input.preprocess
    contract = replace(known, resize=replace(known.resize, mode="cover"))
    return replace(about, input=replace(about.input, preprocess=contract))


@pytest.mark.parametrize(("change", "label"), [(swapped, "labels"), (cropped, "preprocessing")])
def test_bundles_of_one_spec_say_the_same_of_it(tcc, built, change, label):
    """What a forger sealed again agrees with itself, but not with the spec or its sisters."""
    other = built.with_name("other")
    shutil.copytree(built, other)
    assert tcc("verify", built, other).code == 0
    resealed(other, change)
    assert tcc("verify", other).code == 0
    for words in ((built, other), (other, built), (other, "--spec", "tiny.yaml")):
        found = tcc("verify", *words)
        assert found.code == 2
        assert "error[E0664]" in found.err
        assert label in found.err
        assert str(other) in found.err


def test_a_release_that_was_not_proven_is_noted(tcc, built, monkeypatch):
    from tcc.compiler.support import external_tools
    from tcc.compiler.support.external_tools import ProvenRelease

    known = (ProvenRelease("onnxruntime", "0.1", ("small",), ""),)
    monkeypatch.setattr(external_tools, "load_proven_releases", lambda: known)
    ended = tcc("verify", built, "--json")
    (note,) = ended.document["notes"]
    assert note.endswith("is not among the releases that were proven: 0.1")
    assert f"note: {note}" in ended.err
    assert ended.code == 0


def test_the_published_schema_describes_the_manifest(built):
    from importlib.resources import files

    from jsonschema import Draft202012Validator

    text = (files("tcc.spec") / "schema/manifest.schema.json").read_text()
    schema = Draft202012Validator(json.loads(text))
    plain = json.loads((built / manifest.NAME).read_text())
    assert list(schema.iter_errors(plain)) == []
    for wrong in (
        {**plain, "tcc_bundle": 1},
        {**plain, "more": 1},
        {name: value for name, value in plain.items() if name != "goldens"},
        {**plain, "files": [{**plain["files"][0], "sha256": "0"}]},
        {**plain, "outputs": "none"},
    ):
        assert len(list(schema.iter_errors(wrong))) >= 1


def test_the_other_bundles_are_verified_where_one_cannot_be(tcc, built, home):
    (home / "build/empty").mkdir()
    damaged = home / "build/damaged"
    shutil.copytree(built, damaged)
    (damaged / "model/model.onnx").write_bytes(b"other")
    found = tcc("verify", "build/empty", built, damaged)
    assert found.code == 2
    rows = [
        line for line in found.out.splitlines() if line.startswith(str(built)) and "logits" in line
    ]
    assert len(rows) == 2
    assert "not verified: 2 of 3 bundles" in found.out
    assert "error[E0620]" in found.err
    assert "error[E0622]" in found.err
    document = tcc("verify", "build/empty", built, damaged, "--json").document
    assert [one["path"] for one in document["bundles"]] == [str(built)]
    assert document["bundles"][0]["holds"] is True
    assert [d["code"] for d in document["diagnostics"]] == ["E0620", "E0622"]
    assert document["exit"] == 2


def test_what_disagrees_goes_before_what_cannot_be_verified(tcc, built, home, wrong):
    (home / "build/empty").mkdir()
    wrong(lambda values: values + 1)
    found = tcc("verify", built, "build/empty")
    assert found.code == 4
    assert "does not give its goldens" in found.err
    assert "error[E0620]" in found.err
