"""Labelled images through a network: which class each is taken for.

Images are decoded a batch at a time, and nothing but counts is kept of them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.bundle import artifact_runs
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.manifest import OutputContract
from tcc.compiler.data import images
from tcc.compiler.data.dataset import DAMAGED, MOST_LISTED, DataSet, check, fitting, indices
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.reference import classification_metrics, float_program
from tcc.compiler.reference.classification_metrics import Scores
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, whole_file
from tcc.compiler.support.progress import Progress

Outputs = Mapping[str, NDArray[np.float32]]
BATCH = 32
"""Most images at a time."""
BATCH_BYTES = 1 << 26
"""Bytes of pixels at which a batch is full."""


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """A data set with each item's class, and where it comes from."""

    data: DataSet
    classes: tuple[int, ...]
    output: OutputContract
    path: Path


def by_artifact(found: Bundle, device: Device, given: LabelledImages, progress: Progress) -> Scores:
    """Return how a bundle's artifact does, from the pixels on.

    Raises:
        UserError: The images are damaged or do not fit the network, or it gives no finite numbers.
    """
    source, data = found.input, check(given.data, found.input)
    floats = data.array is not None and data.array.dtype != np.uint8
    run = artifact_runs.infer if floats else artifact_runs.run
    each = (data.tensor(i, source) if floats else pixels(data, i, source) for i in range(len(data)))
    answers = (outputs for batch in _batches(each) for outputs in run(found, device, batch))
    return _scored(given, source, answers, progress)


def by_reference(model: Model, given: LabelledImages, progress: Progress) -> Scores:
    """Return how a network as written does, in floats, by the reference executor.

    Raises:
        UserError: As for `by_artifact`.
    """
    (source,) = model.graph.inputs
    data = check(given.data, source)
    run = float_program.prepared(model)
    answers = (run(data.tensor(i, source)) for i in range(len(data)))
    return _scored(given, source, answers, progress)


def labelled(data: DataSet, outputs: Sequence[OutputContract], path: Path) -> LabelledImages:
    """Return a data set with the classes that a network's first row of classes has for it.

    Where none is said to be one, the first row of numbers is taken for it.

    Args:
        data: Images with labels.
        outputs: The network's, as a manifest describes them.
        path: Where the images are, for errors.

    Raises:
        UserError: No output is such a row, or each decides by itself (E0716), images have no label
            (E0714), or one that the network does not have (E0715).
    """
    where = whole_file(str(path))
    rows = [o for o in outputs if len(o.shape) == 1 and o.shape[0] > 1]
    classes_first = [o for kind in ("classes", "regression") for o in rows if o.kind == kind]
    if not classes_first:
        help = "say `kind: classes` in the spec if one of its decisions alone may hold"
        message = "this network has no output that is a row of classes"
        raise fail("E0716", message, where, help=help if rows else "")
    output = classes_first[0]
    bare = [item for item in data.items if item.label is None]
    if bare:
        found = f"{len(bare)} of {len(data)} have none; the first is {bare[0].name}"
        help = "put them in a folder for each class, or give an .npz file with `labels`"
        raise fail("E0714", "these images have no labels", where, label=found, help=help)
    classes = indices(data, output.labels)
    known = tuple(c for c in classes if c is not None and c < output.shape[0])
    if len(known) < len(data):
        raise UserError(_unknown(data, classes, output, path))
    return LabelledImages(data, known, output, path)


def pixels(data: DataSet, place: int, source: Input) -> NDArray[np.uint8]:
    """Return the pixels of an item that a network takes, uint8 (height, width, 3).

    Raises:
        UserError: The image is damaged, or of a size that the network does not take.
    """
    item = data.items[place]
    if data.array is None:
        found = images.read(item.path)
    else:
        found = data.array[item.place or 0].astype(np.uint8, copy=False)
    return fitting(found, source, item.name)


def _unknown(
    data: DataSet, classes: Sequence[int | None], output: OutputContract, path: Path
) -> tuple[Diagnostic, ...]:
    """Return what is wrong with each label that no class has."""
    count = output.shape[0]
    strange = Counter(
        str(item.label)
        for item, index in zip(data.items, classes, strict=True)
        if index is None or index >= count
    )
    if output.labels:
        help = f"its classes are {', '.join(output.labels[:MOST_LISTED])}"
    else:
        help = f"its {count} classes have no names: let labels be indices from 0 to {count - 1}"
    return tuple(
        Diagnostic(
            "E0715",
            f"the network has no class `{label[:80]}`",
            whole_file(str(path / label if path.is_dir() else path)),
            label=f"{images} images of it",
            help=help,
        )
        for label, images in sorted(strange.items())[:MOST_LISTED]
    )


def _scored(
    given: LabelledImages, source: Input, answers: Iterator[Outputs], progress: Progress
) -> Scores:
    """Count what each image is taken for: its largest output, of equal ones the first."""
    total, classes = len(given.data), given.output.shape[0]
    counts = np.zeros((classes, classes), np.int64)
    progress("images", 0, total)
    try:
        for place, outputs in enumerate(answers):
            values = outputs[given.output.name]
            if not np.isfinite(values).all():
                raise _not_finite(given, place)
            counts[given.classes[place], int(values.argmax())] += 1
            progress("images", place + 1, total)
    except UserError as error:
        if error.diagnostics[0].code in DAMAGED:  # one of them: look for all
            raise given.data.damaged(source) from None
        raise
    return classification_metrics.scores(counts)


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
        if len(batch) == BATCH or sum(a.nbytes for a in batch) >= BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch
