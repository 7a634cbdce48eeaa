"""Images in two parts: those that a calibration learns from, and those that judge it."""

from collections.abc import Callable
from dataclasses import dataclass

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.methods.method import RunOptions
from tcc.compiler.quant.observe.observer import observe
from tcc.compiler.quant.observe.statistics import Statistics


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSplit:
    """Images to learn from, with what was seen of them, and others to judge by."""

    learn: DataSet
    statistics: Statistics
    held_out: DataSet


Look = Callable[[Model, DataSet, RunOptions], Statistics]
"""Gives what is seen of images."""


def everything(ready: Model, data: DataSet, options: RunOptions) -> Statistics:
    """Return all that is seen of images."""
    return observe(ready, data, options.threads, options.batch, options.progress)


def split(
    ready: Model, data: DataSet, options: RunOptions, look: Look = everything
) -> CalibrationSplit:
    """Return a data set in two parts, by the images' contents, the first of them observed.

    Args:
        ready: The ready model, which the first part is run through.
        data: All the images.
        options: How to run them.
        look: What looks at the first part.
    """
    # By contents: names, folders and their order choose nothing.
    learn, held_out = data.split()
    return CalibrationSplit(learn, look(ready, learn, options), held_out)
