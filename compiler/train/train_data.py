"""The images of `tcc train`: onto three sides, the spec's classes made theirs, and decoded."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.driver import run_splits
from tcc.compiler.driver.chosen_spec import ChosenSpec, parse_settings
from tcc.compiler.support import option_requirements
from tcc.compiler.support.console import Report, Stages
from tcc.compiler.support.diagnostics import fail, make_command_span, make_file_span
from tcc.compiler.support.option_requirements import SHARES_USED

if TYPE_CHECKING:
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.train.image_split import ImageSplit
    from tcc.compiler.train.pixel_store import CorruptPolicy, PixelStore

LABELS_PARAM = "labels"
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


def split_images(
    report: Report, stages: Stages, chosen_spec: ChosenSpec, options: DataOptions
) -> "tuple[ChosenSpec, ImageSplit]":
    """Return the split of the images, and the spec with their classes where it names none.

    The classes that a spec names lead, also by a default: images of others are refused. Where it
    names none, its `labels` parameter, unless somebody set it, takes the folders' names.

    Args:
        report: Where results and warnings are told.
        stages: Told of each stage.
        chosen_spec: The spec as the user named it.
        options: The folder, and how it is split.

    Raises:
        UserError: There are no images that can be learned from, or their classes are not those of
            the spec.
    """
    from tcc.compiler.train import class_outputs, image_split, seeded_split, targets
    from tcc.compiler.train.image_split import SplitOptions
    from tcc.compiler.train.seeded_split import SplitShares

    spec, project = chosen_spec.spec, chosen_spec.project
    at = make_file_span(str(spec.path))
    scored_outputs = class_outputs.find_scored_outputs(spec.graph, at)
    report.warn_grouped(class_outputs.find_untrained_outputs(spec.graph, scored_outputs, at))
    data_path = options.path or project.data
    if data_path is None:
        help = "give labelled images with --data: a folder of class folders"
        raise fail("E0616", "train on which images?", make_command_span("--data"), help=help)
    stages("data", 0, 1)
    params = {
        **(project.params if chosen_spec.is_project_spec else {}),
        **parse_settings(options.settings),
    }
    settable = LABELS_PARAM in spec.params and chosen_spec.trained is None
    run_split = run_splits.find_weights_split(None, options.weights)
    previous_splits = run_split.split_by_digest if run_split else {}
    output_targets, labels = (
        targets.build_targets(spec.graph, scored_outputs, at),
        scored_outputs[0].labels,
    )
    split_options = SplitOptions(
        options.seed, SplitShares(), labels, output_targets, settable, previous_splits
    )
    if options.shares is not None:
        typed_at = make_command_span(f"--split {options.shares}")
        split_options = replace(
            split_options,
            shares=seeded_split.parse_shares(options.shares, typed_at),
            ignores_previous=True,
        )
    image_sets = image_split.read_split(data_path, split_options)
    option_requirements.set_facts({SHARES_USED: not image_sets.is_presplit})
    report.warn_grouped(image_sets.warnings)
    if run_split and all(
        previous_splits.get(i.digest) == split_name
        for split_name, d in image_sets.datasets.items()
        for i in d.items
    ):
        report.print_note(f"the split is that of {run_split.path.parent}")
    if output_targets or labels or not settable or LABELS_PARAM in params:
        return chosen_spec, image_sets
    text = json.dumps(image_sets.classes, ensure_ascii=False)
    setting = shlex.quote(f"{LABELS_PARAM}={text}")
    report.warn_text(
        f"the spec names no classes, and learns the folders': build with --set {setting}"
    )
    return replace(
        chosen_spec, spec=spec.recompile({**params, LABELS_PARAM: text}), changed=True
    ), image_sets


def decode_splits(
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
    with atomic_files.create_scratch_folder() as scratch:
        options = DecodeOptions(scratch, _parse_corrupt_policy(corrupt), threads=2)
        stores_by_split = {
            split_name: pixel_store.decode_images(
                dataset, source, split.classes, replace(options, split=split_name), stages
            )
            for split_name, dataset in split.datasets.items()
        }
    for store in stores_by_split.values():
        report.warn_grouped(store.warnings)
    report.warn_grouped(pixel_store.find_duplicate_images(stores_by_split))
    return stores_by_split


def _parse_corrupt_policy(policy: str) -> "CorruptPolicy":
    match policy:
        case "refuse":
            return "refuse"
        case "skip":
            return "skip"
    raise fail("E0601", "say refuse or skip", make_command_span(f"--corrupt {policy}"))
