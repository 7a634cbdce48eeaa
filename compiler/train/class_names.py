"""Which class of the network each label of a data set names."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tcc.compiler.data.dataset import DataSet, indices
from tcc.compiler.support.diagnostics import fail, listed, nearest, whole_file

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
    found: Labelled, labels: Sequence[str], fixed: bool = True
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the classes in the network's order, and the class of each label that images have.

    Without labels of the network, or where these are not `fixed` and others, the classes are those
    of the images: by name, or by number where all are numbers.

    Args:
        found: The images.
        labels: The network's classes in order, if it names them.
        fixed: Whether only these can be learned.

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
    if not labels or not (fixed or set(alike) == {label.casefold() for label in labels}):
        # Folders 0 to 10: by name, 10 would come before 2 and stand for another class.
        numbers = all(name.isascii() and name.isdecimal() for name in counts)
        ordered = sorted(counts, key=int) if numbers else sorted(counts)
        return tuple(ordered), {name: name for name in counts}
    given = (item.label or "" for item in found.data.items)
    places = dict(zip(given, indices(found.data, labels), strict=True))
    known = {name: labels[at] for name, at in places.items() if at is not None and at < len(labels)}
    _check_known(counts, known, labels, found.path)
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


def _check_known(
    counts: Counter[str], known: Mapping[str, str], labels: Sequence[str], path: Path
) -> None:
    where = whole_file(str(path))
    strange = sorted(set(counts) - set(known))
    if strange:
        message = f"the network has no class {listed([f'`{name[:80]}`' for name in strange])}"
        meant = nearest(strange[0], labels)
        label = f"did you mean `{meant}`?" if meant else ""
        help = f"its classes are {listed(list(labels))}"
        raise fail("E1207", message, where, label=label, help=help)
    missing = [label for label in labels if label not in known.values()]
    if missing:
        message = f"there is no image of the network's classes {listed(missing)}"
        help = "add images of them, or set the spec's labels to those that there are"
        raise fail("E1207", message, where, help=help)
