"""The page evaluates raw outputs and saturation as the commands do."""

import json

import numpy as np
import pytest
from web_node import needs_node, run_node

from tcc.compiler.driver import saturation
from tcc.compiler.ir.operating_point import FittingData, OperatingPoint
from tcc.compiler.reference import decision_rule, exceedance
from tcc.compiler.reference.output_activations import apply_activation

READ_SCRIPT = """
import { readFileSync } from 'node:fs';
import { reading } from 'site/outputs.js';
const cases = JSON.parse(readFileSync(process.argv[2]));
console.log(JSON.stringify(cases.map(({ output, raw, point }) => reading(output, Float32Array.from(raw), point))));
"""
COUNT_SCRIPT = """
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


def generate_cases():
    """Yield raw outputs and how to read them: every activation, with and without thresholds."""
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
def test_probabilities_ranking_and_decisions_match_python(tmp_path):
    samples = list(generate_cases())
    labels = ["a", "b", "c", "d"]
    records = [
        {
            "output": {"activation": activation, "kind": kind, "labels": labels if i % 2 else []},
            "raw": raw.tolist(),
            "point": point and {"temperature": point.temperature, "positive": point.positive, "thresholds": point.thresholds},
        }
        for i, (activation, kind, raw, point) in enumerate(samples)
    ]  # fmt: skip
    (tmp_path / "cases.json").write_text(json.dumps(records))
    readings = run_node(READ_SCRIPT, tmp_path, tmp_path / "cases.json")
    decisions = set()
    for i, ((activation, kind, raw, point), reading) in enumerate(
        zip(samples, readings, strict=True)
    ):
        probabilities = apply_activation(activation, raw, point.temperature if point else 1.0)
        order = sorted(range(4), key=lambda k: (-raw[k], k))
        names = labels if i % 2 else list("0123")
        assert [ranked_class["label"] for ranked_class in reading["ranked"]] == [
            names[k] for k in order
        ]
        assert [ranked_class["value"] for ranked_class in reading["ranked"]] == pytest.approx(
            probabilities[order], rel=1e-12
        )
        if point is None or not point.thresholds:
            assert "decision" not in reading
            continue
        if kind == "decisions":
            expected = np.flatnonzero(decision_rule.predict_decisions(raw[None], point)[0])
        else:
            expected = decision_rule.predict_classes(activation, raw[None], point)
        assert reading["decision"] == [names[k] for k in expected]
        decisions.add((activation, len(expected), 1 in expected))
    assert len(decisions) > 8


EVIDENCE_SCRIPT = """
import { readFileSync } from 'node:fs';
import { evidence } from 'site/saturation.js';
const cases = JSON.parse(readFileSync(process.argv[2]));
console.log(JSON.stringify(cases.map((one) => Buffer.from(new Uint8Array(Float64Array.of(evidence(...one)).buffer)).toString('hex'))));
"""


@needs_node
def test_saturation_evidence_is_bit_exact(tmp_path):
    samples = [
        (above, images, reference)
        for reference in (1, 2, 3, 4, 5, 16, 40)
        for images in (1, 4, 17, 300, 1000)
        for above in {0, 1, images // 3, images - 1, images}
    ]
    (tmp_path / "cases.json").write_text(json.dumps(samples))
    page_evidence = run_node(EVIDENCE_SCRIPT, tmp_path, tmp_path / "cases.json")
    assert page_evidence == [
        np.float64(exceedance.compute_evidence(*sample)).tobytes().hex() for sample in samples
    ]


@needs_node
def test_saturated_layers_match_python(tmp_path):
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
            limits = np.iinfo(kind)
            quantized_values = RNG.integers(limits.min + 1, limits.max, 4000)
            often = RNG.random(4000) < RNG.choice([0.01, 0.08]) * (i % 3)
            quantized_values[often] = (
                limits.max if i % 2 == 0 else RNG.choice([limits.min, limits.max], often.sum())
            )
            outputs.append(
                {"name": layer["name"], "type": kind.name, "data": quantized_values.tolist()}
            )
        images.append(outputs)
    report = {"images": 16, "layers": layers, "shown": images}
    (tmp_path / "cases.json").write_text(json.dumps(report))
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
    expected_layers = {
        layer.name for layer in saturation.add_usual_shares(counted, usual).deviating
    }
    names, counts = run_node(COUNT_SCRIPT, tmp_path, tmp_path / "cases.json")
    assert set(names) == expected_layers
    assert counts == {
        "images": 9,
        "reference": 16,
        "compared": 8,
        "deviating": len(expected_layers),
    }
    assert 0 < len(expected_layers) < len(usual)


@needs_node
def test_saturation_of_an_older_report_is_not_compared(tmp_path):
    layers = [{"name": "a", "signed": False, "usual": 0.0}]
    saturated_images = [[{"name": "a", "type": "uint8", "data": [255] * 9}]] * 50
    report = {"layers": layers, "shown": saturated_images}
    (tmp_path / "cases.json").write_text(json.dumps(report))
    names, counts = run_node(COUNT_SCRIPT, tmp_path, tmp_path / "cases.json")
    assert names == []
    assert counts["compared"] == 0
