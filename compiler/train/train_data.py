"""Prepare the images of `tcc train`: split them, set the spec's classes, and decode them."""

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
"""The spec parameter with the class names."""


@dataclass(frozen=True, slots=True)
class DataOptions:
    """The command line's options for the images.

    Attributes:
        path: The images; None for the project's.
        seed: The seed of the split.
        shares: The shares of the split, as text; None for the default.
        settings: The spec's settings (`--set`).
        weights: The initial weights. The split of their run is reused, unless `shares` is given.
    """

    path: Path | None
    seed: int
    shares: str | None
    settings: Sequence[str]
    weights: Path | None


def split_images(
    report: Report, stages: Stages, chosen_spec: ChosenSpec, options: DataOptions
) -> "tuple[ChosenSpec, ImageSplit]":
    """Return the split of the images, and the spec with their classes if it names none.

    If the spec names classes, also by a default, images of other classes are rejected. If it names
    none, its `labels` parameter is set to the folders' names, unless the user has set it.

    Args:
        report: Receives results and warnings.
        stages: Receives the progress.
        chosen_spec: The spec that the user chose.
        options: The images, and how to split them.

    Raises:
        UserError: There are no usable training images, or their classes do not match the spec's.
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
        help = "give labelled images with --data, such as a folder of class folders"
        raise fail("E0616", "no training images are given", make_command_span("--data"), help=help)
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
    option_requirements.report_facts({SHARES_USED: not image_sets.is_presplit})
    report.warn_grouped(image_sets.warnings)
    if run_split and all(
        previous_splits.get(i.digest) == split_name
        for split_name, d in image_sets.datasets.items()
        for i in d.items
    ):
        report.print_note(f"the split of {run_split.path.parent} is reused")
    if output_targets or labels or not settable or LABELS_PARAM in params:
        return chosen_spec, image_sets
    text = json.dumps(image_sets.classes, ensure_ascii=False)
    setting = shlex.quote(f"{LABELS_PARAM}={text}")
    report.warn_text(
        f"the spec names no classes, so the folders' names are used: build with --set {setting}"
    )
    return replace(
        chosen_spec, spec=spec.recompile({**params, LABELS_PARAM: text}), changed=True
    ), image_sets


def decode_splits(
    report: Report, stages: Stages, spec: "Spec", split: "ImageSplit", corrupt: str
) -> "Mapping[str, PixelStore]":
    """Return the decoded images of each split.

    Args:
        report: Receives results and warnings.
        stages: Receives the progress.
        spec: The network that takes the images.
        split: The images of each split.
        corrupt: `skip` or `refuse`, the handling of damaged images.

    Returns:
        The decoded images by split: `train`, `val`, `test`.

    Raises:
        UserError: Images are damaged and not skipped, or do not fit the network or the disk.
    """
    from tcc.compiler.support import atomic_files
    from tcc.compiler.train import pixel_store
    from tcc.compiler.train.pixel_store import DecodeOptions

    (network_input,) = spec.graph.inputs
    with atomic_files.create_scratch_folder() as scratch:
        options = DecodeOptions(scratch, _parse_corrupt_policy(corrupt), threads=2)
        stores_by_split = {
            split_name: pixel_store.decode_images(
                dataset, network_input, split.classes, replace(options, split=split_name), stages
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
    raise fail(
        "E0601", "`--corrupt` must be refuse or skip", make_command_span(f"--corrupt {policy}")
    )
