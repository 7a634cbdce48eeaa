"""Labelled images through a network: which class each is taken for.

Images are decoded a batch at a time; what the network gives is kept of them.
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
from tcc.compiler.data.dataset import DAMAGED, DataSet, check, fitting
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
from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.support.progress import Progress, silent
from tcc.compiler.support.value_views import ValueView

Outputs = Mapping[str, NDArray[np.float32]]
Answer = tuple[bytes, Outputs]
"""The hash of an input, and what the network gives for it."""
MOST_VALUES = 1 << 26
"""Most outputs that are kept, 256 MiB of them; beyond, only counts are."""
BATCH = 32
"""Most images at a time."""
BATCH_BYTES = 1 << 26
"""Bytes of pixels at which a batch is full."""


@dataclass(frozen=True, eq=False, repr=False)
class Evaluated(ValueView):
    """What a network gave for labelled images, in their order.

    `raw` are its outputs (images, values), None where these would be more than `MOST_VALUES`;
    `taken` says of each image and class whether the image was taken for it; `inputs` are hashes of
    what went in; `notices` what makes the figures doubtful.
    """

    given: LabelledImages
    taken: NDArray[np.bool_]
    raw: NDArray[np.float32] | None
    inputs: tuple[bytes, ...]
    notices: tuple[str, ...] = ()

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which images were taken for what they are."""
        found: NDArray[np.bool_] = (self.taken == self.given.holds).all(axis=1)
        return found

    @property
    def scores(self) -> Scores:
        """The figures of its counts."""
        holds = self.given.holds
        if not self.given.exclusive:
            return classification_metrics.decision_scores(holds, self.taken)
        # The confusion matrix as one product of what is and what was taken.
        counts = holds.astype(np.int64).T @ self.taken
        return classification_metrics.scores(counts)

    def _summary(self) -> Iterator[str]:
        yield f"Evaluation on {self.given.path}"
        if self.notices:
            yield f"warning: {'; '.join(self.notices)}"
        yield from self.scores.describe(self.given.labels)

    def odds(self, temperature: float = 1.0) -> NDArray[np.float64] | None:
        """Return the log-odds of each class, (images, classes)."""
        if self.raw is None:
            return None
        found = roc_curve.log_odds(self.given.output.activation, self.raw, temperature)
        # The log-odds of no are those of yes with the other sign.
        return np.hstack([-found, found]) if self.given.single else found


def by_artifact(
    found: Bundle,
    device: Device,
    given: LabelledImages,
    progress: Progress,
    point: OperatingPoint | None = None,
) -> Evaluated:
    """Return how a bundle's artifact does, from the pixels on, read as an operating point says.

    Args:
        found: The bundle.
        device: Its target.
        given: The images and their classes.
        progress: Told of each image.
        point: How outputs are read; without it, as the spec says.

    Raises:
        UserError: The images are damaged or do not fit the network, or it gives no finite numbers.
    """
    source, data = found.input, check(given.data, found.input)
    floats = data.array is not None and data.array.dtype != np.uint8
    run = artifact_runs.infer if floats else artifact_runs.run
    each = (data.tensor(i, source) if floats else pixels(data, i, source) for i in range(len(data)))
    answers = (
        (_digest(array), outputs)
        for batch in _batches(each)
        for array, outputs in zip(batch, run(found, device, batch), strict=True)
    )
    return _evaluated(given, source, answers, progress, point)


def by_reference(model: Model, given: LabelledImages, progress: Progress = silent) -> Evaluated:
    """Return how a network as written does, in floats, by the reference executor.

    Args:
        model: The network in floats, as written.
        given: The images and their classes.
        progress: Told of each image.

    Raises:
        UserError: As for `by_artifact`.
    """
    (source,) = model.graph.inputs
    data = check(given.data, source)
    run = float_program.prepared(model)
    each = (data.tensor(i, source) for i in range(len(data)))
    answers = ((_digest(array), run(array)) for array in each)
    return _evaluated(given, source, answers, progress, None)


def pixels(data: DataSet, place: int, source: Input) -> NDArray[np.uint8]:
    """Return the pixels of an item that a network takes, uint8 (height, width, 3).

    Args:
        data: The images.
        place: Which of them.
        source: The network's input.

    Raises:
        UserError: The image is damaged, or of a size that the network does not take.
    """
    item = data.items[place]
    if data.array is None:
        found = confined_images.read(item.path)
    else:
        found = data.array[item.place or 0].astype(np.uint8, copy=False)
    return fitting(found, source, item.name)


def _evaluated(
    given: LabelledImages,
    source: Input,
    answers: Iterator[Answer],
    progress: Progress,
    point: OperatingPoint | None,
) -> Evaluated:
    """Hear what each image gives, and what it is taken for."""
    total, width = len(given.data), given.output.shape[0]
    taken = np.zeros((total, len(given.labels)), np.bool_)
    raw = np.zeros((total, width), np.float32) if total * width <= MOST_VALUES else None
    inputs = []
    progress("images", 0, total)
    try:
        for place, (digest, outputs) in enumerate(answers):
            values = outputs[given.output.name]
            # To argmax NaN is the largest: the image would be taken for that class in silence.
            if not np.isfinite(values).all():
                raise _not_finite(given, place)
            taken[place] = taken_classes(given, values, point)
            inputs.append(digest)
            if raw is not None:
                raw[place] = values
            progress("images", place + 1, total)
    except UserError as error:
        if error.diagnostics[0].code in DAMAGED:  # the first one: list all of them
            raise given.data.damaged(source) from None
        raise
    return Evaluated(given, taken, raw, tuple(inputs))


def taken_classes(
    given: LabelledImages, values: NDArray[np.float32], point: OperatingPoint | None
) -> NDArray[np.bool_]:
    """Return which classes an image is taken for (classes,), of its raw outputs (values,)."""
    output, row = given.output, values[None]
    if given.single:
        yes = decision_rule.decided(row, point)[0]
        return np.append(~yes, yes)
    if not given.exclusive:
        return np.asarray(decision_rule.decided(row, point)[0])
    chosen = decision_rule.class_taken(output.activation, row, point)[0]
    found: NDArray[np.bool_] = np.arange(output.shape[0]) == chosen
    return found


def _digest(array: NDArray[Any]) -> bytes:
    """Return what tells an input from others, whatever its file."""
    # Of what goes into the network, with its form: a file saved again, or in another format without
    # loss, is the same image, and a crop of another shape with equal bytes is not.
    head = f"{array.dtype} {array.shape}".encode()
    return hashlib.blake2b(head + array.tobytes(), digest_size=16).digest()


def _not_finite(given: LabelledImages, place: int) -> UserError:
    return fail(
        "E0720",
        f"with these weights, output `{given.output.name}` is not finite",
        whole_file(given.data.items[place].name),
        label="NaN or infinity for this image",
        help="look at the weights' magnitudes; the network overflows float32",
    )


def _batches(each: Iterator[NDArray[Any]]) -> Iterator[list[NDArray[Any]]]:
    """Yield arrays a batch at a time, fewer of them where they are large."""
    batch: list[NDArray[Any]] = []
    for array in each:
        batch.append(array)
        # An ARM artifact is a process a batch, so that one image a batch would be dear; pixels of
        # large images bound it from above.
        if len(batch) == BATCH or sum(a.nbytes for a in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch
