"""Losses match the equations and tables of the papers, and PyTorch's losses."""

import math

import pytest
import torch
from torch.nn import functional

from tcc.compiler.train.losses import build_class_loss
from tcc.compiler.train.recipe_records import Loss

CLASS_COUNTS = {"normal": 30, "tumor": 10}


def compute_losses(record, probabilities, truths, counts=CLASS_COUNTS):
    """Return the losses of images from the probability of their second class."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    logits = torch.stack([torch.zeros_like(p), torch.log(p / (1 - p))], 1)
    targets = functional.one_hot(torch.tensor(truths), len(counts)).float()
    return build_class_loss(record, counts).compute_losses(logits, targets).tolist()


# FastNet's paper, equations 5 to 7, for single images: (y, p, loss), computed by hand
EQUATIONS = [
    (Loss(), 1, 0.8, -math.log(0.8)),
    (Loss(), 0, 0.8, -math.log(0.2)),
    (Loss("focal", alpha=0.25), 1, 0.8, 0.25 * 0.2**2 * -math.log(0.8)),
    (Loss("focal", alpha=0.25), 0, 0.8, 0.75 * 0.8**2 * -math.log(0.2)),
    (Loss("focal", gamma=1), 1, 0.8, 0.2 * -math.log(0.8)),
    (Loss("attention", gamma=3, alpha=2), 1, 0.8, 2 * (1 - 0.8**3) * -math.log(0.8)),
    (Loss("attention", gamma=3, alpha=2), 0, 0.8, (1 - 0.2**3) * -math.log(0.2)),
    (Loss("attention", gamma=0.5), 1, 0.25, 0.5 * -math.log(0.25)),
]


@pytest.mark.parametrize(("record", "truth", "p", "expected"), EQUATIONS)
def test_losses_match_the_equations(record, truth, p, expected):
    assert compute_losses(record, [p], [truth]) == pytest.approx([expected], rel=1e-6)
    single_logit = torch.tensor([[math.log(p / (1 - p))]])  # a single sigmoid unit gives the same
    targets = functional.one_hot(torch.tensor([truth]), 2).float()
    assert build_class_loss(record, CLASS_COUNTS).compute_losses(
        single_logit, targets
    ).tolist() == pytest.approx([expected], rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "gamma", "ratio"),
    [("focal", 1, 5.0), ("focal", 3, 125.0), ("focal", 0.5, 2.2)]
    + [("attention", g, r) for g, r in ((0.1, 6.39), (0.5, 5.71), (1, 5.0), (2, 3.95), (10, 1.53))],
)
def test_losses_match_the_tables_of_the_papers(kind, gamma, ratio):
    """Tables II and III: the weight of an image with p = 0.5, relative to one with p = 0.9."""
    half, confident = (
        compute_losses(Loss(kind, gamma=gamma), [p], [1])[0] / -math.log(p) for p in (0.5, 0.9)
    )
    assert half / confident == pytest.approx(
        ratio, rel=0.02 if ratio == 2.2 else 0.005
    )  # as printed


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_matches_pytorch(smoothing):
    logits, truths = torch.randn(9, 3), torch.randint(0, 3, (9,))
    loss_function = build_class_loss(Loss(label_smoothing=smoothing), {"a": 1, "b": 2, "c": 3})
    actual = loss_function.compute_losses(logits, functional.one_hot(truths, 3).float()).mean()
    pytorch_loss = functional.cross_entropy(logits, truths, label_smoothing=smoothing)
    assert actual.item() == pytest.approx(pytorch_loss.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("record", "weights"),
    [
        (Loss(), [1, 1]),
        (Loss(balanced=True), [40 / 60, 40 / 20]),
        (Loss(class_weights={"tumor": 3.0}), [40 / 60, 3 * 40 / 60]),
        (Loss("focal", alpha=0.25, positive=("normal",)), [0.25, 0.75]),
        (Loss("attention", alpha=4.0, balanced=True), [40 / 60, 4 * 40 / 20]),
    ],
)
def test_class_weights(record, weights):
    assert build_class_loss(record, CLASS_COUNTS).weights.tolist() == pytest.approx(weights)


@pytest.mark.parametrize("kind", ["cross_entropy", "focal", "attention"])
@pytest.mark.parametrize("logit", [0.0, 60.0, -60.0, 1e4])
def test_gradients_are_finite_for_extreme_logits(kind, logit):
    for gamma in (0.5, 2.0):
        logits = torch.tensor([[0.0, logit]], requires_grad=True)
        actual = build_class_loss(Loss(kind, gamma=gamma), CLASS_COUNTS).compute_losses(
            logits, torch.tensor([[0.0, 1.0]])
        )
        actual.sum().backward()
        assert actual.isfinite().all()
        assert logits.grad.isfinite().all()
