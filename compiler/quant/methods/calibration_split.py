"""Images in two parts: those that a calibration learns from, and those that judge it."""

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


def split(ready: Model, data: DataSet, options: RunOptions) -> CalibrationSplit:
    """Return a data set in two parts, by the images' contents, the first of them observed.

    Args:
        ready: The ready model, which the first part is run through.
        data: All the images.
        options: How to run them.
    """
    # By contents: names, folders and their order choose nothing.
    learn, held_out = data.split()
    seen = observe(ready, learn, options.threads, options.batch, options.progress)
    return CalibrationSplit(learn, seen, held_out)
