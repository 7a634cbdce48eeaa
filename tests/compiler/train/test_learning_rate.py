"""The learning rate of each step."""

import pytest

from tcc.compiler.train.loop import compute_learning_rate
from tcc.compiler.train.recipe_records import LearningRate


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (LearningRate(0.5, "constant"), {0: 0.5, 39: 0.5}),
        (LearningRate(0.5, "cosine"), {0: 0.5, 20: 0.25, 30: 0.0732233}),
        (LearningRate(0.5, "cosine", final=0.5), {0: 0.5, 20: 0.375}),
        (LearningRate(0.5, "cosine", warmup_epochs=0.7), {0: 0.0625, 6: 0.4375, 7: 0.5}),
        (LearningRate(0.5, "exponential", decay=0.8), {0: 0.5, 9: 0.5, 10: 0.4, 39: 0.256}),
        (
            LearningRate(0.5, "steps", decay=0.1, at_epochs=(1, 3)),
            {9: 0.5, 10: 0.05, 29: 0.05, 30: 0.005},
        ),
        (LearningRate(0.5, "constant", warmup_epochs=9), {0: 0.5 / 21, 19: 10 / 21, 20: 0.5}),
    ],
    ids=lambda value: getattr(value, "schedule", None),
)
def test_learning_rate_of_each_step(record, expected):
    rates = {step: compute_learning_rate(record, step, 10, 4) for step in expected}
    assert rates == pytest.approx(expected)
