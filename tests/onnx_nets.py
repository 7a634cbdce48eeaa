"""Weights for tests of imported ONNX files, and their import without child processes."""

import numpy as np
import onnxruntime
import onnxsim
from onnx import checker

from tcc.compiler.importers.onnx_import.sandbox import TaskResult


def make_random_weights(*shape: int, seed: int = 0) -> np.ndarray:
    """Return random weights."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def check_and_simplify(model):
    """Do the work of the sandbox in this process."""
    checker.check_model(model)
    simple, _ = onnxsim.simplify(model, 0, perform_optimization=False)
    return simple, TaskResult(("checked", "simplified"))


def run_feeds(model, feeds):
    """Run a model like the sandbox, in this process."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    names = [output.name for output in session.get_outputs()]
    outputs = [dict(zip(names, session.run(names, feed), strict=True)) for feed in feeds]
    return outputs, TaskResult(("ran",))
