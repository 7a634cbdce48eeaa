"""Data sets and models for the tests of calibration."""

from dataclasses import replace

import numpy as np

from tcc.compiler import passes
from tcc.compiler.data.dataset import read_dataset
from tcc.compiler.ir.graph import Model
from tcc.compiler.reference.accuracy_floor import Quality
from tcc.testing.op_cases import sample_weights


def write_tensors(folder, shape, count=6, seed=0, order=None, name="set"):
    """A data set of random tensors, written in another order if one is given."""
    values = np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)
    path = folder / f"{name}.npz"
    np.savez(path, tensors=values if order is None else values[list(order)])
    return read_dataset(path)


def make_lowered_model(graph, pipeline=passes.INFERENCE):
    """A model with weights as after training, as calibration sees it."""
    return passes.run(Model(graph, sample_weights(graph)), pipeline)


def replace_weights(model, name, change):
    """The model with one tensor changed."""
    return replace(model, weights={**model.weights, name: change(model.weights[name])})


def make_class_quality(images, cosine, agreement=1.0, correlation=1.0):
    """The quality of an output of classes whose mean cosine is given."""
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
