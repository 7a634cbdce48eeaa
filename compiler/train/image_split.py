"""What a network learns from, what chooses among its states, and what it is judged by.

A data set for training is

- a folder with the folders `train`, `val` and `test`, each of class folders;
- a folder of class folders, which is split by a seed;
- either of these, or a folder of images in any order, with an `index.csv` (`image_table`), whose
  lines say label, group and, if wanted, side;
- an `.npz` file with `labels`, which is split by a seed.

Images of one group, a patient or a slide, are never on two sides, nor is one and the same file.
What has been split by hand is checked for both.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from tcc.compiler.data.dataset import DataSet, Item
from tcc.compiler.data.split_file import SIDES
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, listed, whole_file
from tcc.compiler.train import seeded_split, targets
from tcc.compiler.train.labelled_files import LabelledFiles, match_classes, read_labelled_files
from tcc.compiler.train.seeded_split import Shares
from tcc.compiler.train.targets import Targets

FEW = 10
"""Images of a class below which training is warned of."""
MOST_NAMED = 5
"""Images or groups that a message names."""


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """How images without sides are split: by what seed, and which shares train, val and test get.

    `labels` are the network's, in its order: the images have these classes and no others. Where it
    names none, classes are in the order of their names. `settable` says that `--set labels=` gives
    it others. `targets` are those of a network that tells more than
    one class. `before` has the sides, by the images' digests, of the training that the weights are
    from: they are kept where the images have none, unless `anew`.
    """

    seed: int = 0
    shares: Shares = field(default_factory=Shares)
    labels: tuple[str, ...] = ()
    targets: Targets = ()
    settable: bool = False
    before: Mapping[str, str] = field(default_factory=dict)
    anew: bool = False


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """Three data sets, of which `test` may be empty, and the classes that their labels name.

    They lie at `path`. Where the network tells more than one class, `targets` says what, and
    `classes` are the labels that occur. `groups` has the group of each item by its name where
    groups are known. `warnings` say what was passed over or chosen.
    """

    path: Path
    train: DataSet
    val: DataSet
    test: DataSet
    classes: tuple[str, ...]
    groups: Mapping[str, str]
    warnings: tuple[Diagnostic, ...] = ()
    targets: Targets = ()
    sided: bool = False
    """Whether the images come on the sides `train` and `val`, so that no share splits them."""

    @property
    def sides(self) -> Mapping[str, DataSet]:
        """The data sets by what they are called."""
        return dict(zip(SIDES, (self.train, self.val, self.test), strict=True))

    def kept(self, names: Mapping[str, Collection[str]]) -> "ImageSplit":
        """Return the split with those items of each side alone that are named."""
        train, val, test = (
            replace(data, items=tuple(item for item in data.items if item.name in wanted))
            for data, wanted in ((self.sides[side], frozenset(names[side])) for side in SIDES)
        )
        return replace(self, train=train, val=val, test=test)


def read(path: Path, options: SplitOptions | None = None) -> ImageSplit:
    """Return the split of a folder or an `.npz` file.

    Raises:
        UserError: It is no data set (E0710 to E0712), not in a form that is known (E1200), its
            table is wrong (E1201, E1202), a group or an image is on two sides (E1203, E1204), too
            few images are there to be split (E1206), or classes do not fit (E1207).
    """
    options = options or SplitOptions()
    found = read_labelled_files(path)
    classes, names, learned = _named(found, options)
    data = _renamed(found.data, names)
    by_name = dict(zip((item.name for item in found.data.items), data.items, strict=True))
    sides, warnings = _sides(found, by_name, options)
    parts = [_part(data, [n for n in by_name if sides[n] == side], by_name) for side in SIDES]
    _check_groups(found, sides)
    _check_contents(dict(zip(SIDES, parts, strict=True)))
    train, val, test = parts
    sided = {"train", "val"} <= set(found.sides.values())
    split = ImageSplit(path, train, val, test, classes, found.groups, (), learned, sided)
    said = chain(found.warnings, warnings, _remarks(split), _learned(split, options))
    return replace(split, warnings=tuple(said))


def _named(
    found: LabelledFiles, options: SplitOptions
) -> tuple[tuple[str, ...], Mapping[str, str], Targets]:
    """Return the classes, the class of each label that images have, and what they are to outputs.

    Raises:
        UserError: They are not those of the network (E1207).
    """
    if not options.targets:
        return *match_classes(found, options.labels, options.settable), ()
    labels = sorted({item.label or "" for item in found.data.items})
    names = targets.kinds(labels, options.targets, whole_file(str(found.path)))
    return tuple(sorted(set(names.values()))), names, options.targets


def _renamed(data: DataSet, names: Mapping[str, str]) -> DataSet:
    """Return a data set whose labels are written as the network's classes are."""
    items = tuple(replace(item, label=names[item.label or ""]) for item in data.items)
    return replace(data, items=items, warnings=())


def _part(data: DataSet, names: Sequence[str], by_name: Mapping[str, Item]) -> DataSet:
    return replace(data, items=tuple(by_name[name] for name in names))


def _sides(
    found: LabelledFiles, items: Mapping[str, Item], options: SplitOptions
) -> tuple[Mapping[str, str], list[Diagnostic]]:
    """Return the side of each image by its name, given or by seed, and what was chosen."""
    where = whole_file(str(found.path))
    # Equal files count as one group: else a copy would be judged that was learned by heart.
    bound = seeded_split.bound_together(items, found.groups)
    labels: Mapping[str, str] = {name: item.label or "" for name, item in items.items()}
    if options.targets:
        labels = seeded_split.pooled(labels, bound, options.shares)
    warnings = [] if found.groups else [_no_groups(found)]
    sides = dict(found.sides) or _kept(items, options)
    if not sides:
        unfit = [*seeded_split.shortage(labels, bound, options.shares, where)]
        if unfit:
            raise UserError(tuple(unfit))
        return seeded_split.split(labels, bound, options.shares, options.seed), warnings
    if "train" not in sides.values():
        raise fail("E1200", "nothing is to be learned from: no image is in `train`", where)
    if "val" not in sides.values():
        learned = {name: labels[name] for name, side in sides.items() if side == "train"}
        shares = Shares(options.shares.train, options.shares.val, 0.0)
        unfit = [*seeded_split.shortage(learned, bound, shares, where)]
        if unfit:
            raise UserError(tuple(unfit))
        sides |= seeded_split.split(learned, bound, shares, options.seed)
        count = sum(side == "val" for side in sides.values())
        message = f"there is no `val`: {count:,} images of `train` are taken for it, by the seed"
        warnings.append(_warning("E1209", message, found.path))
    if "test" not in sides.values():
        message = "there is no `test`: the network is judged by nothing that it has not seen"
        # Choosing the best of many epochs by `val` fits `val`; what is left over is the optimism
        # that a test set is for.
        help = "figures of `val` are too good: the network's state is chosen by them"
        warnings.append(_warning("E1209", message, found.path, help=help))
    return sides, warnings


def _kept(items: Mapping[str, Item], options: SplitOptions) -> dict[str, str]:
    """Return the sides that a training before had, if it had all of the images."""
    known = {name: options.before.get(item.digest) for name, item in items.items()}
    if options.anew or None in known.values():
        return {}
    return {name: side for name, side in known.items() if side}


def _learned(split: ImageSplit, options: SplitOptions) -> Iterator[Diagnostic]:
    """Yield a warning of test images from which the weights have learned already (E1224)."""
    seen = [i for i in split.test.items if options.before.get(i.digest, "test") != "test"]
    if seen:
        count = f"{len(seen):,} test images" if len(seen) > 1 else "1 test image"
        message = f"the weights that this starts from have learned from {count}"
        help = "give the images that their run had, without `--split`, or begin without weights"
        notes = tuple(item.name for item in seen[1:MOST_NAMED])
        at, label = whole_file(seen[0].name), "the figures of `test` are too good"
        yield Diagnostic("E1224", message, at, label, notes, help, "warning")


def _no_groups(found: LabelledFiles) -> Diagnostic:
    message = "nothing says which images are of one patient or slide"
    label = "if some are on two sides, the network will seem better than it is"
    help = "add an `index.csv` with the columns file, label and group"
    if found.path.is_file():
        help = "give a folder with an `index.csv`, with the columns file, label and group"
    return _warning("E1208", message, found.path, label, help)


def _check_groups(found: LabelledFiles, sides: Mapping[str, str]) -> None:
    """Refuse a group on two sides (E1203)."""
    members: dict[str, dict[str, str]] = defaultdict(dict)
    for name, group in found.groups.items():
        members[group].setdefault(sides[name], name)
    problems = []
    for group, by_side in sorted(members.items()):
        if len(by_side) > 1:
            message = f"group `{group}` is on {len(by_side)} sides: {listed(list(by_side))}"
            notes = tuple(f"{side}: {name}" for side, name in by_side.items())
            help = "let all images of a patient be on one side, or leave out the column `split`"
            at = found.places.get(list(by_side.values())[-1], whole_file(str(found.path)))
            problems.append(Diagnostic("E1203", message, at, notes=notes, help=help))
    _raise_if(problems)


def _check_contents(sides: Mapping[str, DataSet]) -> None:
    """Refuse files of the same contents on two sides (E1204)."""
    first: dict[str, tuple[str, Item]] = {}
    problems = []
    for side, data in sides.items():
        for item in data.items:
            before, other = first.setdefault(item.digest, (side, item))
            if before != side and not _is_empty(item):
                message = f"one and the same image is in `{before}` and in `{side}`"
                notes = (f"{before}: {other.name}", f"{side}: {item.name}")
                help = "leave it on one side alone"
                where = whole_file(item.name)
                problems.append(Diagnostic("E1204", message, where, notes=notes, help=help))
    _raise_if(problems)


def _is_empty(item: Item) -> bool:
    return item.place is None and item.path.stat().st_size == 0


def _raise_if(problems: list[Diagnostic]) -> None:
    if problems:
        raise UserError(tuple(problems[:MOST_NAMED]), max(0, len(problems) - MOST_NAMED))


def _remarks(split: ImageSplit) -> Iterator[Diagnostic]:
    """Yield what must be known of classes and labels.

    Raises:
        UserError: Nothing is there to learn a class from (E1206).
    """
    path = split.path
    counts = {side: _told(split, data) for side, data in split.sides.items()}
    names = targets.all_answers(split.targets) or split.classes
    nothing = [name for name in names if not counts["train"][name]]
    if nothing:
        message = f"no image to learn these classes from: {listed(nothing)}"
        raise fail("E1206", message, whole_file(str(path)), help="put images of them in `train`")
    few = [name for name in names if counts["train"][name] < FEW]
    if few:
        named = listed([f"{name} ({counts['train'][name]})" for name in few])
        yield _warning("E1213", f"few images to learn from: {named}", path)
    for side in ("val", "test"):
        missing = [name for name in names if not counts[side][name]]
        if missing and len(split.sides[side]):
            message = f"`{side}` has no image of {listed(missing)}"
            yield _warning("E1213", message, path, "its figures say nothing of them")
    yield from _contradictions(split)


def _told(split: ImageSplit, data: DataSet) -> Counter[str]:
    """Return how many images say what: a class, or of decisions yes or no."""
    labels = Counter(item.label or "" for item in data.items)
    if not split.targets:
        return labels
    told: Counter[str] = Counter()
    for label, count in labels.items():
        told.update(dict.fromkeys(targets.answers(label, split.targets), count))
    return told


def _contradictions(split: ImageSplit) -> Iterator[Diagnostic]:
    for data in split.sides.values():
        labels: dict[str, Item] = {}
        for item in data.items:
            other = labels.setdefault(item.digest, item)
            if other.label != item.label and not _is_empty(item):
                message = f"one and the same image is `{other.label}` and `{item.label}`"
                yield replace(_warning("E1214", message, item.path), notes=(other.name,))


def _warning(code: str, message: str, path: Path, label: str = "", help: str = "") -> Diagnostic:
    where = whole_file(str(path))
    return Diagnostic(code, message, where, label, help=help, severity="warning")
