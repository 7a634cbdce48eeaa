"""The images of `tcc train`: onto three sides, the spec's classes made theirs, and decoded."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.driver import run_splits
from tcc.compiler.driver.chosen_spec import ChosenSpec, parsed
from tcc.compiler.support import option_needs
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import fail, typed, whole_file
from tcc.compiler.support.option_needs import SHARES_USED

if TYPE_CHECKING:
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.train.image_split import ImageSplit
    from tcc.compiler.train.pixel_store import Corrupt, PixelStore

LABELS = "labels"
"""The parameter by which specs take the names of their classes."""


@dataclass(frozen=True, slots=True)
class DataOptions:
    """What the command line says of the images: where, which seed and shares, which settings.

    `weights` are those that are learned further: their run's split holds, unless there are shares.
    """

    path: Path | None
    seed: int
    shares: str | None
    settings: Sequence[str]
    weights: Path | None


def split(
    report: Report, stages: Stages, chosen: ChosenSpec, options: DataOptions
) -> "tuple[ChosenSpec, ImageSplit]":
    """Return the split of the images, and the spec with their classes where it names none.

    The classes that a spec names lead, also by a default: images of others are refused. Where it
    names none, its `labels` parameter, unless somebody set it, takes the folders' names.

    Args:
        report: Where results and warnings are told.
        stages: Told of each stage.
        chosen: The spec as the user named it.
        options: The folder, and how it is split.

    Raises:
        UserError: There are no images that can be learned from, or their classes are not those of
            the spec.
    """
    from tcc.compiler.train import class_outputs, image_split, seeded_split, targets
    from tcc.compiler.train.image_split import SplitOptions
    from tcc.compiler.train.seeded_split import Shares

    spec, project = chosen.spec, chosen.project
    at = whole_file(str(spec.path))
    judged = class_outputs.found(spec.graph, at)
    report.warnings(class_outputs.untaught(spec.graph, judged, at))
    where = options.path or project.data
    if where is None:
        help = "give labelled images with --data: a folder of class folders"
        raise fail("E0616", "train on which images?", typed("--data"), help=help)
    stages("data", 0, 1)
    given = {**(project.params if chosen.own else {}), **parsed(options.settings)}
    settable = LABELS in spec.params and chosen.trained is None
    run = run_splits.of_weights(None, options.weights)
    before = run.sides if run else {}
    learned, labels = targets.of_outputs(spec.graph, judged, at), judged[0].labels
    split_options = SplitOptions(options.seed, Shares(), labels, learned, settable, before)
    if options.shares is not None:
        typed_at = typed(f"--split {options.shares}")
        split_options = replace(
            split_options, shares=seeded_split.shares(options.shares, typed_at), anew=True
        )
    image_sets = image_split.read(where, split_options)
    option_needs.require({SHARES_USED: not image_sets.sided})
    report.warnings(image_sets.warnings)
    if run and all(
        before.get(i.digest) == side for side, d in image_sets.sides.items() for i in d.items
    ):
        report.note(f"the split is that of {run.path.parent}")
    if learned or labels or not settable or LABELS in given:
        return chosen, image_sets
    text = json.dumps(image_sets.classes, ensure_ascii=False)
    setting = shlex.quote(f"{LABELS}={text}")
    report.notice(f"the spec names no classes, and learns the folders': build with --set {setting}")
    return replace(chosen, spec=spec.again({**given, LABELS: text}), changed=True), image_sets


def stores(
    report: Report, stages: Stages, spec: "Spec", split: "ImageSplit", corrupt: str
) -> "Mapping[str, PixelStore]":
    """Return the decoded images of each side.

    Args:
        report: Where results and warnings are told.
        stages: Told of each stage.
        spec: The network that they are for.
        split: The images of each side.
        corrupt: `skip` or `refuse`: what is done about images that do not decode.

    Returns:
        The decoded images by side: `train`, `val`, `test`.

    Raises:
        UserError: Images are damaged and not to be skipped, or do not fit the network or the disk.
    """
    from tcc.compiler.support import atomic_files
    from tcc.compiler.train import pixel_store
    from tcc.compiler.train.pixel_store import DecodeOptions

    (source,) = spec.graph.inputs
    with atomic_files.scratch_folder() as scratch:
        options = DecodeOptions(scratch, _corrupt(corrupt), threads=2)
        found = {
            side: pixel_store.decoded(
                data, source, split.classes, replace(options, side=side), stages
            )
            for side, data in split.sides.items()
        }
    for store in found.values():
        report.warnings(store.warnings)
    report.warnings(pixel_store.same_levels(found))
    return found


def _corrupt(word: str) -> "Corrupt":
    match word:
        case "refuse":
            return "refuse"
        case "skip":
            return "skip"
    raise fail("E0601", "say refuse or skip", typed(f"--corrupt {word}"))
