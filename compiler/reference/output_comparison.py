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
from tcc.compiler.reference.accuracy_floor import MIN_IMAGES, Qualities

Tensors = Mapping[str, NDArray[np.float32]]
"""Each output by name, for one image."""
StackedOutputs = Mapping[str, NDArray[np.float32]]
"""Each output by name, for all images: (images, *shape)."""


@dataclass(frozen=True)
class ComparisonImages:
    """Images to compare over: the first `held_out_count` are held out, all show the spread."""

    dataset: DataSet
    held_out_count: int

    @property
    def estimators(self) -> int:
        """How many images, the first, estimate what unseen ones lose: held out, if enough are."""
        return self.held_out_count if self.held_out_count >= MIN_IMAGES else len(self.dataset)


def select_comparison_images(
    held_out: DataSet, other_images: DataSet | None = None
) -> ComparisonImages:
    """Return images that judge, and as many of others as it takes to see a spread: `MIN_IMAGES`."""
    digests = set(held_out.digests)
    spare_images = (
        [image for image in other_images.items if image.digest not in digests]
        if other_images
        else []
    )
    added_images = spare_images[: max(0, MIN_IMAGES - len(held_out))]
    return ComparisonImages(
        replace(held_out, items=(*held_out.items, *added_images)), len(held_out)
    )


def get_inference_outputs(model: Model) -> tuple[Output, ...]:
    """Return the outputs that are judged: all but what only training has."""
    return tuple(o for o in model.graph.outputs if not o.train_only)


def compute_outputs(model: Model, dataset: DataSet) -> StackedOutputs:
    """Return the outputs of a model, float or integer, for each image of a set."""
    return stack_outputs(model, list(iterate_outputs(model, dataset)))


def iterate_outputs(model: Model, dataset: DataSet) -> Iterator[Tensors]:
    """Yield the outputs of a model for each image of a set."""
    (source,) = model.graph.inputs
    run_model = float_program.create_runner(model)
    for index in range(len(dataset)):
        yield run_model(dataset.read_tensor(index, source))


def stack_outputs(model: Model, image_outputs: Sequence[Tensors]) -> StackedOutputs:
    """Return the outputs of all images in one array each."""
    return {
        o.name: np.stack([tensors[o.name] for tensors in image_outputs])
        for o in get_inference_outputs(model)
    }


def compute_qualities(
    model: Model,
    expected: StackedOutputs,
    actual: StackedOutputs,
    held_out_count: int | None = None,
) -> Qualities:
    """Return how near each output comes to the expected one.

    Args:
        model: That of the expected outputs.
        expected: Its outputs by name, (images, *shape).
        actual: Those of another program for the same images.
        held_out_count: How many images, the first, judge; None is all.
    """
    return {
        o.name: output_quality.measure_quality(o, expected[o.name], actual[o.name], held_out_count)
        for o in get_inference_outputs(model)
    }


def compare_programs(model: Model, program: Model, images: ComparisonImages) -> Qualities:
    """Return how near a program's outputs come to those of its float model.

    Args:
        model: The float model.
        program: Its integer program.
        images: Those to compare over.
    """
    expected, actual = (
        compute_outputs(compared_model, images.dataset) for compared_model in (model, program)
    )
    return compute_qualities(model, expected, actual, images.held_out_count)
