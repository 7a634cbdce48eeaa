"""The images of one side of a run's split, found again in a folder or an `.npz` file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tcc.compiler.data import dataset, split_file
from tcc.compiler.data.dataset import DataSet, Item
from tcc.compiler.data.split_file import RunSplit, SplitLine
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, whole_file

MOST_TOLD = 10
"""Images that an error lists."""


@dataclass(frozen=True, eq=False)
class SideImages:
    """Images that a command may take, and what is to be said of others.

    `known` is how many of them the run had on the side; the rest it has never seen.
    """

    data: DataSet
    known: int
    warnings: tuple[Diagnostic, ...] = ()


def find(split: RunSplit, where: Path, elsewhere: Path, side: str) -> SideImages:
    """Return the images of a side, with the run's labels.

    Of the run's own folder they are those that the run had there, all of them and unchanged. Of
    another they are those that the run does not know, and those that it had on that side.

    Args:
        split: What the run had on each side.
        where: The folder, or the `.npz` file, of all images.
        elsewhere: That of the side's images, if the first is not the run's.
        side: One of train, val and test.

    Raises:
        UserError: It is no data set, images of the side are gone or changed (E1218), or none is of
            the side (E1219).
    """
    data = dataset.read(where)
    named = {split_file.name(item, where): item for item in data.items}
    # One image of the same name and contents is enough: then what is missing or changed there is an
    # error, and not another folder (docs/decisions/0032-splits.md).
    own = any(line.file in named and named[line.file].digest == line.digest for line in split.lines)
    if own:
        return _own(split, where, side, data, named)
    other = data if elsewhere == where else dataset.read(elsewhere)
    return _other(split, elsewhere, side, other)


def _own(
    split: RunSplit, where: Path, side: str, data: DataSet, named: dict[str, Item]
) -> SideImages:
    """Return the images of the side in the folder that the run had."""
    wanted = [line for line in split.lines if line.side == side]
    _check(split, where, wanted, named)
    if not wanted:
        raise _nothing(split, where, side)
    # Images that came since belong to no side: nobody may say that they were not learnt from.
    strange = sorted(named.keys() - {line.file for line in split.lines})
    items = (replace(named[line.file], label=line.label) for line in wanted)
    warnings = data.warnings
    if strange:
        count = f"{len(strange):,} images are" if len(strange) > 1 else "1 image is"
        message = f"{count} not of the run's split, and left out"
        at = whole_file(str(where / strange[0]))
        help = "train anew to have them on a side"
        notes = tuple(strange[1:MOST_TOLD])
        warnings += (Diagnostic("E1219", message, at, "", notes, help, "warning"),)
    return SideImages(_ordered(data, items, warnings), len(wanted), warnings)


def _check(
    split: RunSplit, where: Path, wanted: Sequence[SplitLine], named: dict[str, Item]
) -> None:
    """Refuse a folder in which images of the run are gone or have other contents (E1218)."""
    problems = []
    for line in wanted:
        found = named.get(line.file)
        if found is not None and found.digest == line.digest:
            continue
        what = "is gone" if found is None else "has other contents"
        note = f"{split.path}:{line.line}: an image of `{line.side}`"
        help = "bring back what the run had, or train anew with what is there now"
        at = whole_file(str(where / line.file))
        message = f"this image {what} since the training"
        problems.append(Diagnostic("E1218", message, at, notes=(note,), help=help))
    if problems:
        raise UserError(tuple(problems))


def _other(split: RunSplit, where: Path, side: str, data: DataSet) -> SideImages:
    """Return the images of another folder but those that the run had on other sides."""
    out = [item for item in data.items if split.sides.get(item.digest, side) != side]
    kept = [item for item in data.items if split.sides.get(item.digest, side) == side]
    if not kept:
        raise _nothing(split, where, side)
    warnings = data.warnings
    if out:
        sides = sorted({split.sides[item.digest] for item in out})
        count = f"{len(out):,} images are" if len(out) > 1 else "1 image is"
        message = f"{count} of the run's {' and '.join(sides)}, and left out"
        notes = tuple(item.name for item in out[1:MOST_TOLD])
        at = whole_file(out[0].name)
        warnings += (Diagnostic("E1219", message, at, notes=notes, severity="warning"),)
    known = sum(item.digest in split.sides for item in kept)
    items = (replace(item, label=_label(split, item)) for item in kept)
    return SideImages(_ordered(data, items, warnings), known, warnings)


def _label(split: RunSplit, item: Item) -> str | None:
    """Return the run's label of an image, or its folder's where the run does not know it."""
    known = split.labels.get(item.digest)
    # A folder may be laid out otherwise: what the run called an image's class holds.
    return item.label if not known or item.label in known else min(known)


def _ordered(data: DataSet, items: Iterable[Item], warnings: tuple[Diagnostic, ...]) -> DataSet:
    ordered = sorted(items, key=lambda item: (item.digest, item.label or ""))
    return replace(data, items=tuple(ordered), warnings=warnings)


def _nothing(split: RunSplit, where: Path, side: str) -> UserError:
    message = f"none of these images is of the run's `{side}`"
    label = f"{split.path} says which were"
    help = "give the folder that the run was trained with"
    return fail("E1219", message, whole_file(str(where)), label=label, help=help)
