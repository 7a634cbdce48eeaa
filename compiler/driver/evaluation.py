"""Run a network on labelled images and collect the predicted classes.

Images are decoded in batches; only the network's outputs are kept.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import artifact_runs
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.data import confined_images
from tcc.compiler.data.dataset import DAMAGED_CODES, DataSet, check_dataset, check_image
from tcc.compiler.driver.labelled_images import LabelledImages
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.ir.operating_point import OperatingPoint
from tcc.compiler.reference import (
    classification_metrics,
    decision_rule,
    float_program,
    roc_curve,
)
from tcc.compiler.reference.classification_metrics import Scores
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.progress import Progress, silent
from tcc.compiler.support.value_views import ValueView

Outputs = Mapping[str, NDArray[np.float32]]
Answer = tuple[bytes, Outputs]
"""The hash of an input, and the network's outputs for it."""
MAX_VALUES = 1 << 26
"""Most output values that are kept (256 MiB). Above it, only the predictions are kept."""
BATCH_SIZE = 32
"""Most images per batch."""
BATCH_BYTES = 1 << 26
"""Bytes of pixels at which a batch is full."""


@dataclass(frozen=True, eq=False, repr=False)
class Evaluated(ValueView):
    """Results of a network for labelled images, in their order.

    `raw` are its outputs (images, values); None if they would be more than `MAX_VALUES`.
    `predicted` marks the predicted classes (images, classes). `inputs` are hashes of the network's
    inputs. `notices` are reasons to doubt the figures.
    """

    images: LabelledImages
    predicted: NDArray[np.bool_]
    raw: NDArray[np.float32] | None
    inputs: tuple[bytes, ...]
    notices: tuple[str, ...] = ()

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Mask of the images with a correct prediction (images,)."""
        is_correct: NDArray[np.bool_] = (self.predicted == self.images.truth).all(axis=1)
        return is_correct

    @property
    def scores(self) -> Scores:
        """Accuracy figures from the predictions."""
        truth = self.images.truth
        if not self.images.exclusive:
            return classification_metrics.compute_decision_scores(truth, self.predicted)
        # Confusion matrix: truth transposed times predictions.
        counts = truth.astype(np.int64).T @ self.predicted
        return classification_metrics.compute_scores(counts)

    def _summarize(self) -> Iterator[str]:
        yield f"Evaluation on {self.images.path}"
        if self.notices:
            yield f"warning: {'; '.join(self.notices)}"
        yield from self.scores.describe(self.images.labels)

    def compute_log_odds(self, temperature: float = 1.0) -> NDArray[np.float64] | None:
        """Return the log-odds of each class, (images, classes)."""
        if self.raw is None:
            return None
        log_odds = roc_curve.compute_log_odds(self.images.output.activation, self.raw, temperature)
        # The log-odds of "no" are those of "yes" with the opposite sign.
        return np.hstack([-log_odds, log_odds]) if self.images.single else log_odds


def evaluate_artifact(
    bundle: Bundle,
    device: Device,
    images: LabelledImages,
    progress: Progress,
    point: OperatingPoint | None = None,
) -> Evaluated:
    """Evaluate a bundle's artifact on images, starting from the pixels.

    Args:
        bundle: The bundle.
        device: Its target.
        images: The images and their classes.
        progress: Receives each image.
        point: Operating point for its outputs; without it, the spec's default rule applies.

    Raises:
        UserError: The images are damaged or do not fit the network, or an output is not finite.
    """
    network_input, dataset = bundle.input, check_dataset(images.dataset, bundle.input)
    floats = dataset.array is not None and dataset.array.dtype != np.uint8
    run = artifact_runs.infer if floats else artifact_runs.run
    arrays = (
        dataset.read_tensor(i, network_input) if floats else read_pixels(dataset, i, network_input)
        for i in range(len(dataset))
    )
    answers = (
        (_hash_input(array), outputs)
        for batch in _split_batches(arrays)
        for array, outputs in zip(batch, run(bundle, device, batch), strict=True)
    )
    return _collect_evaluation(images, network_input, answers, progress, point)


def evaluate_reference(
    model: Model, images: LabelledImages, progress: Progress = silent
) -> Evaluated:
    """Evaluate a network as written, in float, by the reference executor.

    Args:
        model: The float model as written.
        images: The images and their classes.
        progress: Receives each image.

    Raises:
        UserError: As for `evaluate_artifact`.
    """
    (network_input,) = model.graph.inputs
    dataset = check_dataset(images.dataset, network_input)
    run = float_program.create_runner(model)
    tensors = (dataset.read_tensor(i, network_input) for i in range(len(dataset)))
    answers = ((_hash_input(array), run(array)) for array in tensors)
    return _collect_evaluation(images, network_input, answers, progress, None)


def read_pixels(dataset: DataSet, index: int, network_input: Input) -> NDArray[np.uint8]:
    """Return the pixels of an item for a network, uint8 (height, width, 3).

    Args:
        dataset: The images.
        index: Index of the item.
        network_input: The network's input.

    Raises:
        UserError: The image is damaged, or has a size that the network does not accept.
    """
    item = dataset.items[index]
    if dataset.array is None:
        image = confined_images.read_image(item.path)
    else:
        image = dataset.array[item.index or 0].astype(np.uint8, copy=False)
    return check_image(image, network_input, item.name)


def _collect_evaluation(
    images: LabelledImages,
    network_input: Input,
    answers: Iterator[Answer],
    progress: Progress,
    point: OperatingPoint | None,
) -> Evaluated:
    """Collect the outputs and the prediction of each image."""
    total, width = len(images.dataset), images.output.shape[0]
    is_predicted = np.zeros((total, len(images.labels)), np.bool_)
    raw = np.zeros((total, width), np.float32) if total * width <= MAX_VALUES else None
    inputs = []
    progress("images", 0, total)
    try:
        for index, (digest, outputs) in enumerate(answers):
            output_values = outputs[images.output.name]
            # argmax would silently choose the class with NaN.
            if not np.isfinite(output_values).all():
                raise _create_overflow_error(images, index)
            is_predicted[index] = predict_classes(images, output_values, point)
            inputs.append(digest)
            if raw is not None:
                raw[index] = output_values
            progress("images", index + 1, total)
    except UserError as error:
        if error.diagnostics[0].code in DAMAGED_CODES:  # the first one: list all of them
            raise images.dataset.collect_errors(network_input) from None
        raise
    return Evaluated(images, is_predicted, raw, tuple(inputs))


def predict_classes(
    images: LabelledImages, output_values: NDArray[np.float32], point: OperatingPoint | None
) -> NDArray[np.bool_]:
    """Return the predicted classes (classes,) of an image from its raw outputs (values,)."""
    output, row = images.output, output_values[None]
    if images.single:
        yes = decision_rule.predict_decisions(row, point)[0]
        return np.append(~yes, yes)
    if not images.exclusive:
        return np.asarray(decision_rule.predict_decisions(row, point)[0])
    predicted_class = decision_rule.predict_classes(output.activation, row, point)[0]
    is_predicted: NDArray[np.bool_] = np.arange(output.shape[0]) == predicted_class
    return is_predicted


def _hash_input(array: NDArray[Any]) -> bytes:
    """Return a hash that identifies an input, whatever its file."""
    # Of the network's input and its shape: the same image in another lossless file has the same
    # hash, and a crop of another shape with equal bytes has not.
    head = f"{array.dtype} {array.shape}".encode()
    return hashlib.blake2b(head + array.tobytes(), digest_size=16).digest()


def _create_overflow_error(images: LabelledImages, index: int) -> UserError:
    return fail(
        "E0720",
        f"with these weights, output `{images.output.name}` is not finite",
        make_file_span(images.dataset.items[index].name),
        label="NaN or infinity for this image",
        help="the network overflows float32: check the magnitudes of the weights",
    )


def _split_batches(arrays: Iterator[NDArray[Any]]) -> Iterator[list[NDArray[Any]]]:
    """Yield batches of arrays, smaller ones for large arrays."""
    batch: list[NDArray[Any]] = []
    for array in arrays:
        batch.append(array)
        # An ARM artifact starts a process per batch, so single images would be slow. The byte limit
        # bounds batches of large images.
        if len(batch) == BATCH_SIZE or sum(a.nbytes for a in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch
