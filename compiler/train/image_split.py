"""Split a dataset into training, validation and test images.

A dataset for training is

- a folder with the folders `train`, `val` and `test`, each with class folders;
- a folder of class folders, which is split by a seed;
- either of these, or a folder of images in any layout, with an `index.csv` (`image_table`) of
  labels, groups and optionally splits;
- an `.npz` file with `labels`, which is split by a seed.

Images of one group (a patient or a slide) are always in one split, and so are identical files. Both
are also checked for splits made by hand.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from tcc.compiler.data.dataset import DataSet, Item
from tcc.compiler.data.split_file import SPLITS
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, join_names, make_file_span
from tcc.compiler.train import seeded_split, targets
from tcc.compiler.train.labelled_files import LabelledFiles, match_classes, read_labelled_files
from tcc.compiler.train.seeded_split import SplitShares
from tcc.compiler.train.targets import Targets

MIN_CLASS_IMAGES = 10
"""Number of images of a class below which a warning is reported."""
MAX_NAMED = 5
"""Maximum number of images or groups that a message lists."""


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How to split images that are not split yet.

    Attributes:
        seed: The seed of the split.
        shares: The shares of train, val and test.
        labels: The network's classes in order, which the images must match. If empty, the classes
            are the images', in the order of their names.
        targets: The targets of a multi-label network; otherwise empty.
        settable: Whether `--set labels=` can change the network's classes.
        previous_splits: The splits, by image digest, of the training that the weights come from.
            They are reused for images without splits.
        ignores_previous: Whether `previous_splits` are not reused.
    """

    seed: int = 0
    shares: SplitShares = field(default_factory=SplitShares)
    labels: tuple[str, ...] = ()
    targets: Targets = ()
    settable: bool = False
    previous_splits: Mapping[str, str] = field(default_factory=dict)
    ignores_previous: bool = False


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """The training, validation and test images.

    Attributes:
        path: The folder or `.npz` file of the images.
        train: The training images.
        val: The validation images.
        test: The test images; may be empty.
        classes: The classes; for a multi-label network, the labels that occur.
        groups: The known groups of items, by item name.
        warnings: Skipped files and default choices.
        targets: The targets of a multi-label network; otherwise empty.
        is_presplit: Whether the dataset has the splits `train` and `val`, so that no shares apply.
    """

    path: Path
    train: DataSet
    val: DataSet
    test: DataSet
    classes: tuple[str, ...]
    groups: Mapping[str, str]
    warnings: tuple[Diagnostic, ...] = ()
    targets: Targets = ()
    is_presplit: bool = False

    @property
    def datasets(self) -> Mapping[str, DataSet]:
        """The datasets by split name."""
        return dict(zip(SPLITS, (self.train, self.val, self.test), strict=True))

    def select_items(self, names: Mapping[str, Collection[str]]) -> "ImageSplit":
        """Return the split with only the named items of each dataset."""
        train, val, test = (
            replace(dataset, items=tuple(item for item in dataset.items if item.name in kept_names))
            for dataset, kept_names in (
                (self.datasets[split_name], frozenset(names[split_name])) for split_name in SPLITS
            )
        )
        return replace(self, train=train, val=val, test=test)


def read_split(path: Path, options: SplitOptions | None = None) -> ImageSplit:
    """Return the split of a folder or an `.npz` file.

    Raises:
        UserError: The path is not a dataset (E0710 to E0712) or has an unknown layout (E1200); its
            table is invalid (E1201, E1202); a group or an image is in two splits (E1203, E1204);
            there are too few images to split (E1206); or the classes do not match (E1207).
    """
    options = options or SplitOptions()
    files = read_labelled_files(path)
    classes, names, output_targets = _resolve_classes(files, options)
    renamed_images = _rename_labels(files.dataset, names)
    by_name = dict(
        zip((item.name for item in files.dataset.items), renamed_images.items, strict=True)
    )
    splits, warnings = _assign_splits(files, by_name, options)
    datasets = [
        _select_items(renamed_images, [n for n in by_name if splits[n] == split_name], by_name)
        for split_name in SPLITS
    ]
    _check_groups(files, splits)
    _check_contents(dict(zip(SPLITS, datasets, strict=True)))
    train, val, test = datasets
    is_presplit = {"train", "val"} <= set(files.splits.values())
    split = ImageSplit(
        path, train, val, test, classes, files.groups, (), output_targets, is_presplit
    )
    all_warnings = chain(
        files.warnings, warnings, _check_labels(split), _check_learned_images(split, options)
    )
    return replace(split, warnings=tuple(all_warnings))


def _resolve_classes(
    files: LabelledFiles, options: SplitOptions
) -> tuple[tuple[str, ...], Mapping[str, str], Targets]:
    """Return the classes, the class of each image label, and the network's targets.

    Raises:
        UserError: The classes do not match the network's (E1207).
    """
    if not options.targets:
        return *match_classes(files, options.labels, options.settable), ()
    labels = sorted({item.label or "" for item in files.dataset.items})
    names = targets.normalize_labels(labels, options.targets, make_file_span(str(files.path)))
    return tuple(sorted(set(names.values()))), names, options.targets


def _rename_labels(dataset: DataSet, names: Mapping[str, str]) -> DataSet:
    """Return a dataset with the labels replaced by the network's class names."""
    items = tuple(replace(item, label=names[item.label or ""]) for item in dataset.items)
    return replace(dataset, items=items, warnings=())


def _select_items(dataset: DataSet, names: Sequence[str], by_name: Mapping[str, Item]) -> DataSet:
    return replace(dataset, items=tuple(by_name[name] for name in names))


def _assign_splits(
    files: LabelledFiles, items_by_name: Mapping[str, Item], options: SplitOptions
) -> tuple[Mapping[str, str], list[Diagnostic]]:
    """Return the split of each image by name, given or by seed, and warnings about choices."""
    at = make_file_span(str(files.path))
    # Equal files count as one group: otherwise a copy of a training image could be a test image.
    units = seeded_split.group_units(items_by_name, files.groups)
    labels: Mapping[str, str] = {name: item.label or "" for name, item in items_by_name.items()}
    if options.targets:
        labels = seeded_split.merge_rare_labels(labels, units, options.shares)
    warnings = [] if files.groups else [_warn_no_groups(files)]
    splits = dict(files.splits) or _reuse_splits(items_by_name, options)
    if not splits:
        problems = [*seeded_split.find_shortages(labels, units, options.shares, at)]
        if problems:
            raise UserError(tuple(problems))
        return seeded_split.split_images(labels, units, options.shares, options.seed), warnings
    if "train" not in splits.values():
        message = "there are no training images: no image is in `train`"
        raise fail("E1200", message, at, help="add images to `train`")
    if "val" not in splits.values():
        train_labels = {
            name: labels[name] for name, split_name in splits.items() if split_name == "train"
        }
        shares = SplitShares(options.shares.train, options.shares.val, 0.0)
        problems = [*seeded_split.find_shortages(train_labels, units, shares, at)]
        if problems:
            raise UserError(tuple(problems))
        splits |= seeded_split.split_images(train_labels, units, shares, options.seed)
        count = sum(split_name == "val" for split_name in splits.values())
        message = f"there is no `val`: {count:,} images of `train` are used for it, by the seed"
        warnings.append(_build_warning("E1209", message, files.path))
    if "test" not in splits.values():
        message = "there is no `test`: the accuracy on unseen images will not be measured"
        # Choosing the best of many epochs by `val` fits `val`. Only a test set is unbiased.
        help = "metrics on `val` can be too optimistic, because they select the checkpoint"
        warnings.append(_build_warning("E1209", message, files.path, help=help))
    return splits, warnings


def _reuse_splits(items_by_name: Mapping[str, Item], options: SplitOptions) -> dict[str, str]:
    """Return the splits of the previous training, if it contained all images."""
    previous_splits = {
        name: options.previous_splits.get(item.digest) for name, item in items_by_name.items()
    }
    if options.ignores_previous or None in previous_splits.values():
        return {}
    return {name: split_name for name, split_name in previous_splits.items() if split_name}


def _check_learned_images(split: ImageSplit, options: SplitOptions) -> Iterator[Diagnostic]:
    """Yield a warning about test images that the initial weights were trained on (E1224)."""
    learned_items = [
        i for i in split.test.items if options.previous_splits.get(i.digest, "test") != "test"
    ]
    if learned_items:
        count = f"{len(learned_items):,} test images" if len(learned_items) > 1 else "1 test image"
        message = f"the initial weights were trained or selected on {count}"
        help = "use the images and the split of their run (no `--split`), or start without weights"
        notes = tuple(item.name for item in learned_items[1:MAX_NAMED])
        at, label = (
            make_file_span(learned_items[0].name),
            "metrics on `test` are too optimistic",
        )
        yield Diagnostic("E1224", message, at, label, notes, help, "warning")


def _warn_no_groups(files: LabelledFiles) -> Diagnostic:
    message = "it is not known which images are of the same patient or slide"
    label = "if such images are in two splits, the measured accuracy is too high"
    help = "list the groups in an `index.csv` with the columns file, label and group"
    if files.path.is_file():
        help = "give a folder with an `index.csv`, with the columns file, label and group"
    return _build_warning("E1208", message, files.path, label, help)


def _check_groups(files: LabelledFiles, splits: Mapping[str, str]) -> None:
    """Reject a group in two splits (E1203)."""
    members: dict[str, dict[str, str]] = defaultdict(dict)
    for name, group in files.groups.items():
        members[group].setdefault(splits[name], name)
    problems = []
    for group, names_by_split in sorted(members.items()):
        if len(names_by_split) > 1:
            message = (
                f"group `{group}` is in {len(names_by_split)} splits: "
                f"{join_names(list(names_by_split))}"
            )
            notes = tuple(f"{split_name}: {name}" for split_name, name in names_by_split.items())
            help = "put all images of a group into one split, or remove the column `split`"
            at = files.spans.get(list(names_by_split.values())[-1], make_file_span(str(files.path)))
            problems.append(Diagnostic("E1203", message, at, notes=notes, help=help))
    _raise_if(problems)


def _check_contents(datasets: Mapping[str, DataSet]) -> None:
    """Reject files with the same contents in two splits (E1204)."""
    first_by_digest: dict[str, tuple[str, Item]] = {}
    problems = []
    for split_name, dataset in datasets.items():
        for item in dataset.items:
            other_split, other_item = first_by_digest.setdefault(item.digest, (split_name, item))
            if other_split != split_name and not _is_empty(item):
                message = f"the same image is in `{other_split}` and in `{split_name}`"
                notes = (f"{other_split}: {other_item.name}", f"{split_name}: {item.name}")
                help = "keep it in only one split"
                at = make_file_span(item.name)
                problems.append(Diagnostic("E1204", message, at, notes=notes, help=help))
    _raise_if(problems)


def _is_empty(item: Item) -> bool:
    return item.index is None and item.path.stat().st_size == 0


def _raise_if(problems: list[Diagnostic]) -> None:
    if problems:
        raise UserError(tuple(problems[:MAX_NAMED]), max(0, len(problems) - MAX_NAMED))


def _check_labels(split: ImageSplit) -> Iterator[Diagnostic]:
    """Yield warnings about classes and labels.

    Raises:
        UserError: A class has no training images (E1206).
    """
    path = split.path
    counts = {
        split_name: _count_answers(split, dataset) for split_name, dataset in split.datasets.items()
    }
    names = targets.list_all_answers(split.targets) or split.classes
    absent_classes = [name for name in names if not counts["train"][name]]
    if absent_classes:
        message = f"these classes have no training images: {join_names(absent_classes)}"
        raise fail(
            "E1206", message, make_file_span(str(path)), help="add images of them to `train`"
        )
    rare_classes = [name for name in names if counts["train"][name] < MIN_CLASS_IMAGES]
    if rare_classes:
        class_counts = join_names([f"{name} ({counts['train'][name]})" for name in rare_classes])
        message = f"few training images: {class_counts}"
        yield _build_warning("E1213", message, path, help="add images of these classes to `train`")
    for split_name in ("val", "test"):
        missing = [name for name in names if not counts[split_name][name]]
        if missing and len(split.datasets[split_name]):
            message = f"`{split_name}` has no image of {join_names(missing)}"
            yield _build_warning("E1213", message, path, "its metrics do not cover them")
    yield from _find_contradictions(split)


def _count_answers(split: ImageSplit, dataset: DataSet) -> Counter[str]:
    """Return the number of images for each answer: a class, or yes or no for a decision."""
    labels = Counter(item.label or "" for item in dataset.items)
    if not split.targets:
        return labels
    answer_counts: Counter[str] = Counter()
    for label, count in labels.items():
        answer_counts.update(dict.fromkeys(targets.list_answers(label, split.targets), count))
    return answer_counts


def _find_contradictions(split: ImageSplit) -> Iterator[Diagnostic]:
    for dataset in split.datasets.values():
        items_by_digest: dict[str, Item] = {}
        for item in dataset.items:
            other_item = items_by_digest.setdefault(item.digest, item)
            if other_item.label != item.label and not _is_empty(item):
                message = f"the same image has the labels `{other_item.label}` and `{item.label}`"
                yield replace(_build_warning("E1214", message, item.path), notes=(other_item.name,))


def _build_warning(
    code: str, message: str, path: Path, label: str = "", help: str = ""
) -> Diagnostic:
    at = make_file_span(str(path))
    return Diagnostic(code, message, at, label, help=help, severity="warning")
