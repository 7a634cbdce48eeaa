"""What the page says of raw outputs and of levels at their end: as the commands do."""

import json

import numpy as np
import pytest
from web_node import needs_node, node

from tcc.compiler.driver import saturation
from tcc.compiler.ir.operating_point import FittingData, OperatingPoint
from tcc.compiler.reference import decision_rule, exceedance
from tcc.compiler.reference.output_activations import apply_activation

READ = """
import { readFileSync } from 'node:fs';
import { reading } from 'site/outputs.js';
const cases = JSON.parse(readFileSync(process.argv[2]));
console.log(JSON.stringify(cases.map(({ output, raw, point }) => reading(output, Float32Array.from(raw), point))));
"""
COUNT = """
import { readFileSync } from 'node:fs';
import { Saturation } from 'site/saturation.js';
const { images: reference, layers, shown: images } = JSON.parse(readFileSync(process.argv[2]));
const found = new Saturation({ images: reference, layers });
for (const image of images) {
  found.add(image.map(({ name, type, data }) => ({ name, type, data: (type === 'int8' ? Int8Array : Uint8Array).from(data) })));
}
console.log(JSON.stringify([found.deviating(), found.counts()]));
"""
RNG = np.random.default_rng(2)
FITTED = FittingData("0" * 64, 9, "integers", None)


def cases():
    """Raw outputs with how they are read: every activation, with thresholds and without."""
    for activation in ("softmax", "sigmoid", "none"):
        for number in range(20):
            raw = (RNG.standard_normal(4) * 3).astype(np.float32)
            if number % 5 == 0:
                raw[1] = raw[2]  # a tie
            decides = activation == "sigmoid" and number % 2 == 0
            for kind in ("plain", "warm", "threshold"):
                point = None
                if kind == "warm":
                    point = OperatingPoint("y", 1.7, None, (), "none", FITTED)
                if kind == "threshold" and decides:
                    bounds = tuple(RNG.standard_normal(4))
                    point = OperatingPoint("y", 0.6, None, bounds, "youden", FITTED)
                elif kind == "threshold":
                    point = OperatingPoint(
                        "y", 2.5, 1, (float(RNG.standard_normal()),), "youden", FITTED
                    )
                yield activation, "decisions" if decides else "classes", raw, point


@needs_node
def test_probabilities_order_and_decisions(tmp_path):
    listed = list(cases())
    labels = ["a", "b", "c", "d"]
    given = [
        {
            "output": {"activation": activation, "kind": kind, "labels": labels if i % 2 else []},
            "raw": raw.tolist(),
            "point": point and {"temperature": point.temperature, "positive": point.positive, "thresholds": point.thresholds},
        }
        for i, (activation, kind, raw, point) in enumerate(listed)
    ]  # fmt: skip
    (tmp_path / "cases.json").write_text(json.dumps(given))
    found = node(READ, tmp_path, tmp_path / "cases.json")
    taken = set()
    for i, ((activation, kind, raw, point), one) in enumerate(zip(listed, found, strict=True)):
        values = apply_activation(activation, raw, point.temperature if point else 1.0)
        order = sorted(range(4), key=lambda k: (-raw[k], k))
        names = labels if i % 2 else list("0123")
        assert [each["label"] for each in one["ranked"]] == [names[k] for k in order]
        assert [each["value"] for each in one["ranked"]] == pytest.approx(values[order], rel=1e-12)
        if point is None or not point.thresholds:
            assert "decision" not in one
            continue
        if kind == "decisions":
            wanted = np.flatnonzero(decision_rule.predict_decisions(raw[None], point)[0])
        else:
            wanted = decision_rule.predict_classes(activation, raw[None], point)
        assert one["decision"] == [names[k] for k in wanted]
        taken.add((activation, len(wanted), 1 in wanted))
    assert len(taken) > 8


EVIDENCE = """
import { readFileSync } from 'node:fs';
import { evidence } from 'site/saturation.js';
const cases = JSON.parse(readFileSync(process.argv[2]));
console.log(JSON.stringify(cases.map((one) => Buffer.from(new Uint8Array(Float64Array.of(evidence(...one)).buffer)).toString('hex'))));
"""


@needs_node
def test_the_evidence_is_the_same_to_the_bit(tmp_path):
    given = [
        (above, images, reference)
        for reference in (1, 2, 3, 4, 5, 16, 40)
        for images in (1, 4, 17, 300, 1000)
        for above in {0, 1, images // 3, images - 1, images}
    ]
    (tmp_path / "cases.json").write_text(json.dumps(given))
    found = node(EVIDENCE, tmp_path, tmp_path / "cases.json")
    assert found == [np.float64(exceedance.compute_evidence(*one)).tobytes().hex() for one in given]


@needs_node
def test_saturated_layers(tmp_path):
    layers = [
        {"name": f"layer{i}", "signed": i % 2 == 1, "usual": largest / 2, "largest": largest}
        for i, largest in enumerate((0.0, 0.0, 1e-3, 1e-3, 0.02, 0.02, 0.2, 0.2))
    ]
    unknown = {"name": "unknown", "signed": False}
    images = []
    for _ in range(9):
        outputs = []
        for i, layer in enumerate([*layers, unknown]):
            kind = np.dtype("i1" if i in (3, 5) else "u1")
            ends = np.iinfo(kind)
            values = RNG.integers(ends.min + 1, ends.max, 4000)
            often = RNG.random(4000) < RNG.choice([0.01, 0.08]) * (i % 3)
            values[often] = (
                ends.max if i % 2 == 0 else RNG.choice([ends.min, ends.max], often.sum())
            )
            outputs.append({"name": layer["name"], "type": kind.name, "data": values.tolist()})
        images.append(outputs)
    about = {"images": 16, "layers": layers, "shown": images}
    (tmp_path / "cases.json").write_text(json.dumps(about))
    counted = saturation._count_saturation(
        [{o["name"]: np.array(o["data"], o["type"]) for o in image} for image in images],
        {layer["name"]: layer["signed"] for layer in [*layers, unknown]},
        len(images),
        lambda *_: None,
    )
    usual = {
        layer["name"]: saturation.UsualShare(layer["usual"], layer["largest"], 16)
        for layer in layers
    }
    wanted = {layer.name for layer in saturation.add_usual_shares(counted, usual).deviating}
    names, counts = node(COUNT, tmp_path, tmp_path / "cases.json")
    assert set(names) == wanted
    assert counts == {"images": 9, "reference": 16, "compared": 8, "deviating": len(wanted)}
    assert 0 < len(wanted) < len(usual)


@needs_node
def test_an_older_report_is_not_compared(tmp_path):
    layers = [{"name": "a", "signed": False, "usual": 0.0}]
    full = [[{"name": "a", "type": "uint8", "data": [255] * 9}]] * 50
    about = {"layers": layers, "shown": full}
    (tmp_path / "cases.json").write_text(json.dumps(about))
    names, counts = node(COUNT, tmp_path, tmp_path / "cases.json")
    assert names == []
    assert counts["compared"] == 0
