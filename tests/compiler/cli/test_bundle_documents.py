"""The model card and the bill of materials of a bundle."""

import json
import re
import shutil

import pytest

import tcc
from tcc.compiler.data import weights as tensors
from tcc.compiler.driver import pipeline
from tcc.compiler.zoo import trained

CARD, BILL = "model-card.md", "bom.cdx.json"
REQUIRED = {
    "": {"bomFormat", "specVersion"},
    "component": {"type", "name"},
    "hash": {"alg", "content"},
    "dependency": {"ref"},
}
"""Required keys of each object type in CycloneDX 1.6 (bom-1.6.schema.json)."""
KINDS = {"application", "file", "library", "machine-learning-model"}
SERIAL = r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def read_documents(folder):
    return {name: (folder / name).read_bytes() for name in (CARD, BILL)}


@pytest.mark.filterwarnings("ignore::tcc.CalibrationWarning")
def test_bill_of_materials_lists_every_file_in_cyclonedx_form(home, images):
    bundle = tcc.build("tiny.yaml", "ort", precision="int8", data=images, method="minmax")
    bill = json.loads((bundle.folder / BILL).read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(SERIAL, bill["serialNumber"])
    assert "timestamp" not in bill["metadata"]
    model, parts = bill["metadata"]["component"], bill["components"]
    for component in (model, *parts, *bill["metadata"]["tools"]["components"]):
        assert component.keys() >= REQUIRED["component"]
        assert component["type"] in KINDS
    hashes = {
        component["name"]: component["hashes"][0]
        for component in parts
        if component["type"] == "file"
    }
    assert all(component.keys() == REQUIRED["hash"] for component in hashes.values())
    digest_by_path = {file.path: file.sha256 for file in bundle.manifest.files}
    assert {name: component["content"] for name, component in hashes.items()} == {
        name: digest for name, digest in digest_by_path.items() if name not in (CARD, BILL)
    }
    assert digest_by_path.keys() >= {CARD, BILL}
    references = [component["bom-ref"] for component in (model, *parts)]
    assert len(references) == len(set(references))
    (leads,) = bill["dependencies"]
    assert {leads["ref"], *leads["dependsOn"]} <= set(references)
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]


def test_documents_depend_only_on_the_inputs(home):
    spec = home / "tiny.yaml"
    first_documents, repeated_documents, other_documents = (
        read_documents(tcc.build(spec, "ort", out=home / name, seed=seed).folder)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first_documents == repeated_documents
    assert (
        json.loads(first_documents[BILL])["serialNumber"]
        != json.loads(other_documents[BILL])["serialNumber"]
    )


def test_model_card_has_the_required_facts_and_escapes_markup(home):
    text = (home / "tiny.yaml").read_text()
    doc = "doc: 'For <script>tiles</script> | [a](b)'\n"
    (home / "tiny.yaml").write_text(text.replace("name: tiny\n", f"name: tiny\n{doc}"))
    card = (tcc.build("tiny.yaml", "ort").folder / CARD).read_text()
    for phrase in (
        "# tiny for onnxruntime at fp32",
        "cat, dog, owl",
        "the weights are random (seed 0)",
    ):
        assert phrase in card
    assert r"For &lt;script&gt;tiles&lt;/script&gt; \| \[a\](b)" in card


@pytest.mark.parametrize("name", [CARD, BILL])
def test_changed_document_is_detected(home, name):
    bundle = tcc.build("tiny.yaml", "ort")
    data = bytearray((bundle.folder / name).read_bytes())
    data[100] ^= 1
    (bundle.folder / name).write_bytes(data)
    with pytest.raises(tcc.UserError, match=rf"E0622(.|\n)*{name}"):
        tcc.verify(bundle)


def read_card(bundle):
    """Return the items of a card by heading."""
    parts = (bundle.folder / CARD).read_text().split("\n## ")[1:]
    return {part.splitlines()[0]: part.splitlines()[2:] for part in parts}


REPORT = {
    "tcc_training": 1,
    "data": {"classes": ["cat", "dog", "owl"], "images": {"train": [3, 4, 5], "test": [1, 2, 0]}},
    "test": {
        "images": 3, "correct": 2, "accuracy": 2 / 3, "interval": {"low": 0.0943, "high": 0.9916},
    },
}  # fmt: skip
ACCURACY = "- accuracy: 2 of 3 test images correct, 66.67% (95 % confidence interval 9.43% to 99.16%), in float32"


@pytest.fixture
def run(home):
    """A folder with weights and a training report, as `tcc train` writes it."""
    spec = tcc.load("tiny.yaml")
    weights = pipeline.create_random_weights(spec.graph, 3)
    (home / "run").mkdir()
    tensors.write(home / "run/weights.safetensors", weights.tensors, {tensors.SPEC_KEY: "tiny"})
    report = REPORT | {"weights": weights.origin.digest, "network": {"spec": spec.digest}}
    (home / "run/report.json").write_text(json.dumps(report))
    return home / "run"


def test_card_has_the_training_report_of_its_weights(home, run):
    card = read_card(tcc.build("tiny.yaml", "ort", run / "weights.safetensors"))
    assert card["Training data"] == [
        "- from the report of the run folder, for weights with this digest",
        "- train: 12 images (cat 3, dog 4, owl 5)",
        "- test: 3 images (cat 1, dog 2, owl 0)",
    ]
    assert card["Evaluation"] == [ACCURACY]
    medical = "- not a medical device: do not base a diagnosis on the results"
    assert medical in card["Intended use"]


EXTRA_REPORT = {
    "epochs": 9, "kept": 4, "seed": 2, "recipe": "ab" * 32, "finished": False,
    "made_with": {"torch": "2.13"}, "val": {"accuracy": 0.5, "images": 4},
}  # fmt: skip


def add_to_report(run, **figures):
    report = json.loads((run / "report.json").read_text()) | EXTRA_REPORT
    report["test"] |= figures
    (run / "report.json").write_text(json.dumps(report))


def test_card_has_training_details_and_the_worst_classes(home, run):
    add_to_report(run, confusion=[[1, 0, 0], [1, 1, 0], [0, 0, 0]])
    card = read_card(tcc.build("tiny.yaml", "ort", run / "weights.safetensors"))
    assert "- training: 9 epochs; the weights of epoch 4" in card["Training data"]
    assert "- training: made with torch 2.13" in card["Training data"]
    assert any(
        "it does not estimate the accuracy on unseen images" in line
        for line in card["Training data"]
    )
    assert card["Evaluation"][1:] == [
        "- in float32, cat: sensitivity 100.00% (1 of 1 images, 95 % confidence interval 2.50% to 100.00%); "
        "1 images of other classes were classified as it",
        "- in float32, dog: sensitivity 50.00% (1 of 2 images, 95 % confidence interval 1.26% to 98.74%); "
        "0 images of other classes were classified as it",
        "- in float32, owl: sensitivity not known, because no test image is of this class",
    ]
    assert "- the training did not finish: it reached its time limit" in card["Caveats"]


@pytest.mark.parametrize(
    "confusion",
    [[[1, 0, 0], [0, 1, 0], [0, 0, 0]], [[2, 0], [1, 0]], [[3, 0, 0], [-1, 0, 1], [0, 0, 0]]],
)
def test_inconsistent_confusion_matrix_is_ignored(home, run, confusion):
    add_to_report(run, confusion=confusion)
    card = read_card(tcc.build("tiny.yaml", "ort", run / "weights.safetensors"))
    assert card["Training data"] == [
        "- not known to the compiler; the author of the training must state it"
    ]


@pytest.mark.filterwarnings("ignore::tcc.CalibrationWarning")
def test_float_accuracy_is_not_shown_for_int8(home, run, images):
    options = {"precision": "int8", "data": images, "method": "minmax"}
    card = read_card(tcc.build("tiny.yaml", "ort", run / "weights.safetensors", **options))
    assert card["Evaluation"][:2] == [
        ACCURACY, "- accuracy at int8: not measured; `tcc eval` measures it",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "spoil",
    [
        lambda report: report | {"weights": "0" * 64},
        lambda report: report | {"tcc_training": 2},
        lambda report: report | {"data": {"classes": ["cat"], "images": {"train": [3, 4, 5]}}},
        lambda report: report | {"test": {"images": "many"}},
        lambda report: [report],
    ],
    ids=["other weights", "other version", "other classes", "no numbers", "a list"],
)
def test_report_of_other_weights_or_damaged_report_is_ignored(home, run, spoil):
    report = json.loads((run / "report.json").read_text())
    (run / "report.json").write_text(json.dumps(spoil(report)))
    card = read_card(tcc.build("tiny.yaml", "ort", run / "weights.safetensors"))
    assert card["Training data"] == [
        "- not known to the compiler; the author of the training must state it"
    ]


def test_figures_of_another_spec_are_not_shown(home, run):
    report = json.loads((run / "report.json").read_text())
    report["network"]["spec"] = "0" * 64
    (run / "report.json").write_text(json.dumps(report))
    card = read_card(tcc.build("tiny.yaml", "ort", run / "weights.safetensors"))
    assert "- train: 12 images (cat 3, dog 4, owl 5)" in card["Training data"]
    assert card["Evaluation"] == [
        "- accuracy: not known: the training record is of another spec or other parameters;"
        " `tcc eval` measures it"
    ]


def test_cached_build_has_a_current_card(home, run, monkeypatch):
    from typer.testing import CliRunner

    from tcc.compiler.cli import app

    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    args = ["build", "tiny.yaml", "--target", "ort", "--weights", "run/weights.safetensors", "-q"]
    text = []
    for _ in range(2):
        assert CliRunner().invoke(app, args).exit_code == 0
        text.append((home / "build/tiny-onnxruntime-fp32" / CARD).read_text())
        (run / "report.json").unlink(missing_ok=True)
    assert "3 test images correct" not in text[1]
    assert "2 of 3 test images correct" in text[0]


@pytest.mark.parametrize("name", sorted(trained.read_networks()))
def test_zoo_cards_are_found_by_weights_digest(name):
    network = trained.read_networks()[name]
    spec = network.load()
    digest = tensors.digest(tensors.read_weights(network.weights, spec.graph))
    record = trained.find_record(digest)
    assert record.source == f"the card of {name} in the zoo"
    assert record.spec == spec.digest
    assert record.int8_accuracy.keys() >= {"onnxruntime", "tflite"}
    accuracy_text = record.accuracy[0].partition(" test images")[0]
    assert f"| float | {accuracy_text} |" in network.card.read_text()
    assert trained.find_record("0" * 64) is None


@pytest.mark.filterwarnings("ignore::tcc.CalibrationWarning")
def test_zoo_figures_follow_the_weights_not_the_name(home):
    shutil.copy(trained.read_networks()["ddsnet-blood"].weights, home / "mine.safetensors")
    spec = tcc.load("ddsnet", labels=["Platelets", "RBC", "WBC"], size=128)
    card = read_card(tcc.build(spec, "ort", "mine.safetensors"))
    assert "- train: 474 images (Platelets 81, RBC 195, WBC 198)" in card["Training data"]
    accuracy, *classes = card["Evaluation"]
    assert accuracy.startswith("- accuracy: 159 of 160 test images correct, 99.38%")
    assert len(classes) == 3
    assert classes[0] == (
        "- in float32, Platelets: sensitivity 96.30% (81.03% to 99.91%), "
        "specificity 100.00% (97.26% to 100.00%), 27 images"
    )
    other_card = read_card(tcc.build("ddsnet-blood", "ort", seed=1))
    assert "159" not in "".join(other_card["Evaluation"])
    int8_card = read_card(tcc.build("ddsnet-blood", "tflite", precision="int8"))
    assert int8_card["Evaluation"][1].startswith(
        "- accuracy at int8: 159 of 160 test images correct"
    )


def test_documents_contain_no_python_values(home):
    for folder in (tcc.build("ddsnet-blood", "ort").folder, tcc.build("tiny.yaml", "ort").folder):
        for name in (CARD, BILL):
            text = (folder / name).read_text()
            assert not re.search(r"\b(True|False|None)\b|\{'|\['|\(\d+,\)|np\.|Pair\(", text), name
        assert "mode stretch" in (folder / CARD).read_text()
