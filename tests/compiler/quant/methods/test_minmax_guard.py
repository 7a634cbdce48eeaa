"""The guard of kl-cosine: its choice is never worse than minmax on held-out images."""

import numpy as np
import pytest
from quant_sets import make_class_quality, make_lowered_model, write_tensors

from tcc.compiler.passes import INT8
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.methods import minmax_guard
from tcc.compiler.quant.methods.cross_fitting import split_dataset
from tcc.compiler.quant.methods.kl_cosine import KL_COSINE
from tcc.compiler.quant.methods.minmax_guard import (
    MIN_SCALE_SHARE,
    MINMAX_NAME,
    choose_ranges,
    format_raised_name,
)
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.reference import output_comparison
from tcc.compiler.reference.accuracy_floor import compute_mean_loss
from tcc.testing.nets import build_dense, build_gated

PAPER = KL_COSINE.name
RAISED = format_raised_name(PAPER)


@pytest.mark.parametrize("net", [build_dense, build_gated])
def test_the_choice_is_not_worse_than_minmax_on_held_out_images(net, tmp_path):
    model = make_lowered_model(net(), INT8)
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, 16)
    images = split_dataset(model, data, RunOptions())
    held_out_images = images.held_out
    decision = choose_ranges(PAPER, KL_COSINE.search, model, images)
    assert (
        set(decision.qualities_by_candidate)
        == set(decision.ranges_by_candidate)
        == {PAPER, RAISED, MINMAX_NAME}
    )
    for name, method_outcome in decision.ranges_by_candidate.items():
        program = quantize(model, Calibration(method_outcome.ranges, method_outcome.rounded))
        assert (
            output_comparison.compare_programs(
                model, program, output_comparison.select_comparison_images(held_out_images)
            )
            == decision.qualities_by_candidate[name]
        )
    assert compute_mean_loss(decision.qualities_by_candidate[decision.winner]) <= compute_mean_loss(
        decision.qualities_by_candidate[MINMAX_NAME]
    )
    for name, tensor_range in decision.ranges_by_candidate[RAISED].ranges.items():
        assert tensor_range.scale >= np.float32(
            MIN_SCALE_SHARE * decision.ranges_by_candidate[MINMAX_NAME].ranges[name].scale
        )
        assert tensor_range.scale >= decision.ranges_by_candidate[PAPER].ranges[name].scale


@pytest.mark.parametrize(
    ("paper", "raised", "safe", "agreement", "winner", "reason"),
    [
        (0.9999, 0.999, 0.998, 1.0, PAPER, ""),
        (0.9, 0.9999, 0.998, 1.0, RAISED, f"`{PAPER}` has a larger loss than `{RAISED}`: 1.0e-01 against 1."),
        (0.9, 0.99801, 0.998, 1.0, MINMAX_NAME, f"`{PAPER}` has a larger loss than `{MINMAX_NAME}`: 1.0e-01 against 2.0e"),
        (0.9, 0.91, 0.998, 1.0, MINMAX_NAME, f"`{PAPER}` has a larger loss than `{MINMAX_NAME}`: 1.0e-01 against 2.0e-03"),
        (0.998, 0.998, 0.998, 1.0, MINMAX_NAME, f"`{PAPER}` has the same loss as `{MINMAX_NAME}`: 2.0e-03"),
        (0.9999, 0.999, 0.998, 0.5, MINMAX_NAME, f"`{PAPER}` has the smallest loss, but changes more decisions"),
        # Regression: a smaller loss was reported as a larger one.
        (
            1 - 7.6e-6, 1 - 7.7e-6, 1 - 8.0e-6, 1.0, MINMAX_NAME,
            f"`{PAPER}` has a smaller loss than `{MINMAX_NAME}` (7.6e-06 against 8.0e-06), but not below 90% of",
        ),
        (
            1 - 8.01e-6, 1 - 8.1e-6, 1 - 8.0e-6, 1.0, MINMAX_NAME,
            f"`{PAPER}` has a larger loss than `{MINMAX_NAME}`: 8.01e-06 against 8.00e-06",
        ),
    ],
)  # fmt: skip
def test_each_rule_has_its_message(paper, raised, safe, agreement, winner, reason):
    def quality(cosine, agreement=1.0):
        return {"logits": make_class_quality(8, cosine, agreement)}

    qualities = {
        MINMAX_NAME: quality(safe), PAPER: quality(paper, agreement), RAISED: quality(raised, agreement)
    }  # fmt: skip
    used, reason_text = minmax_guard._choose_winner(qualities, PAPER)
    assert used == winner
    assert reason_text.startswith(reason)
    assert bool(reason_text) == bool(reason)
