"""Compare the outputs of two programs: the measures that rank calibrations.

Each output is measured separately, by its meaning: classes by the largest value, each decision at a
probability of 0.5, quantities relative to their spread. All use the correlation with the fp32 model
after subtracting the mean over the images. A program with the same answer for every image has no
correlation, however small its error is.
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
    """Images for a comparison: the first `held_out_count` are held out, all measure the spread."""

    dataset: DataSet
    held_out_count: int

    @property
    def estimators(self) -> int:
        """Number of first images that estimate the loss on unseen ones: held out, if enough."""
        return self.held_out_count if self.held_out_count >= MIN_IMAGES else len(self.dataset)


def select_comparison_images(
    held_out: DataSet, other_images: DataSet | None = None
) -> ComparisonImages:
    """Return the held-out images, with other images added up to `MIN_IMAGES` for the spread."""
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
    """Return the outputs that are compared: all except train-only ones."""
    return tuple(o for o in model.graph.outputs if not o.train_only)


def compute_outputs(model: Model, dataset: DataSet) -> StackedOutputs:
    """Return the outputs of a float or integer model for each image of a dataset."""
    return stack_outputs(model, list(iterate_outputs(model, dataset)))


def iterate_outputs(model: Model, dataset: DataSet) -> Iterator[Tensors]:
    """Yield the outputs of a model for each image of a dataset."""
    (network_input,) = model.graph.inputs
    run_model = float_program.create_runner(model)
    for index in range(len(dataset)):
        yield run_model(dataset.read_tensor(index, network_input))


def stack_outputs(model: Model, image_outputs: Sequence[Tensors]) -> StackedOutputs:
    """Return the outputs of all images in one array per output."""
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
    """Return the quality of each output compared with the expected one.

    Args:
        model: The model of the expected outputs.
        expected: Its outputs by name, (images, *shape).
        actual: Outputs of another program for the same images.
        held_out_count: Number of first images to judge by; None for all.
    """
    return {
        o.name: output_quality.measure_quality(o, expected[o.name], actual[o.name], held_out_count)
        for o in get_inference_outputs(model)
    }


def compare_programs(model: Model, program: Model, images: ComparisonImages) -> Qualities:
    """Return the quality of a program's outputs compared with its float model.

    Args:
        model: The float model.
        program: Its integer program.
        images: The images of the comparison.
    """
    expected, actual = (
        compute_outputs(compared_model, images.dataset) for compared_model in (model, program)
    )
    return compute_qualities(model, expected, actual, images.held_out_count)
