"""Datasets and models for tests of calibration."""

from dataclasses import replace

import numpy as np

from tcc.compiler import passes
from tcc.compiler.data.dataset import read_dataset
from tcc.compiler.ir.graph import Model
from tcc.compiler.reference.accuracy_floor import Quality
from tcc.testing.op_cases import sample_weights


def write_tensors(folder, shape, count=6, seed=0, order=None, name="set"):
    """Write a dataset of random tensors, in another file order if one is given."""
    values = np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)
    path = folder / f"{name}.npz"
    np.savez(path, tensors=values if order is None else values[list(order)])
    return read_dataset(path)


def make_lowered_model(graph, pipeline=passes.INFERENCE):
    """Return a lowered model with weights as after training."""
    return passes.run(Model(graph, sample_weights(graph)), pipeline)


def replace_weights(model, name, change):
    """Return the model with one changed tensor."""
    return replace(model, weights={**model.weights, name: change(model.weights[name])})


def make_class_quality(images, cosine, agreement=1.0, correlation=1.0):
    """Return the quality of a class output with the given mean cosine."""
    return Quality(
        kind="classes",
        images=images,
        cosine=cosine,
        least_cosine=cosine,
        agreement=agreement,
        difference=0.0,
        spread_images=images,
        correlation=correlation,
        error=0.0,
        margin=1.0,
        moved=0.0,
        ties=None,
        loss=1 - cosine,
    )
