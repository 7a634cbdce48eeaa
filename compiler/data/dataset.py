"""Datasets: images in a canonical order that is independent of file names and paths.

A dataset is one of

- a folder of image files, including those in its subfolders;
- a folder of class folders: all images are in subfolders, and each subfolder's name is the label;
- an `.npz` file with `images`, uint8 (N, height, width, 3) RGB, or `tensors`, float (N, *shape),
  the preprocessed network input; optionally `labels` (N,), class indices or names.

Items are sorted by the SHA-256 of their contents. Only digests and paths are kept in memory; images
are decoded on access.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data import confined_images, image_files, npz
from tcc.compiler.data.confined_images import PixelCache, read_input_pixels
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.image_inputs import build_image_error
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, make_file_span
from tcc.compiler.support.image_folders import group_remarks, list_images
from tcc.compiler.support.value_views import ValueView, count

Float32 = NDArray[np.float32]

HELD_OUT_INTERVAL = 4
"""One of every 4 items goes to the held-out set."""
DAMAGED_CODES = frozenset(f"E070{number}" for number in range(1, 8))
"""Error codes of a single unusable image."""
MAX_LISTED = 20
"""Maximum number of damaged images that an error lists."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image: SHA-256 of its contents, file, label and, for arrays, its index."""

    digest: str
    path: Path
    label: str | None = None
    index: int | None = None

    @property
    def name(self) -> str:
        """The item's name in error messages."""
        return str(self.path) if self.index is None else f"{self.path}[{self.index}]"


@dataclass(frozen=True, eq=False, repr=False)
class DataSet(ValueView):
    """Images sorted by digest.

    Attributes:
        items: The images.
        array: Pixels or tensors of the items, for datasets that are not files.
        warnings: Skipped files, and information that is lost when images are read.
        pixel_cache: Cache for repeated reads by one network; None caches nothing.
    """

    items: tuple[Item, ...]
    array: NDArray[np.uint8] | Float32 | None = None
    warnings: tuple[Diagnostic, ...] = ()
    pixel_cache: PixelCache | None = None

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.items)

    def _summarize(self) -> Iterator[str]:
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
        """The SHA-256 of the dataset; it is independent of file names."""
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()

    def select_first(self, count: int | None) -> "DataSet":
        """Return the first `count` items by digest, which amounts to a random sample."""
        return replace(self, items=self.items[:count])

    def select(self, indices: Sequence[int]) -> "DataSet":
        """Return the items at the given indices."""
        return replace(self, items=tuple(self.items[index] for index in indices))

    def split(self) -> "tuple[DataSet, DataSet]":
        """Split into a fit set and a held-out set, by digest: one in `HELD_OUT_INTERVAL`.

        Images with equal contents go to the same set. With fewer than `HELD_OUT_INTERVAL` distinct
        images, both sets contain all of them.
        """
        distinct = sorted(set(self.digests))
        # Digests are effectively random, so that every n-th one is a random sample.
        held_out_digests = set(distinct[HELD_OUT_INTERVAL - 1 :: HELD_OUT_INTERVAL])
        if not held_out_digests:
            return self, self
        fit_items = tuple(item for item in self.items if item.digest not in held_out_digests)
        held_out_items = tuple(item for item in self.items if item.digest in held_out_digests)
        return replace(self, items=fit_items), replace(self, items=held_out_items)

    def read_tensor(self, index: int, network_input: Input) -> Float32:
        """Return item `index` as the network's input, float32 of the input's declared shape.

        Raises:
            UserError: The image is damaged, or the network does not accept its size.
        """
        pixels = self.read_pixels(index, network_input)
        if pixels.dtype == np.uint8:
            assert network_input.preprocess is not None
            return preprocess.normalize(
                network_input.preprocess, pixels.astype(np.uint8, copy=False)
            )
        return pixels.astype(np.float32, copy=False)

    def read_pixels(self, index: int, network_input: Input) -> NDArray[np.uint8] | Float32:
        """Return item `index` before normalization, uint8 (height, width, channels).

        Items of a tensor dataset are returned as `read_tensor` does, in float32.

        Raises:
            UserError: As for `read_tensor`.
        """
        item = self.items[index]
        if self.array is None:
            cached_pixels = self.pixel_cache.get(item.digest) if self.pixel_cache else None
            if cached_pixels is not None:
                return cached_pixels
            assert network_input.preprocess is not None
            pixels = read_input_pixels(
                item.path, network_input.preprocess, _get_input_size(network_input)
            )
            if self.pixel_cache:
                self.pixel_cache.add(item.digest, pixels)
            return pixels
        raw_array = self.array[item.index or 0]
        if raw_array.dtype == np.uint8:
            return _compute_pixels(raw_array.astype(np.uint8, copy=False), network_input, item.name)
        floats = raw_array.astype(np.float32, copy=False)
        return _to_raw(floats, network_input) if network_input.preprocess else floats

    def collect_errors(self, network_input: Input) -> UserError:
        """Read every item and return all errors; call it after one item has failed."""
        diagnostics: list[Diagnostic] = []
        for index in range(len(self)):
            try:
                self.read_tensor(index, network_input)
            except UserError as error:
                diagnostics += error.diagnostics
        unlisted_count = len(diagnostics) - MAX_LISTED
        if unlisted_count > 0:
            diagnostics[MAX_LISTED - 1] = diagnostics[MAX_LISTED - 1].add_notes(
                f"and {unlisted_count} more images"
            )
        return UserError(tuple(diagnostics[:MAX_LISTED]))


def read_dataset(path: Path) -> DataSet:
    """Return the dataset of a folder or an `.npz` file.

    Raises:
        UserError: There is no dataset at the path (E0710), it has no image (E0711), or the file is
            not an `.npz` file of images (E0712).
    """
    span = make_file_span(str(path))
    if path.is_dir():
        return _read_folder(path)
    if path.suffix.lower() == ".npz" and path.exists():
        return _read_npz(path)
    label = "not a folder or an .npz file" if path.exists() else "no such file or folder"
    help = "give a folder of images, a folder of class folders, or an .npz file"
    raise fail("E0710", "not a dataset", span, label=label, help=help)


def check_dataset(dataset: DataSet, network_input: Input) -> DataSet:
    """Return the dataset if the network accepts it.

    Raises:
        UserError: The dataset has images and the network takes none (E0625), or the shape of its
            tensors is not the network's (E0713).
    """
    span = make_file_span(str(dataset.items[0].path))
    if dataset.array is not None and dataset.array.dtype != np.uint8:
        if dataset.array.shape[1:] != network_input.type.shape:
            message = f"the network takes tensors of {network_input.type}"
            actual_shape = "x".join(map(str, dataset.array.shape[1:])) or "single numbers"
            label = f"this file has {actual_shape}"
            help = "preprocess the tensors as the spec defines, with channels first"
            raise fail("E0713", message, span, label=label, help=help)
    elif network_input.preprocess is None:
        raise build_image_error(network_input.name, network_input.type.shape, span)
    return dataset


def get_class_indices(dataset: DataSet, labels: Sequence[str]) -> tuple[int | None, ...]:
    """Return each item's class index for the labels of a network; None where no label matches.

    Names match case-insensitively. A number that is not a label is a class index.
    """
    by_name = {label.casefold(): index for index, label in enumerate(labels)}
    return tuple(
        None if item.label is None else find_class_index(item.label, by_name)
        for item in dataset.items
    )


def find_class_index(label: str, by_name: Mapping[str, int]) -> int | None:
    """Return the class index of a label by the case-folded class names; None if none matches."""
    if label.casefold() in by_name:
        return by_name[label.casefold()]
    # ASCII digits only: a label in other digits is a name. The length limit is because Python's
    # int() refuses thousands of digits.
    number = int(label) if label.isascii() and label.isdecimal() and len(label) < 10 else None
    return number if number is not None and number < max(len(by_name), 1 << 20) else None


def _read_folder(path: Path) -> DataSet:
    folder_listing = list_images(path)
    if not folder_listing.images:
        raise UserError((folder_listing.make_empty_error("E0711", path),))
    classes = all(file.parent != path for file in folder_listing.images)
    dataset = load_files(
        (file, file.relative_to(path).parts[0] if classes else None)
        for file in folder_listing.images
    )
    return replace(dataset, warnings=(*folder_listing.collect_warnings(), *dataset.warnings))


def load_files(files: Iterable[tuple[Path, str | None]]) -> DataSet:
    """Return the dataset of image files, each with its label.

    Raises:
        UserError: A file cannot be read (E0701) or is too large (E0704).
    """
    items = []
    remarks_by_file: list[tuple[str, Sequence[str]]] = []
    problems: list[Diagnostic] = []
    for file, label in files:
        try:
            content = image_files.read_bytes(file)
        except UserError as error:
            problems += error.diagnostics
            continue
        items.append(Item(hashlib.sha256(content).hexdigest(), file, label))
        remarks_by_file.append((str(file), confined_images.collect_remarks(content)))
    if problems:
        raise UserError(tuple(problems[:MAX_LISTED]))
    return DataSet(_sort_items(items), warnings=tuple(group_remarks(remarks_by_file)))


def _read_npz(path: Path) -> DataSet:
    array, labels = npz.read_npz(path)
    item_labels = labels or (None,) * len(array)
    items = [
        Item(digest, path, label, index)
        for index, (digest, label) in enumerate(zip(_hash_arrays(array), item_labels, strict=True))
    ]
    return DataSet(_sort_items(items), array)


def _hash_arrays(array: NDArray[np.uint8] | Float32) -> Iterator[str]:
    little = array.dtype.newbyteorder("<")
    # The same bytes in another shape are a different image.
    head = f"{array.dtype.name} {array.shape[1:]} ".encode()
    for tensor in array:
        yield hashlib.sha256(head + tensor.astype(little).tobytes()).hexdigest()


def _sort_items(items: Sequence[Item]) -> tuple[Item, ...]:
    # Equal contents may have two labels: sort by label too, so that the order is unique.
    return tuple(sorted(items, key=lambda item: (item.digest, item.label or "")))


def check_image(image: NDArray[np.uint8], network_input: Input, name: str) -> NDArray[np.uint8]:
    """Return an image if the network accepts its size; independent of the target.

    Args:
        image: uint8 (height, width, 3).
        network_input: The network's input, which takes images.
        name: The image's name in error messages.

    Raises:
        UserError: It is too large (E0704), or the network does not accept its size (E0706).
    """
    assert network_input.preprocess is not None
    preprocess.plan(network_input.preprocess, image.shape, _get_input_size(network_input), name)
    return image


def _compute_pixels(image: NDArray[np.uint8], network_input: Input, name: str) -> NDArray[np.uint8]:
    assert network_input.preprocess is not None
    return preprocess.prepare_pixels(
        network_input.preprocess, image, _get_input_size(network_input), name
    )


def _get_input_size(network_input: Input) -> tuple[int, int, int]:
    channels, height, width = network_input.type.shape
    return channels, height, width


def _to_raw(tensor: Float32, network_input: Input) -> Float32:
    """Return a preprocessed tensor as the contract expects it: as 0 to 255 if it is raw."""
    contract = network_input.preprocess
    assert contract is not None
    if not contract.raw:
        return tensor
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (contract.mean, contract.std))
    # The inverse of `preprocess.normalize`, rounded because grey levels are integers.
    grey_levels: Float32 = np.clip(np.rint((tensor * std + mean) * np.float32(255)), 0, 255)
    return grey_levels


def remove_repeats(dataset: DataSet, repeats: Collection[str]) -> DataSet:
    """Return the dataset without duplicate images: one item for each distinct content.

    Args:
        dataset: The items, possibly with duplicates.
        repeats: Digests of items to drop: they show another item's image in a different file.
    """
    item_by_digest = {
        item.digest: item for item in reversed(dataset.items) if item.digest not in repeats
    }
    # Two reversals keep the order and the first of equal items, which are adjacent.
    return replace(dataset, items=tuple(reversed(item_by_digest.values())))
