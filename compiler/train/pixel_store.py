"""Every image of a data set, decoded once to the grey levels that its contract divides.

They are held in memory or, beyond a bound, in a file of the run's that is mapped into it. That
file has no name any more once it is mapped: what is killed leaves nothing behind.
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
from tcc.compiler.data.dataset import DAMAGED, MOST_LISTED, DataSet
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.support.diagnostics import Diagnostic, UnhandledError, UserError, fail, whole_file
from tcc.compiler.support.progress import Progress, silent

MOST_BYTES = 1 << 31
"""Most bytes of levels that are held in memory, unless an option says otherwise."""
Corrupt = Literal["skip", "refuse"]
"""What is done about images that do not decode."""


@dataclass(frozen=True, slots=True)
class DecodeOptions:
    """How a set is decoded: by how many threads, and where it lies.

    Levels of more than `most_bytes` go to a file in the folder `scratch`. `side` is what the set
    is called in messages, where it is a part of others.
    """

    scratch: Path
    corrupt: Corrupt = "refuse"
    threads: int = 1
    most_bytes: int = MOST_BYTES
    side: str = ""


@dataclass(frozen=True, eq=False)
class PixelStore:
    """Levels and classes of N images, in the order of the data set.

    `levels` is uint8 (N, C, H, W) where `contract` is what is left to be done with it; without
    one it is what the network takes, float32 (N, ...). `classes` is int64 (N,). `checksums`, uint32
    (N,), tell different levels apart. `warnings` name the images that were skipped.
    """

    levels: Tensor
    classes: Tensor
    names: tuple[str, ...]
    contract: Preprocess | None
    checksums: "NDArray[np.uint32]"
    warnings: tuple[Diagnostic, ...] = ()

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.names)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return the levels and classes of some images by their places, int64 (B,)."""
        return self.levels.index_select(0, indices), self.classes.index_select(0, indices)

    def inputs(self, levels: Tensor) -> Tensor:
        """Return what the network takes, float32, of levels such as `batch` gives."""
        return normalized(self.contract, levels) if self.contract else levels


def decoded(
    data: DataSet,
    source: Input,
    classes: Sequence[str],
    options: DecodeOptions,
    progress: Progress = silent,
) -> PixelStore:
    """Decode all images of a data set whose labels are among `classes`.

    Raises:
        UserError: An image is damaged or does not fit the network (E0701 to E0707), and none is to
            be skipped; none is left of a class (E1210); the levels do not fit on the disk (E1211).
    """
    if not len(data):
        return _empty(source)
    dataset.check(data, source)
    places = {name: place for place, name in enumerate(classes)}
    levels = _allocated(data, source, options)
    decoding = _Decoding(data, source, levels.numpy(), options)
    decoding.run(progress)
    problems = decoding.problems
    if problems and options.corrupt == "refuse":
        raise _refused([problems[index] for index in sorted(problems)])
    kept = [index for index in range(len(data)) if index not in problems]
    items = [data.items[index] for index in kept]
    if len(kept) < len(data):
        _check_left(data, problems, options.side)
        for place, index in enumerate(kept):
            levels[place] = levels[index]
    return PixelStore(
        levels[: len(kept)],
        torch.tensor([places[item.label or ""] for item in items], dtype=torch.int64),
        tuple(item.name for item in items),
        source.preprocess if levels.dtype == torch.uint8 else None,
        decoding.checksums[kept],
        _skipped(problems),
    )


def _empty(source: Input) -> PixelStore:
    kind = torch.uint8 if source.preprocess else torch.float32
    levels, classes = torch.zeros((0, *source.type.shape), dtype=kind), torch.zeros(0).long()
    return PixelStore(levels, classes, (), source.preprocess, np.zeros(0, np.uint32))


def _allocated(data: DataSet, source: Input, options: DecodeOptions) -> Tensor:
    """Return room for the levels of all images.

    Raises:
        UserError: There is none on the disk (E1211).
    """
    floats = data.array is not None and data.array.dtype != np.uint8
    kind = torch.float32 if floats else torch.uint8
    shape = (len(data), *source.type.shape)
    size = int(np.prod(shape)) * kind.itemsize
    if size <= options.most_bytes:
        return torch.empty(shape, dtype=kind)
    # A name of its own: two trainings may share a folder for temporary files.
    path = options.scratch / f"levels-{os.urandom(6).hex()}"
    try:
        with path.open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a hole would end in SIGBUS on a full disk
        flat = torch.from_file(str(path), shared=True, size=size // kind.itemsize, dtype=kind)
    except OSError as error:
        message = f"no room for {size >> 20:,} MiB of decoded images"
        label = error.strerror or ""
        help = "free some of the disk, or name another folder by TMPDIR"
        where = whole_file(str(options.scratch))
        raise fail("E1211", message, where, label=label, help=help) from None
    finally:
        # Mapped, it lives without a name, and is gone with the process however that ends.
        path.unlink(missing_ok=True)
    return flat.reshape(shape)


class _Decoding:
    """Images of a set on their way into levels, several at a time."""

    def __init__(
        self, data: DataSet, source: Input, levels: "NDArray[np.uint8]", options: DecodeOptions
    ) -> None:
        self.data, self.source, self.levels, self.options = data, source, levels, options
        self.checksums = np.zeros(len(data), np.uint32)
        self.problems: dict[int, UserError] = {}
        self._stopped, self._turn, self._done = Event(), Lock(), 0

    def run(self, progress: Progress) -> None:
        """Write the levels of every image that decodes, and the errors of the others."""
        count = self.options.threads
        progress("images decoded", 0, len(self.data))
        # Threads, not processes: decoders release the interpreter's lock, and levels are written
        # where they stay.
        with ThreadPoolExecutor(count) as pool:
            try:
                for each in [pool.submit(self._work, first, progress) for first in range(count)]:
                    each.result()
            finally:  # an interrupt, too, ends the others
                self._stopped.set()

    def _work(self, first: int, progress: Progress) -> None:
        for index in range(first, len(self.data), self.options.threads):
            if self._stopped.is_set():
                return
            self._fill(index)
            with self._turn:
                self._done += 1
                progress("images decoded", self._done, len(self.data))

    def _fill(self, index: int) -> None:
        try:
            found = self.data.levels(index, self.source)
        except UserError as error:
            if error.diagnostics[0].code not in DAMAGED:
                raise
            self.problems[index] = error
            # Enough to name: a folder of a million other files is not read to its end.
            if self.options.corrupt == "refuse" and len(self.problems) > MOST_LISTED:
                self._stopped.set()
            return
        self.levels[index] = found.transpose(2, 0, 1) if found.dtype == np.uint8 else found
        # A CRC only finds candidates: `same_levels` compares the levels themselves.
        self.checksums[index] = zlib.crc32(self.levels[index])


def _refused(problems: Sequence[UserError]) -> UserError:
    told = [d for error in problems for d in error.diagnostics]
    *before, last = told[:MOST_LISTED]
    last = last.noted("mend or remove such images, or leave them out by `--corrupt skip`")
    more = max(0, len(told) - MOST_LISTED)
    return UserError((*before, last), more, cut=more > 0)


def _skipped(problems: Mapping[int, UserError]) -> tuple[Diagnostic, ...]:
    """Return the warning that names the images which are left out."""
    if not problems:
        return ()
    found = [problems[index].diagnostics[0] for index in sorted(problems)]
    count = len(found)
    message = f"{count:,} damaged image{'s are' if count > 1 else ' is'} skipped"
    notes = [f"{d.at.file}: {d.message} ({d.code})" for d in found[1:MOST_LISTED]]
    if count > MOST_LISTED:
        notes.append(f"and {count - MOST_LISTED:,} more")
    first = found[0]
    label = f"{first.message} ({first.code})"
    return (Diagnostic("E1210", message, first.at, label, tuple(notes), severity="warning"),)


def _check_left(data: DataSet, problems: Mapping[int, UserError], side: str) -> None:
    """Refuse a set of which the damaged images were all that had a label (E1210)."""
    left = {item.label for index, item in enumerate(data.items) if index not in problems}
    for index, error in sorted(problems.items()):
        item = data.items[index]
        if item.label in left:
            continue
        count = sum(other.label == item.label for other in data.items)
        which = f"all {count:,} images" if count > 1 else "the only image"
        where = f" on the side `{side}`" if side else ""
        message = f"{which} of `{item.label}`{where} cannot be read: skipped, none is left"
        cause = error.diagnostics[0]
        help = "bring images of it that can be read, or take its folder away to train without it"
        label = f"{cause.message} ({cause.code})"
        raise fail("E1210", message, whole_file(item.name), label=label, help=help)


def same_levels(stores: Mapping[str, PixelStore]) -> tuple[Diagnostic, ...]:
    """Return a warning of images on two sides that are the same to the network.

    Images of one level alone, such as black ones, do not count.
    """
    sides: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for side, store in stores.items():
        for place, checksum in enumerate(store.checksums.tolist()):
            sides[checksum].append((side, place))
    pairs = []
    for (first, at), *others in sides.values():
        for side, place in others:
            one, other = stores[first], stores[side]
            levels = one.levels[at]
            different = side != first and bool((levels != levels.flatten()[0]).any())
            if different and bool((levels == other.levels[place]).all()):
                pairs.append(f"{first}: {one.names[at]}, {side}: {other.names[place]}")
    if not pairs:
        return ()
    message = f"{len(pairs):,} image{'s of one side are' if len(pairs) > 1 else ' of one side is'}"
    message += " the same as one of another, to the network"
    more = (f"and {len(pairs) - MOST_LISTED:,} more",) if len(pairs) > MOST_LISTED else ()
    help = "leave them on one side alone, or give them one group in an `index.csv`"
    where = whole_file(pairs[0].partition(": ")[2].partition(", ")[0])
    notes = (*pairs[:MOST_LISTED], *more)
    return (Diagnostic("E1205", message, where, notes=notes, help=help, severity="warning"),)


def normalized(contract: Preprocess, levels: Tensor) -> Tensor:
    """Return (levels / scale - mean) / std as float32 (N, C, H, W), of uint8 or float levels.

    Where the contract divides by an image's maximum, it is that of these levels: what a device
    would divide by, were this the image that it is given.
    """
    values = levels.to(torch.float32, copy=True)
    if contract.raw:
        return values
    mean, std = (_by_channel(v, levels) for v in (contract.mean, contract.std))
    return values.div_(_divisor(contract, values)).sub_(mean).div_(std)


def _divisor(contract: Preprocess, values: Tensor) -> Tensor:
    match contract.scale:
        case "255":
            return _by_channel((255.0,), values)
        case "max":
            return values.amax((1, 2, 3), keepdim=True).clamp_(min=1)
        case _:
            raise UnhandledError("scale of pixels", contract.scale)


def _by_channel(numbers: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float32, device=like.device).reshape(1, -1, 1, 1)
