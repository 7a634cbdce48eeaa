"""`tcc build` runs the built artifact and does not write it if its outputs are wrong."""

import numpy as np
import pytest

from tcc.backends.onnxruntime.backend import OnnxRuntime

BUILD = ("build", "tiny.yaml", "--target", "ort")


@pytest.fixture
def multiply_outputs(monkeypatch):
    """Multiply the artifact's outputs by a factor."""

    def scale_outputs(factor: float) -> None:
        original_infer = OnnxRuntime.infer

        def run(self, *arguments):
            return [
                {k: v * np.float32(factor) for k, v in o.items()}
                for o in original_infer(self, *arguments)
            ]

        monkeypatch.setattr(OnnxRuntime, "infer", run)

    return scale_outputs


def test_disagreeing_artifact_is_not_written(tcc, home, multiply_outputs):
    multiply_outputs(3.0)
    outcome = tcc(*BUILD)
    assert outcome.code == 4
    assert (
        "onnxruntime: the built artifact does not match the reference outputs; nothing is written"
        in outcome.err
    )
    assert "golden 1, output `logits`: the error is" in outcome.err
    assert list((home / "build").iterdir()) == []


def test_previous_bundle_is_kept(tcc, home, multiply_outputs):
    assert tcc(*BUILD).code == 0
    bundle = home / "build" / "tiny-onnxruntime-fp32"
    manifest_before = (bundle / "manifest.json").read_bytes()
    multiply_outputs(float("nan"))
    outcome = tcc(*BUILD, "--seed", "5", "--json")
    assert outcome.code == 4
    assert [a["output"] for a in outcome.document["agreement"]] == ["logits"]
    assert (bundle / "manifest.json").read_bytes() == manifest_before


def test_difference_in_the_last_digit_is_accepted(tcc, multiply_outputs):
    multiply_outputs(1.00001)
    assert tcc(*BUILD).code == 0


def test_no_replay_skips_the_comparison(tcc, home, multiply_outputs):
    multiply_outputs(3.0)
    outcome = tcc(*BUILD, "--no-replay")
    assert outcome.code == 0
    assert "  not compared with the reference: --no-replay" in outcome.out
    (bundle,) = tcc(*BUILD, "--no-replay", "--json").document["bundles"]
    assert (bundle["agreement"], bundle["unchecked"]) == ([], "--no-replay")
