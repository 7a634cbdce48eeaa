"""How near one program's outputs come to another's: the measures that calibration is judged by.

Each output is measured by itself and as what it is: classes by the largest value, decisions one by
one at a probability of 0.5, quantities against how far they spread. Common to all is the
correlation with the floats after the mean over the images: a program that gives the same answer
for every image has none, however near that answer is.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.reference import float_program, output_quality
from tcc.compiler.reference.accuracy_floor import ENOUGH, Qualities

Tensors = Mapping[str, NDArray[np.float32]]
"""Each output by name, for one image."""
StackedOutputs = Mapping[str, NDArray[np.float32]]
"""Each output by name, for all images: (images, *shape)."""


@dataclass(frozen=True)
class ComparisonImages:
    """Images to compare over: the first `judges` are held out, all show how outputs spread."""

    data: DataSet
    judges: int

    @property
    def estimators(self) -> int:
        """How many images, the first, estimate what unseen ones lose: held out, if enough are."""
        return self.judges if self.judges >= ENOUGH else len(self.data)


def comparison_images(judges: DataSet, others: DataSet | None = None) -> ComparisonImages:
    """Return images that judge, and as many of others as it takes to see a spread: `ENOUGH`."""
    known = set(judges.digests)
    spare = [item for item in others.items if item.digest not in known] if others else []
    more = spare[: max(0, ENOUGH - len(judges))]
    return ComparisonImages(replace(judges, items=(*judges.items, *more)), len(judges))


def judged_outputs(model: Model) -> tuple[Output, ...]:
    """Return the outputs that are judged: all but what only training has."""
    return tuple(o for o in model.graph.outputs if not o.train_only)


def all_outputs(model: Model, data: DataSet) -> StackedOutputs:
    """Return the outputs of a model, float or integer, for each image of a set."""
    return stacked_outputs(model, list(outputs(model, data)))


def outputs(model: Model, data: DataSet) -> Iterator[Tensors]:
    """Yield the outputs of a model for each image of a set."""
    (source,) = model.graph.inputs
    run = float_program.prepared(model)
    for index in range(len(data)):
        yield run(data.tensor(index, source))


def stacked_outputs(model: Model, found: Sequence[Tensors]) -> StackedOutputs:
    """Return the outputs of all images in one array each."""
    return {o.name: np.stack([one[o.name] for one in found]) for o in judged_outputs(model)}


def qualities(
    model: Model, expected: StackedOutputs, found: StackedOutputs, judges: int | None = None
) -> Qualities:
    """Return how near each output comes to the expected one.

    Args:
        model: That of the expected outputs.
        expected: Its outputs by name, (images, *shape).
        found: Those of another program for the same images.
        judges: How many images, the first, judge; None is all.
    """
    return {
        o.name: output_quality.quality(o, expected[o.name], found[o.name], judges)
        for o in judged_outputs(model)
    }


def compared(model: Model, program: Model, images: ComparisonImages) -> Qualities:
    """Return how near a program's outputs come to those of its float model.

    Args:
        model: The float model.
        program: Its integer program.
        images: Those to compare over.
    """
    expected, found = (all_outputs(one, images.data) for one in (model, program))
    return qualities(model, expected, found, images.judges)
