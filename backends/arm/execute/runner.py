"""Running the runner program, here or under qemu: its outputs, and what lies between its layers."""

import json
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tcc.backends.arm.machine import PROGRAM, Machine
from tcc.backends.arm.micro.cores import ISAS
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.types import DType
from tcc.compiler.support import atomic_files, bounded_process, regular_files
from tcc.compiler.support.bounded_process import Ended, HangsError
from tcc.compiler.support.diagnostics import Span, UserError, fail, whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Outputs = dict[str, NDArray[np.float32]]


BATCH, BATCH_BYTES = 64, 1 << 26
"""Most inputs of one process, and bytes of outputs at which it has enough of them."""
START, EACH = 120, 600
"""Seconds that a process may take: to start, and for each input. qemu is some 30 times slower
than the device, so this only ends what hangs."""
BAD_INPUT, UNSIGNED = 2, 3
MOST = 1 << 26
"""Most values that a program may give for one input."""
Shapes = Mapping[str, tuple[int, ...]]


def infer(
    machine: Machine, folder: Path, source: Input, tensors: "Sequence[np.ndarray]"
) -> "list[Outputs]":
    """Return the raw outputs for each tensor of the input's shape."""
    shape = source.type.shape
    if any(t.shape != shape for t in tensors):
        raise AssertionError(f"the network takes {shape}")
    # Little-endian whatever this machine is: the ARM programs are.
    kind = "u1" if source.type.dtype is DType.U8 else "<f4"
    encoded = (np.ascontiguousarray(t, kind).tobytes() for t in tensors)
    return _batches(machine, folder, ("--tensor",), ".bin", encoded)


def run(machine: Machine, folder: Path, images: "Sequence[np.ndarray]") -> "list[Outputs]":
    """Return the raw outputs for each image, uint8 (height, width, 3)."""
    return _batches(machine, folder, (), ".ppm", map(ppm, images))


def ppm(image: "np.ndarray") -> bytes:
    """Return an image, uint8 (height, width, 3), as the program reads it."""
    height, width, _ = image.shape
    return f"P6\n{width} {height}\n255\n".encode() + np.ascontiguousarray(image, np.uint8).tobytes()


def _batches(
    machine: Machine,
    folder: Path,
    option: tuple[str, ...],
    suffix: str,
    inputs: Iterator[bytes],
) -> "list[Outputs]":
    found: list[Outputs] = []
    with atomic_files.scratch_folder() as temporary:
        calls = Calls(machine, find_runnable(machine, folder, temporary), temporary)
        shapes = calls.described()
        # Many inputs share a process, which starts once; outputs bound how many.
        most = max(1, min(BATCH, BATCH_BYTES // (4 * sum(map(prod, shapes.values())))))
        while paths := _written(temporary, suffix, islice(inputs, most), len(found)):
            found += _batch(calls, option, paths, shapes)
            for path in paths:
                path.unlink()
    return found


def _written(folder: Path, suffix: str, inputs: Iterator[bytes], first: int) -> list[Path]:
    """Write the next inputs into files that are called by their number."""
    paths = []
    for number, data in enumerate(inputs, first):
        paths.append(folder / f"input {number}{suffix}")
        paths[-1].write_bytes(data)
    return paths


def _batch(
    calls: "Calls", option: tuple[str, ...], paths: Sequence[Path], shapes: Shapes
) -> "list[Outputs]":
    """Return the raw outputs of the inputs in some files, from one process.

    Raises:
        UserError: The program writes something else (E0652).
    """
    raw = calls.folder / "raw"
    sizes = [prod(shape) for shape in shapes.values()]
    size = 4 * sum(sizes) * len(paths)
    listed = [word for path in paths for word in (*option, str(path))]
    # What an earlier process wrote must not pass for this one's.
    raw.unlink(missing_ok=True)
    calls.execute("--quiet", "--raw", str(raw), *listed, inputs=len(paths), written=size)
    try:
        with regular_files.opened(raw) as file:
            # One byte more than is right: a program of a stranger's bundle may write for ever.
            data = file.read(size + 1)
    except OSError:
        raise calls.wrong("the program did not write its raw outputs") from None
    if len(data) != size:
        more = "more" if len(data) > size else f"{len(data):,}"
        label = f"{more} bytes in place of {size:,}"
        raise calls.wrong("the program wrote raw outputs of another size", label)
    values = np.frombuffer(data, "<f4").astype(np.float32)
    ends = np.cumsum(sizes)
    found = []
    for row in values.reshape(len(paths), -1):
        parts = zip(shapes.items(), np.split(row, ends[:-1]), strict=True)
        found.append({name: part.reshape(shape) for (name, shape), part in parts})
    return found


def program_file(folder: Path) -> Path:
    """Return the runner program of an artifact."""
    programs = sorted(folder.glob(f"*{PROGRAM}"))
    if len(programs) != 1:
        raise fail("E0652", "there is no runner program here", whole_file(str(folder)))
    # Absolute, since the process starts in another folder.
    return programs[0].resolve()


def find_runnable(machine: Machine, folder: Path, scratch: Path) -> Path:
    """Return the program that runs an artifact's library: its own, once that can be signed.

    Raises:
        UserError: There is none, or none links (E0652).
    """
    if machine.signer is None:
        return program_file(folder)
    from tcc.backends.arm.execute import linked_libraries

    return linked_libraries.link_unsigned(machine, folder, scratch / "unsigned")


@dataclass(frozen=True, slots=True)
class Calls:
    """A program, the machine that it is for, a scratch folder, and options for its emulator."""

    machine: Machine
    program: Path
    folder: Path
    options: tuple[str, ...] = ()

    def described(self) -> Shapes:
        """Return the shapes of the outputs by name, as the program itself tells them.

        Raises:
            UserError: It tells something else (E0652).
        """
        said = self.execute("--describe", inputs=0, written=0)
        try:
            return shapes_of(json.loads(said))
        except (ValueError, RecursionError) as error:
            reason = "" if isinstance(error, json.JSONDecodeError) else str(error)[:120]
            message = "the program does not say what its outputs are"
            raise self.wrong(message, reason or "it prints no JSON") from None

    def execute(self, *arguments: str, inputs: int, written: int) -> bytes:
        """Run the program and return what it prints; errors as for `ended`."""
        return self.ended(*arguments, inputs=inputs, written=written).out

    def ended(self, *arguments: str, inputs: int, written: int) -> Ended:
        """Run the program to its good end.

        Raises:
            UserError: It refuses an input (E0653), or fails (E0652), or is to use instructions
                that this processor lacks (E0601), or is not signed (E1365).
        """
        command = [
            *self._emulator(), str(self.program), *isa_words(self.machine), *arguments
        ]  # fmt: skip
        try:
            done = bounded_process.execute(command, self.folder, START + EACH * inputs, written)
        except HangsError as error:
            raise self.wrong(f"the program {error}") from None
        except OSError as error:
            if atomic_files.is_machine(error):
                raise
            raise self.wrong("the program cannot be run", str(error.strerror)) from None
        # The limit on a file's size ended it, or it spoke more than was read.
        if done.code == -signal.SIGXFSZ or len(done.out) > bounded_process.SAID:
            raise self.wrong("the program writes more than its outputs")
        self._check_code(done)
        return done

    def _check_code(self, done: Ended) -> None:
        """Refuse a program that did not end well; errors as for `ended`."""
        if done.code == UNSIGNED:
            raise fail_unsigned(self._at, done.err)
        if done.code == BAD_INPUT and (lacking := lacking_isa(self.machine, done.err)):
            raise lacking
        if done.code == BAD_INPUT:
            label = _last(done.err)
            raise fail("E0653", "the program refuses its input", self._at, label=label)
        if done.code:
            cause = f"signal {-done.code}" if done.code < 0 else f"status {done.code}"
            raise self.wrong(f"the program failed with {cause}", _last(done.err))

    def _emulator(self) -> tuple[str, ...]:
        if self.machine.native and not self.options:
            return ()
        return (self.machine.qemu, "-cpu", self.machine.qemu_cpu, *self.options)

    def wrong(self, message: str, label: str = "") -> UserError:
        """Return the error of a program that does not do what it is for."""
        return fail("E0652", message, self._at, label=label)

    @property
    def _at(self) -> Span:
        return whole_file(str(self.program))


def fail_unsigned(at: Span, said: bytes) -> UserError:
    """Return the error of a program that ends as its signature does not hold (E1365)."""
    message = "this program does not start: it asks for a signature that is not beside it"
    help = "sign it for the files as they are: `tcc sign BUNDLE --runner-key PRIVATE.pem`"
    return fail("E1365", message, at, label=_last(said), help=help)


def shapes_of(about: object) -> Shapes:
    """Return the shapes that a description holds.

    Raises:
        ValueError: It holds none, or they make no sense.
    """
    listed = about.get("outputs") if isinstance(about, dict) else None
    found: dict[str, tuple[int, ...]] = {}
    for output in listed if isinstance(listed, list) else ():
        match output:
            # `type(side) is int`: JSON's true is an int to Python's isinstance.
            case {"name": str(name), "shape": [*sides]} if name not in found and all(
                type(side) is int and side > 0 for side in sides
            ):
                found[name] = tuple(sides)
            case _:
                raise ValueError("an output of it has no name or no shape")
    if not found or sum(map(prod, found.values())) > MOST:
        raise ValueError("its outputs are none, or too large")
    return found


def _last(said: bytes) -> str:
    """Return the last line, with the number of an input in place of its file's path."""
    lines = said.decode(errors="replace").strip().splitlines()
    return re.sub(r"^.*/(input \d+)\.\w+", r"\1", lines[-1] if lines else "")[:200]


REFUSED = b"--isa: takes one that this processor has"
"""What a program says of a set that this processor lacks: `set_isa` of `runtime/runner.c`."""


def isa_words(machine: Machine) -> tuple[str, ...]:
    """Return the words that tell a program of the choice."""
    return ("--isa", machine.isa) if machine.isa else ()


def check_isa(machine: Machine, name: str) -> None:
    """Refuse a name that no set has, and a machine whose programs choose none (E0601)."""
    if not machine.variants:
        message = f"what is built for {machine.target.name} chooses no instruction set"
        raise fail("E0601", message, _typed())
    names = [isa.name for isa in ISAS]
    if name not in names:
        message, help = "there is no such instruction set", f"say one of {', '.join(names)}"
        raise fail("E0601", message, _typed(), label=name[:40], help=help)


def lacking_isa(machine: Machine, said: bytes) -> UserError | None:
    """Return the error of a set that this processor lacks, if a program refuses it for that."""
    if not machine.isa or REFUSED not in said:
        return None
    message, help = "this processor has no such instructions", "leave it out for the best it has"
    return fail("E0601", message, _typed(), label=machine.isa, help=help)


def _typed() -> Span:
    return whole_file("command line: --isa")
