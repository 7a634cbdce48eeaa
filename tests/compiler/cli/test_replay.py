"""`tcc build` runs what it built, and keeps an artifact that does not agree from being used."""

import numpy as np
import pytest

from tcc.backends.onnxruntime.backend import OnnxRuntime

BUILD = ("build", "tiny.yaml", "--target", "ort")


@pytest.fixture
def wrong(monkeypatch):
    """Artifacts whose outputs are off by the given factor."""

    def scale_outputs(factor: float) -> None:
        original_infer = OnnxRuntime.infer

        def run(self, *arguments):
            return [
                {k: v * np.float32(factor) for k, v in o.items()}
                for o in original_infer(self, *arguments)
            ]

        monkeypatch.setattr(OnnxRuntime, "infer", run)

    return scale_outputs


def test_an_artifact_that_disagrees_is_not_written(tcc, home, wrong):
    wrong(3.0)
    outcome = tcc(*BUILD)
    assert outcome.code == 4
    assert (
        "onnxruntime: the built artifact does not match the reference outputs; nothing is written"
        in outcome.err
    )
    assert "golden 1, output `logits`: the error is" in outcome.err
    assert list((home / "build").iterdir()) == []


def test_the_bundle_that_was_there_stays(tcc, home, wrong):
    assert tcc(*BUILD).code == 0
    bundle = home / "build" / "tiny-onnxruntime-fp32"
    manifest_before = (bundle / "manifest.json").read_bytes()
    wrong(float("nan"))
    outcome = tcc(*BUILD, "--seed", "5", "--json")
    assert outcome.code == 4
    assert [a["output"] for a in outcome.document["agreement"]] == ["logits"]
    assert (bundle / "manifest.json").read_bytes() == manifest_before


def test_a_last_digit_may_differ(tcc, wrong):
    wrong(1.00001)
    assert tcc(*BUILD).code == 0


def test_replaying_can_be_left_out(tcc, home, wrong):
    wrong(3.0)
    outcome = tcc(*BUILD, "--no-replay")
    assert outcome.code == 0
    assert "  not compared with the reference: --no-replay" in outcome.out
    (bundle,) = tcc(*BUILD, "--no-replay", "--json").document["bundles"]
    assert (bundle["agreement"], bundle["unchecked"]) == ([], "--no-replay")
