"""Data sets: images in a canonical order, which no file's name or place has a say in.

A data set is one of

- a folder of image files, those in folders below it included;
- a folder of class folders: images lie in folders below it alone, whose names are their labels;
- an `.npz` file with `images`, uint8 (N, height, width, 3) RGB, or `tensors`, float (N, *shape):
  what the spec's network takes, after its preprocessing; and, if wanted, `labels` (N,), class
  indices or names.

Its items are sorted by the SHA-256 of their contents. Only digests and places are held; images
are decoded when they are asked for.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data import confined_images, image_files, npz
from tcc.compiler.data.confined_images import ReadImages, levels_of_file
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.image_inputs import build_image_error
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, whole_file
from tcc.compiler.support.image_folders import listing, remarks
from tcc.compiler.support.value_views import ValueView, count

Float32 = NDArray[np.float32]

HELD_OUT = 4
"""One item of so many is held out."""
DAMAGED = frozenset(f"E070{number}" for number in range(1, 8))
"""Codes of errors that an image by itself gives rise to."""
MOST_LISTED = 20
"""Damaged images that an error lists."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image: the SHA-256 of its contents, its file, its label and, in an array, its place."""

    digest: str
    path: Path
    label: str | None = None
    place: int | None = None

    @property
    def name(self) -> str:
        """What to call it in an error."""
        return str(self.path) if self.place is None else f"{self.path}[{self.place}]"


@dataclass(frozen=True, eq=False, repr=False)
class DataSet(ValueView):
    """Items in the order of their digests; `array` holds their pixels or tensors, if no files.

    `warnings` say what was passed over and what is lost in reading. `read_already` keeps levels of
    files, for whoever reads the set for one network again and again.
    """

    items: tuple[Item, ...]
    array: NDArray[np.uint8] | Float32 | None = None
    warnings: tuple[Diagnostic, ...] = ()
    read_already: ReadImages | None = None

    def __len__(self) -> int:
        """Return how many items there are."""
        return len(self.items)

    def _summary(self) -> Iterator[str]:
        labels = {item.label for item in self.items if item.label is not None}
        classes = f"{count(len(labels), 'label')}" if labels else "no labels"
        warned = f", {count(len(self.warnings), 'warning')}" if self.warnings else ""
        yield f"DataSet: {count(len(self), 'image')}, {classes}{warned}"

    @property
    def digests(self) -> tuple[str, ...]:
        """The SHA-256 of each item."""
        return tuple(item.digest for item in self.items)

    @property
    def digest(self) -> str:
        """The SHA-256 that stands for the set, whatever its files are called."""
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()

    def first(self, count: int | None) -> "DataSet":
        """Return `count` items, the first by digest, which is as good as at random."""
        return replace(self, items=self.items[:count])

    def of(self, places: Sequence[int]) -> "DataSet":
        """Return the items at some places."""
        return replace(self, items=tuple(self.items[place] for place in places))

    def split(self) -> "tuple[DataSet, DataSet]":
        """Return what to learn from and what to judge by: one in `HELD_OUT`, chosen by digest.

        Equal contents stay together. Fewer than `HELD_OUT` different images are both parts.
        """
        distinct = sorted(set(self.digests))
        # Digests are as good as random, so that every so manyth is as good as a draw.
        held = set(distinct[HELD_OUT - 1 :: HELD_OUT])
        if not held:
            return self, self
        learn = tuple(item for item in self.items if item.digest not in held)
        judge = tuple(item for item in self.items if item.digest in held)
        return replace(self, items=learn), replace(self, items=judge)

    def tensor(self, index: int, source: Input) -> Float32:
        """Return item `index` as the network's input, float32 of the shape that it declares.

        Raises:
            UserError: The image is damaged, or of a size that the network does not take.
        """
        values = self.levels(index, source)
        if values.dtype == np.uint8:
            assert source.preprocess is not None
            return preprocess.normalized(source.preprocess, values.astype(np.uint8, copy=False))
        return values.astype(np.float32, copy=False)

    def levels(self, index: int, source: Input) -> NDArray[np.uint8] | Float32:
        """Return item `index` before the contract divides, uint8 (height, width, channels).

        Of what is a tensor already, that is the network's input itself, as `tensor` gives it.

        Raises:
            UserError: As for `tensor`.
        """
        item = self.items[index]
        if self.array is None:
            kept = self.read_already.get(item.digest) if self.read_already else None
            if kept is not None:
                return kept
            assert source.preprocess is not None
            found = levels_of_file(item.path, source.preprocess, _size(source))
            if self.read_already:
                self.read_already.keep(item.digest, found)
            return found
        values = self.array[item.place or 0]
        if values.dtype == np.uint8:
            return _levels(values.astype(np.uint8, copy=False), source, item.name)
        floats = values.astype(np.float32, copy=False)
        return _raw(floats, source) if source.preprocess else floats

    def damaged(self, source: Input) -> UserError:
        """Return what is wrong with all items, once one has failed."""
        found: list[Diagnostic] = []
        for index in range(len(self)):
            try:
                self.tensor(index, source)
            except UserError as error:
                found += error.diagnostics
        more = len(found) - MOST_LISTED
        if more > 0:
            found[MOST_LISTED - 1] = found[MOST_LISTED - 1].noted(f"and {more} more images")
        return UserError(tuple(found[:MOST_LISTED]))


def read(path: Path) -> DataSet:
    """Return the data set of a folder or an `.npz` file.

    Raises:
        UserError: There is no data set (E0710), it holds no image (E0711), or the file is no `.npz`
            file of images (E0712).
    """
    where = whole_file(str(path))
    if path.is_dir():
        return _folder(path)
    if path.suffix.lower() == ".npz" and path.exists():
        return _npz(path)
    found = "this is a file of another kind" if path.exists() else "there is nothing here"
    help = "give a folder of images or of class folders, or an .npz file"
    raise fail("E0710", "not a data set", where, label=found, help=help)


def check(data: DataSet, source: Input) -> DataSet:
    """Return the data set if a network can take it.

    Raises:
        UserError: It holds images and the network takes none (E0625), or tensors of another
            shape (E0713).
    """
    where = whole_file(str(data.items[0].path))
    if data.array is not None and data.array.dtype != np.uint8:
        if data.array.shape[1:] != source.type.shape:
            message = f"the network takes tensors of {source.type}"
            found = "x".join(map(str, data.array.shape[1:])) or "single numbers"
            raise fail("E0713", message, where, label=f"those of the file are {found}")
    elif source.preprocess is None:
        raise build_image_error(source.name, source.type.shape, where)
    return data


def indices(data: DataSet, labels: Sequence[str]) -> tuple[int | None, ...]:
    """Return each item's class by the labels of a network; None where it has none of them.

    Names match whatever their case; a number that is no label is an index.
    """
    by_name = {label.casefold(): index for index, label in enumerate(labels)}
    return tuple(
        None if item.label is None else class_index(item.label, by_name) for item in data.items
    )


def class_index(label: str, by_name: Mapping[str, int]) -> int | None:
    """Return the class that a label names, by the classes' names in small letters; None if none."""
    if label.casefold() in by_name:
        return by_name[label.casefold()]
    # Digits of one script: another file's label of Arabic ones is a name. Python makes no number of
    # thousands of digits.
    number = int(label) if label.isascii() and label.isdecimal() and len(label) < 10 else None
    return number if number is not None and number < max(len(by_name), 1 << 20) else None


def _folder(path: Path) -> DataSet:
    found = listing(path)
    if not found.images:
        raise UserError((found.nothing("E0711", path),))
    classes = all(file.parent != path for file in found.images)
    data = of_files(
        (file, file.relative_to(path).parts[0] if classes else None) for file in found.images
    )
    return replace(data, warnings=(*found.warnings(), *data.warnings))


def of_files(files: Iterable[tuple[Path, str | None]]) -> DataSet:
    """Return the data set of image files, each with its label.

    Raises:
        UserError: A file cannot be read (E0701) or is too large (E0704).
    """
    items = []
    said: list[tuple[str, Sequence[str]]] = []
    problems: list[Diagnostic] = []
    for file, label in files:
        try:
            data = image_files.contents(file)
        except UserError as error:
            problems += error.diagnostics
            continue
        items.append(Item(hashlib.sha256(data).hexdigest(), file, label))
        said.append((str(file), confined_images.collect_remarks(data)))
    if problems:
        raise UserError(tuple(problems[:MOST_LISTED]))
    return DataSet(_ordered(items), warnings=tuple(remarks(said)))


def _npz(path: Path) -> DataSet:
    array, labels = npz.read(path)
    named = labels or (None,) * len(array)
    items = [
        Item(digest, path, label, place)
        for place, (digest, label) in enumerate(zip(_digests(array), named, strict=True))
    ]
    return DataSet(_ordered(items), array)


def _digests(array: NDArray[np.uint8] | Float32) -> Iterator[str]:
    little = array.dtype.newbyteorder("<")
    # The same bytes in another shape are another image.
    head = f"{array.dtype.name} {array.shape[1:]} ".encode()
    for values in array:
        yield hashlib.sha256(head + values.astype(little).tobytes()).hexdigest()


def _ordered(items: Sequence[Item]) -> tuple[Item, ...]:
    # Equal contents may bear two labels, and need an order as well.
    return tuple(sorted(items, key=lambda item: (item.digest, item.label or "")))


def fitting(image: NDArray[np.uint8], source: Input, name: str) -> NDArray[np.uint8]:
    """Return an image if a network that takes images takes this one, whatever the target.

    Args:
        image: uint8 (height, width, 3).
        source: The network's input.
        name: What the image is called in errors.

    Raises:
        UserError: It is too large (E0704), or of a size that the network does not take (E0706).
    """
    assert source.preprocess is not None
    preprocess.plan(source.preprocess, image.shape, _size(source), name)
    return image


def _levels(image: NDArray[np.uint8], source: Input, name: str) -> NDArray[np.uint8]:
    assert source.preprocess is not None
    return preprocess.levels(source.preprocess, image, _size(source), name)


def _size(source: Input) -> tuple[int, int, int]:
    channels, height, width = source.type.shape
    return channels, height, width


def _raw(values: Float32, source: Input) -> Float32:
    """Return a preprocessed tensor as the contract wants it: as grey levels, if it is raw."""
    contract = source.preprocess
    assert contract is not None
    if not contract.raw:
        return values
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (contract.mean, contract.std))
    # The steps of `preprocess.normalized` backwards; rounded, since levels are whole numbers.
    levels: Float32 = np.clip(np.rint((values * std + mean) * np.float32(255)), 0, 255)
    return levels


def pictures(data: DataSet, repeats: Collection[str]) -> DataSet:
    """Return the items that show something new: one of each contents.

    Args:
        data: The items, some of which may be there twice.
        repeats: Digests of those that show what another does, as files of other contents.
    """
    kept = {item.digest: item for item in reversed(data.items) if item.digest not in repeats}
    # In the order that they have: what is equal lies side by side.
    return replace(data, items=tuple(reversed(kept.values())))
