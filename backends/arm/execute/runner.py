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

from tcc.backends.arm.machine import PROGRAM_SUFFIX, Machine
from tcc.backends.arm.micro.cores import ISAS
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.types import DType
from tcc.compiler.support import atomic_files, bounded_process, regular_files
from tcc.compiler.support.bounded_process import HangsError, ProcessOutcome
from tcc.compiler.support.diagnostics import Span, UserError, fail, make_file_span

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Outputs = dict[str, NDArray[np.float32]]


MAX_BATCH, BATCH_BYTES = 64, 1 << 26
"""Most inputs of one process, and bytes of outputs at which it has enough of them."""
START_SECONDS, SECONDS_PER_INPUT = 120, 600
"""Seconds that a process may take: to start, and for each input. qemu is some 30 times slower
than the device, so this only ends what hangs."""
BAD_INPUT, UNSIGNED = 2, 3
MAX_OUTPUT_VALUES = 1 << 26
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
    return _run_batches(machine, folder, ("--tensor",), ".bin", encoded)


def run(machine: Machine, folder: Path, images: "Sequence[np.ndarray]") -> "list[Outputs]":
    """Return the raw outputs for each image, uint8 (height, width, 3)."""
    return _run_batches(machine, folder, (), ".ppm", map(encode_ppm, images))


def encode_ppm(image: "np.ndarray") -> bytes:
    """Return an image, uint8 (height, width, 3), as the program reads it."""
    height, width, _ = image.shape
    return f"P6\n{width} {height}\n255\n".encode() + np.ascontiguousarray(image, np.uint8).tobytes()


def _run_batches(
    machine: Machine,
    folder: Path,
    option: tuple[str, ...],
    suffix: str,
    inputs: Iterator[bytes],
) -> "list[Outputs]":
    outputs: list[Outputs] = []
    with atomic_files.create_scratch_folder() as temporary:
        process = RunnerProcess(machine, find_runnable(machine, folder, temporary), temporary)
        shapes = process.read_shapes()
        # Many inputs share a process, which starts once; outputs bound how many.
        batch_size = max(1, min(MAX_BATCH, BATCH_BYTES // (4 * sum(map(prod, shapes.values())))))
        while paths := _write_inputs(temporary, suffix, islice(inputs, batch_size), len(outputs)):
            outputs += _run_batch(process, option, paths, shapes)
            for path in paths:
                path.unlink()
    return outputs


def _write_inputs(
    folder: Path, suffix: str, inputs: Iterator[bytes], start_number: int
) -> list[Path]:
    """Write the next inputs into files that are called by their number."""
    paths = []
    for number, content in enumerate(inputs, start_number):
        paths.append(folder / f"input {number}{suffix}")
        paths[-1].write_bytes(content)
    return paths


def _run_batch(
    process: "RunnerProcess", option: tuple[str, ...], paths: Sequence[Path], shapes: Shapes
) -> "list[Outputs]":
    """Return the raw outputs of the inputs in some files, from one process.

    Raises:
        UserError: The program writes something else (E0652).
    """
    raw_path = process.folder / "raw"
    sizes = [prod(shape) for shape in shapes.values()]
    size = 4 * sum(sizes) * len(paths)
    input_arguments = [argument for path in paths for argument in (*option, str(path))]
    # What an earlier process wrote must not pass for this one's.
    raw_path.unlink(missing_ok=True)
    process.execute(
        "--quiet", "--raw", str(raw_path), *input_arguments, inputs=len(paths), max_bytes=size
    )
    try:
        with regular_files.open_file(raw_path) as file:
            # One byte more than is right: a program of a stranger's bundle may write for ever.
            content = file.read(size + 1)
    except OSError:
        raise process.create_error("the program did not write its raw outputs") from None
    if len(content) != size:
        actual_size = "more" if len(content) > size else f"{len(content):,}"
        label = f"{actual_size} bytes in place of {size:,}"
        raise process.create_error("the program wrote raw outputs of another size", label)
    floats = np.frombuffer(content, "<f4").astype(np.float32)
    split_points = np.cumsum(sizes)
    outputs = []
    for row in floats.reshape(len(paths), -1):
        parts = zip(shapes.items(), np.split(row, split_points[:-1]), strict=True)
        outputs.append({name: part.reshape(shape) for (name, shape), part in parts})
    return outputs


def find_program(folder: Path) -> Path:
    """Return the runner program of an artifact."""
    programs = sorted(folder.glob(f"*{PROGRAM_SUFFIX}"))
    if len(programs) != 1:
        raise fail("E0652", "there is no runner program here", make_file_span(str(folder)))
    # Absolute, since the process starts in another folder.
    return programs[0].resolve()


def find_runnable(machine: Machine, folder: Path, scratch: Path) -> Path:
    """Return the program that runs an artifact's library: its own, once that can be signed.

    Raises:
        UserError: There is none, or none links (E0652).
    """
    if machine.signer is None:
        return find_program(folder)
    from tcc.backends.arm.execute import linked_libraries

    return linked_libraries.link_unsigned(machine, folder, scratch / "unsigned")


@dataclass(frozen=True, slots=True)
class RunnerProcess:
    """A program, the machine that it is for, a scratch folder, and options for its emulator."""

    machine: Machine
    program: Path
    folder: Path
    options: tuple[str, ...] = ()

    def read_shapes(self) -> Shapes:
        """Return the shapes of the outputs by name, as the program itself tells them.

        Raises:
            UserError: It tells something else (E0652).
        """
        output = self.execute("--describe", inputs=0, max_bytes=0)
        try:
            return parse_shapes(json.loads(output))
        except (ValueError, RecursionError) as error:
            reason = "" if isinstance(error, json.JSONDecodeError) else str(error)[:120]
            message = "the program does not say what its outputs are"
            raise self.create_error(message, reason or "it prints no JSON") from None

    def execute(self, *arguments: str, inputs: int, max_bytes: int) -> bytes:
        """Run the program and return what it prints; errors as for `ended`."""
        return self.run_to_end(*arguments, inputs=inputs, max_bytes=max_bytes).out

    def run_to_end(self, *arguments: str, inputs: int, max_bytes: int) -> ProcessOutcome:
        """Run the program to its good end.

        Raises:
            UserError: It refuses an input (E0653), or fails (E0652), or is to use instructions
                that this processor lacks (E0601), or is not signed (E1365).
        """
        command = [
            *self._build_emulator_command(),
            str(self.program),
            *build_isa_options(self.machine),
            *arguments,
        ]
        try:
            outcome = bounded_process.execute(
                command, self.folder, START_SECONDS + SECONDS_PER_INPUT * inputs, max_bytes
            )
        except HangsError as error:
            raise self.create_error(f"the program {error}") from None
        except OSError as error:
            if atomic_files.is_machine_error(error):
                raise
            raise self.create_error("the program cannot be run", str(error.strerror)) from None
        # The limit on a file's size ended it, or it spoke more than was read.
        if outcome.code == -signal.SIGXFSZ or len(outcome.out) > bounded_process.MAX_OUTPUT_BYTES:
            raise self.create_error("the program writes more than its outputs")
        self._check_code(outcome)
        return outcome

    def _check_code(self, outcome: ProcessOutcome) -> None:
        """Refuse a program that did not end well; errors as for `ended`."""
        if outcome.code == UNSIGNED:
            raise fail_unsigned(self._span, outcome.err)
        if outcome.code == BAD_INPUT and (isa_error := find_isa_error(self.machine, outcome.err)):
            raise isa_error
        if outcome.code == BAD_INPUT:
            label = _get_last_line(outcome.err)
            raise fail("E0653", "the program refuses its input", self._span, label=label)
        if outcome.code:
            cause = f"signal {-outcome.code}" if outcome.code < 0 else f"status {outcome.code}"
            raise self.create_error(f"the program failed with {cause}", _get_last_line(outcome.err))

    def _build_emulator_command(self) -> tuple[str, ...]:
        if self.machine.native and not self.options:
            return ()
        return (self.machine.qemu, "-cpu", self.machine.qemu_cpu, *self.options)

    def create_error(self, message: str, label: str = "") -> UserError:
        """Return the error of a program that does not do what it is for."""
        return fail("E0652", message, self._span, label=label)

    @property
    def _span(self) -> Span:
        return make_file_span(str(self.program))


def fail_unsigned(at: Span, stderr: bytes) -> UserError:
    """Return the error of a program that ends as its signature does not hold (E1365)."""
    message = "this program does not start: it asks for a signature that is not beside it"
    help = "sign it for the files as they are: `tcc sign BUNDLE --runner-key PRIVATE.pem`"
    return fail("E1365", message, at, label=_get_last_line(stderr), help=help)


def parse_shapes(description: object) -> Shapes:
    """Return the shapes that a description holds.

    Raises:
        ValueError: It holds none, or they make no sense.
    """
    records = description.get("outputs") if isinstance(description, dict) else None
    shapes: dict[str, tuple[int, ...]] = {}
    for record in records if isinstance(records, list) else ():
        match record:
            # `type(side) is int`: JSON's true is an int to Python's isinstance.
            case {"name": str(name), "shape": [*dims]} if name not in shapes and all(
                type(dim) is int and dim > 0 for dim in dims
            ):
                shapes[name] = tuple(dims)
            case _:
                raise ValueError("an output of it has no name or no shape")
    if not shapes or sum(map(prod, shapes.values())) > MAX_OUTPUT_VALUES:
        raise ValueError("its outputs are none, or too large")
    return shapes


def _get_last_line(stderr: bytes) -> str:
    """Return the last line, with the number of an input in place of its file's path."""
    lines = stderr.decode(errors="replace").strip().splitlines()
    return re.sub(r"^.*/(input \d+)\.\w+", r"\1", lines[-1] if lines else "")[:200]


ISA_REFUSAL = b"--isa: takes one that this processor has"
"""What a program says of a set that this processor lacks: `set_isa` of `runtime/runner.c`."""


def build_isa_options(machine: Machine) -> tuple[str, ...]:
    """Return the words that tell a program of the choice."""
    return ("--isa", machine.isa) if machine.isa else ()


def check_isa(machine: Machine, name: str) -> None:
    """Refuse a name that no set has, and a machine whose programs choose none (E0601)."""
    if not machine.has_isa_variants:
        message = f"{machine.target.name} has no choice of instruction sets; remove `--isa`"
        raise fail("E0601", message, _locate_isa_option())
    names = [isa.name for isa in ISAS]
    if name not in names:
        message, help = "there is no such instruction set", f"say one of {', '.join(names)}"
        raise fail("E0601", message, _locate_isa_option(), label=name[:40], help=help)


def find_isa_error(machine: Machine, stderr: bytes) -> UserError | None:
    """Return the error of a set that this processor lacks, if a program refuses it for that."""
    if not machine.isa or ISA_REFUSAL not in stderr:
        return None
    message, help = "this processor has no such instructions", "leave it out for the best it has"
    return fail("E0601", message, _locate_isa_option(), label=machine.isa, help=help)


def _locate_isa_option() -> Span:
    return make_file_span("command line: --isa")
