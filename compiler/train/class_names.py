"""Which class of the network each label of a data set names."""

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from tcc.compiler.data.dataset import DataSet, indices
from tcc.compiler.support.diagnostics import (
    Diagnostic,
    UserError,
    fail,
    listed,
    nearest,
    whole_file,
)

MOST = 1024
"""Most classes."""


class Labelled(Protocol):
    """Images with labels, and where they are from."""

    @property
    def path(self) -> Path:
        """The folder or file."""
        ...

    @property
    def data(self) -> DataSet:
        """The images."""
        ...


def matched(
    found: Labelled, labels: Sequence[str], settable: bool = False
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the classes in the network's order, and the class of each label that images have.

    Where the network has no labels, the classes are those of the images: by name, or by number
    where all are numbers.

    Args:
        found: The images.
        labels: The network's classes in order, if it names them.
        settable: Whether `--set labels=` gives the network others, which a message then suggests.

    Raises:
        UserError: Two classes differ by case alone, or they are not those of the network (E1207).
    """
    where = whole_file(str(found.path))
    counts = Counter(item.label or "" for item in found.data.items)
    alike = defaultdict(list)
    for name in sorted(counts):
        alike[name.casefold()].append(name)
    twice = [names for names in alike.values() if len(names) > 1]
    if twice:
        message = f"these classes differ by case alone: {listed(twice[0])}"
        raise fail("E1207", message, where, help="put their images into one folder")
    if not labels:
        # Folders 0 to 10: by name, 10 would come before 2 and stand for another class.
        return _sort_classes(counts), {name: name for name in counts}
    given = (item.label or "" for item in found.data.items)
    places = dict(zip(given, indices(found.data, labels), strict=True))
    known = {name: labels[at] for name, at in places.items() if at is not None and at < len(labels)}
    if problem := _find_mismatch(counts, known, labels, settable=settable):
        raise UserError((replace(problem, at=where),))
    return tuple(labels), known


def check_count(counts: Counter[str], path: Path) -> None:
    """Refuse one class alone, and too many (E1207); `counts` has the images of each."""
    where = whole_file(str(path))
    if len(counts) == 1:
        (name,) = counts
        message = f"there is one class alone, `{name}`: nothing can be told from it"
        help = "give the folder that holds a folder for each class"
        raise fail("E1207", message, where, help=help)
    if len(counts) > MOST:
        message = f"there are {len(counts):,} classes, at most {MOST:,} are learned"
        most = sorted(counts.values())[len(counts) // 2]
        label = f"most have {most:,} image{'s' * (most != 1)}"
        help = "if these folders are patients, name them as groups in an `index.csv`"
        raise fail("E1207", message, where, label=label, help=help)


def _sort_classes(names: Collection[str]) -> tuple[str, ...]:
    numbers = all(name.isascii() and name.isdecimal() for name in names)
    return tuple(sorted(names, key=int) if numbers else sorted(names))


def _find_mismatch(
    counts: Counter[str], classes: Mapping[str, str], labels: Sequence[str], *, settable: bool
) -> Diagnostic | None:
    """Return how the images' classes differ from the network's (E1207); None if they do not."""
    extra = sorted(set(counts) - set(classes))
    missing = [label for label in labels if label not in classes.values()]
    parts = []
    if extra:
        parts.append(f"the network has no class {listed([f'`{name[:80]}`' for name in extra])}")
    if missing:
        parts.append(f"there is no image of the network's classes {listed(missing)}")
    if not parts:
        return None
    suggestion = nearest(extra[0], labels) if extra else None
    help = f"its classes are {listed(list(labels))}: name the folders so"
    if settable:
        # A YAML list in JSON's form, quoted for a shell: the setting can be copied as it is.
        setting = f"labels={json.dumps(_sort_classes(counts), ensure_ascii=False)}"
        help += f", or train and build with `--set {shlex.quote(setting)}`"
    else:
        help += ", or write the images' classes into the spec's labels"
    label = f"did you mean `{suggestion}`?" if suggestion else ""
    return Diagnostic("E1207", ", and ".join(parts), whole_file(""), label, help=help)
