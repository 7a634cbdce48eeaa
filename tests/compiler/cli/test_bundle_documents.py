"""The model card and the bill of materials of a bundle."""

import json
import re

import pytest

import tcc

CARD, BILL = "model-card.md", "bom.cdx.json"
REQUIRED = {
    "": {"bomFormat", "specVersion"},
    "component": {"type", "name"},
    "hash": {"alg", "content"},
    "dependency": {"ref"},
}
"""What CycloneDX 1.6 requires of the objects that are there (bom-1.6.schema.json)."""
KINDS = {"application", "file", "library", "machine-learning-model"}
SERIAL = r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def papers(folder):
    return {name: (folder / name).read_bytes() for name in (CARD, BILL)}


@pytest.mark.filterwarnings("ignore::tcc.CalibrationWarning")
def test_the_bill_of_materials_has_every_file_and_the_form_of_cyclonedx(home, images):
    bundle = tcc.build("tiny.yaml", "ort", precision="int8", data=images, method="minmax")
    bill = json.loads((bundle.folder / BILL).read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert re.fullmatch(SERIAL, bill["serialNumber"])
    assert "timestamp" not in bill["metadata"]
    model, parts = bill["metadata"]["component"], bill["components"]
    for each in (model, *parts, *bill["metadata"]["tools"]["components"]):
        assert each.keys() >= REQUIRED["component"]
        assert each["type"] in KINDS
    hashes = {each["name"]: each["hashes"][0] for each in parts if each["type"] == "file"}
    assert all(each.keys() == REQUIRED["hash"] for each in hashes.values())
    listed = {file.path: file.sha256 for file in bundle.manifest.files}
    assert {name: each["content"] for name, each in hashes.items()} == {
        name: digest for name, digest in listed.items() if name not in (CARD, BILL)
    }
    assert listed.keys() >= {CARD, BILL}
    references = [each["bom-ref"] for each in (model, *parts)]
    assert len(references) == len(set(references))
    (leads,) = bill["dependencies"]
    assert {leads["ref"], *leads["dependsOn"]} <= set(references)
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]


def test_they_are_of_the_inputs_alone(home):
    spec = home / "tiny.yaml"
    first, again, other = (
        papers(tcc.build(spec, "ort", out=home / name, seed=seed).folder)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first == again
    assert json.loads(first[BILL])["serialNumber"] != json.loads(other[BILL])["serialNumber"]


def test_the_card_says_what_a_reader_must_know_and_shows_no_markup(home):
    text = (home / "tiny.yaml").read_text()
    doc = "doc: 'For <script>tiles</script> | [a](b)'\n"
    (home / "tiny.yaml").write_text(text.replace("name: tiny\n", f"name: tiny\n{doc}"))
    card = (tcc.build("tiny.yaml", "ort").folder / CARD).read_text()
    for said in (
        "# tiny for onnxruntime at fp32",
        "cat, dog, owl",
        "the weights are random (seed 0)",
    ):
        assert said in card
    assert r"For &lt;script&gt;tiles&lt;/script&gt; \| \[a\](b)" in card


@pytest.mark.parametrize("name", [CARD, BILL])
def test_a_changed_one_is_found(home, name):
    bundle = tcc.build("tiny.yaml", "ort")
    data = bytearray((bundle.folder / name).read_bytes())
    data[100] ^= 1
    (bundle.folder / name).write_bytes(data)
    with pytest.raises(tcc.UserError, match=rf"E0622(.|\n)*{name}"):
        tcc.verify(bundle)
