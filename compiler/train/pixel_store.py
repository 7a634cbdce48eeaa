"""Decode every image of a dataset once, to the network's 8-bit input pixels.

The pixels are in memory or, above a limit, in a memory-mapped file. The file is unlinked after it
is mapped, so that a killed process leaves no file behind.
"""

import os
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tcc.compiler.data import dataset
from tcc.compiler.data.dataset import DAMAGED_CODES, MAX_LISTED, DataSet
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.support.diagnostics import (
    Diagnostic,
    UnhandledError,
    UserError,
    fail,
    make_file_span,
)
from tcc.compiler.support.progress import Progress, silent

MAX_MEMORY_BYTES = 1 << 31
"""Default limit of pixels in memory, in bytes."""
CorruptPolicy = Literal["skip", "refuse"]
"""Handling of damaged images: skip them, or reject the dataset."""


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """Options for decoding a dataset.

    Attributes:
        scratch: The folder for a temporary file of the pixels.
        corrupt: The handling of damaged images.
        threads: The number of decoder threads.
        max_memory_bytes: The size in bytes above which pixels go to a file.
        split: The name of the split in messages; empty if there is none.
    """

    scratch: Path
    corrupt: CorruptPolicy = "refuse"
    threads: int = 1
    max_memory_bytes: int = MAX_MEMORY_BYTES
    split: str = ""


@dataclass(frozen=True, eq=False)
class PixelStore:
    """Pixels and classes of N images, in the order of the dataset.

    Attributes:
        pixels: uint8 (N, C, H, W) with a contract; otherwise network inputs, float32 (N, ...).
        classes: Class indices, int64 (N,).
        names: The images' names in messages.
        contract: The contract that normalizes the pixels; None if they are network inputs.
        checksums: Checksums of the pixels, uint32 (N,).
        warnings: Warnings about skipped images.
    """

    pixels: Tensor
    classes: Tensor
    names: tuple[str, ...]
    contract: Preprocess | None
    checksums: "NDArray[np.uint32]"
    warnings: tuple[Diagnostic, ...] = ()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def gather_batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pixels and classes of images by their indices, int64 (B,)."""
        return self.pixels.index_select(0, indices), self.classes.index_select(0, indices)

    def to_inputs(self, pixels: Tensor) -> Tensor:
        """Return network inputs, float32, for pixels from `gather_batch`."""
        return normalize_pixels(self.contract, pixels) if self.contract else pixels


def decode_images(
    images: DataSet,
    network_input: Input,
    classes: Sequence[str],
    options: DecodeOptions,
    progress: Progress = silent,
) -> PixelStore:
    """Decode all images of a dataset; their labels must be in `classes`.

    Raises:
        UserError: An image is damaged or does not fit the network (E0701 to E0707), unless such
            images are skipped; a class has no images left (E1210); or the pixels do not fit on the
            disk (E1211).
    """
    if not len(images):
        return _create_empty_store(network_input)
    dataset.check_dataset(images, network_input)
    class_indices = {name: position for position, name in enumerate(classes)}
    pixels = _allocate_pixels(images, network_input, options)
    decoding = _ImageDecoder(images, network_input, pixels.numpy(), options)
    decoding.run(progress)
    problems = decoding.problems
    if problems and options.corrupt == "refuse":
        raise _build_refusal([problems[index] for index in sorted(problems)])
    kept_indices = [index for index in range(len(images)) if index not in problems]
    kept_items = [images.items[index] for index in kept_indices]
    if len(kept_indices) < len(images):
        _check_remaining(images, problems, options.split)
        for position, index in enumerate(kept_indices):
            pixels[position] = pixels[index]
    return PixelStore(
        pixels[: len(kept_indices)],
        torch.tensor([class_indices[item.label or ""] for item in kept_items], dtype=torch.int64),
        tuple(item.name for item in kept_items),
        network_input.preprocess if pixels.dtype == torch.uint8 else None,
        decoding.checksums[kept_indices],
        _warn_skipped(problems),
    )


def _create_empty_store(network_input: Input) -> PixelStore:
    kind = torch.uint8 if network_input.preprocess else torch.float32
    pixels, classes = torch.zeros((0, *network_input.type.shape), dtype=kind), torch.zeros(0).long()
    return PixelStore(pixels, classes, (), network_input.preprocess, np.zeros(0, np.uint32))


def _allocate_pixels(images: DataSet, network_input: Input, options: DecodeOptions) -> Tensor:
    """Allocate memory or a mapped file for the pixels of all images.

    Raises:
        UserError: The disk is full (E1211).
    """
    is_float = images.array is not None and images.array.dtype != np.uint8
    kind = torch.float32 if is_float else torch.uint8
    shape = (len(images), *network_input.type.shape)
    size = int(np.prod(shape)) * kind.itemsize
    if size <= options.max_memory_bytes:
        return torch.empty(shape, dtype=kind)
    # A unique name, because two trainings may share a folder for temporary files.
    path = options.scratch / f"levels-{os.urandom(6).hex()}"
    try:
        with path.open("xb") as file:
            # A sparse file would cause SIGBUS on a full disk.
            os.posix_fallocate(file.fileno(), 0, size)
        flat = torch.from_file(str(path), shared=True, size=size // kind.itemsize, dtype=kind)
    except OSError as error:
        message = f"no space for {size >> 20:,} MiB of decoded images"
        label = error.strerror or ""
        help = "free disk space, or set TMPDIR to another folder"
        at = make_file_span(str(options.scratch))
        raise fail("E1211", message, at, label=label, help=help) from None
    finally:
        # The mapping stays valid, and the system frees the file when the process ends.
        path.unlink(missing_ok=True)
    return flat.reshape(shape)


class _ImageDecoder:
    """Decodes the images of a dataset in several threads."""

    def __init__(
        self,
        images: DataSet,
        network_input: Input,
        pixels: "NDArray[np.uint8]",
        options: DecodeOptions,
    ) -> None:
        self.images, self.source, self.pixels, self.options = images, network_input, pixels, options
        self.checksums = np.zeros(len(images), np.uint32)
        self.problems: dict[int, UserError] = {}
        self._stopped, self._lock, self._done_count = Event(), Lock(), 0

    def run(self, progress: Progress) -> None:
        """Store the pixels of every valid image, and the errors of the others."""
        count = self.options.threads
        progress("images decoded", 0, len(self.images))
        # Threads, not processes: decoders release the GIL, and threads write to the shared array.
        with ThreadPoolExecutor(count) as pool:
            try:
                for future in [
                    pool.submit(self._run_worker, worker, progress) for worker in range(count)
                ]:
                    future.result()
            finally:  # also after an interrupt, so that the other threads stop
                self._stopped.set()

    def _run_worker(self, worker: int, progress: Progress) -> None:
        for index in range(worker, len(self.images), self.options.threads):
            if self._stopped.is_set():
                return
            self._decode_image(index)
            with self._lock:
                self._done_count += 1
                progress("images decoded", self._done_count, len(self.images))

    def _decode_image(self, index: int) -> None:
        try:
            pixels = self.images.read_pixels(index, self.source)
        except UserError as error:
            if error.diagnostics[0].code not in DAMAGED_CODES:
                raise
            self.problems[index] = error
            # Enough to list: do not read the rest of a folder of a million wrong files.
            if self.options.corrupt == "refuse" and len(self.problems) > MAX_LISTED:
                self._stopped.set()
            return
        self.pixels[index] = pixels.transpose(2, 0, 1) if pixels.dtype == np.uint8 else pixels
        # The CRC only finds candidates; `find_duplicate_images` compares the pixels.
        self.checksums[index] = zlib.crc32(self.pixels[index])


def _build_refusal(problems: Sequence[UserError]) -> UserError:
    diagnostics = [d for error in problems for d in error.diagnostics]
    *earlier, final = diagnostics[:MAX_LISTED]
    final = final.add_notes("fix or remove such images, or skip them with `--corrupt skip`")
    omitted_count = max(0, len(diagnostics) - MAX_LISTED)
    return UserError((*earlier, final), omitted_count, is_truncated=omitted_count > 0)


def _warn_skipped(problems: Mapping[int, UserError]) -> tuple[Diagnostic, ...]:
    """Return the warning that lists the skipped images."""
    if not problems:
        return ()
    diagnostics = [problems[index].diagnostics[0] for index in sorted(problems)]
    count = len(diagnostics)
    message = f"{count:,} damaged image{'s are' if count > 1 else ' is'} skipped"
    notes = [f"{d.at.file}: {d.message} ({d.code})" for d in diagnostics[1:MAX_LISTED]]
    if count > MAX_LISTED:
        notes.append(f"and {count - MAX_LISTED:,} more")
    first_diagnostic = diagnostics[0]
    label = f"{first_diagnostic.message} ({first_diagnostic.code})"
    return (
        Diagnostic("E1210", message, first_diagnostic.at, label, tuple(notes), severity="warning"),
    )


def _check_remaining(images: DataSet, problems: Mapping[int, UserError], split: str) -> None:
    """Reject a dataset in which all images of a class are damaged (E1210)."""
    remaining_labels = {
        item.label for index, item in enumerate(images.items) if index not in problems
    }
    for index, error in sorted(problems.items()):
        item = images.items[index]
        if item.label in remaining_labels:
            continue
        count = sum(other_item.label == item.label for other_item in images.items)
        which = f"all {count:,} images" if count > 1 else "the only image"
        location = f" in `{split}`" if split else ""
        message = f"{which} of `{item.label}`{location} cannot be read, so the class has no images"
        cause = error.diagnostics[0]
        help = "replace its images, or remove its folder to train without this class"
        label = f"{cause.message} ({cause.code})"
        raise fail("E1210", message, make_file_span(item.name), label=label, help=help)


def find_duplicate_images(stores: Mapping[str, PixelStore]) -> tuple[Diagnostic, ...]:
    """Return a warning about images in two splits with the same input pixels.

    Images with a single pixel value, such as black images, are ignored.
    """
    images_by_checksum: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for split_name, store in stores.items():
        for index, checksum in enumerate(store.checksums.tolist()):
            images_by_checksum[checksum].append((split_name, index))
    pairs = []
    for (first_split, first_index), *other_images in images_by_checksum.values():
        for split_name, index in other_images:
            first_store, other_store = stores[first_split], stores[split_name]
            first_pixels = first_store.pixels[first_index]
            different = split_name != first_split and bool(
                (first_pixels != first_pixels.flatten()[0]).any()
            )
            if different and bool((first_pixels == other_store.pixels[index]).all()):
                pairs.append(
                    f"{first_split}: {first_store.names[first_index]}, {split_name}: "
                    f"{other_store.names[index]}"
                )
    if not pairs:
        return ()
    message = f"{len(pairs):,} image{'s have' if len(pairs) > 1 else ' has'}"
    message += " the same input pixels as an image of another split"
    remainder = (f"and {len(pairs) - MAX_LISTED:,} more",) if len(pairs) > MAX_LISTED else ()
    help = "keep them in one split, or give them the same group in an `index.csv`"
    span = make_file_span(pairs[0].partition(": ")[2].partition(", ")[0])
    notes = (*pairs[:MAX_LISTED], *remainder)
    return (Diagnostic("E1205", message, span, notes=notes, help=help, severity="warning"),)


def normalize_pixels(contract: Preprocess, pixels: Tensor) -> Tensor:
    """Return (pixels / scale - mean) / std as float32 (N, C, H, W), for uint8 or float pixels.

    If the contract divides by an image's maximum, it is the maximum of these (augmented) pixels, as
    a device would use for this image.
    """
    output = pixels.to(torch.float32, copy=True)
    if contract.raw:
        return output
    mean, std = (_reshape_per_channel(v, pixels) for v in (contract.mean, contract.std))
    return output.div_(_get_divisor(contract, output)).sub_(mean).div_(std)


def _get_divisor(contract: Preprocess, pixels: Tensor) -> Tensor:
    match contract.scale:
        case "255":
            return _reshape_per_channel((255.0,), pixels)
        case "max":
            return pixels.amax((1, 2, 3), keepdim=True).clamp_(min=1)
        case _:
            raise UnhandledError("pixel scale", contract.scale)


def _reshape_per_channel(channel_values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(channel_values, dtype=torch.float32, device=like.device).reshape(
        1, -1, 1, 1
    )
