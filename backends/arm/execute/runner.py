"""Runs the runner program, natively or in qemu, and reads its outputs."""

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
"""Largest number of inputs of one process, and the output bytes that end a batch."""
START_SECONDS, SECONDS_PER_INPUT = 120, 600
"""Time limits of a process in seconds: to start, and per input. qemu is about 30 times slower than
the device, so this only ends a program that hangs."""
BAD_INPUT, UNSIGNED = 2, 3
MAX_GUARD_BYTES = 1 << 16
"""Largest number of bytes of a guard's numbers for one image."""
MAX_OUTPUT_VALUES = 1 << 26
"""Largest number of values that a program may output for one input."""
Shapes = Mapping[str, tuple[int, ...]]


def infer(
    machine: Machine, folder: Path, network_input: Input, tensors: "Sequence[np.ndarray]"
) -> "list[Outputs]":
    """Return the raw outputs for each tensor of the input's shape."""
    shape = network_input.type.shape
    if any(t.shape != shape for t in tensors):
        raise AssertionError(f"the network needs inputs of shape {shape}")
    # Little-endian on every machine: the ARM programs are.
    kind = "u1" if network_input.type.dtype is DType.U8 else "<f4"
    encoded = (np.ascontiguousarray(t, kind).tobytes() for t in tensors)
    return _run_batches(machine, folder, ("--tensor",), ".bin", encoded)


def run(machine: Machine, folder: Path, images: "Sequence[np.ndarray]") -> "list[Outputs]":
    """Return the raw outputs for each image, uint8 (height, width, 3)."""
    return _run_batches(machine, folder, (), ".ppm", map(encode_ppm, images))


def run_guard(machine: Machine, folder: Path, pixels: "Sequence[np.ndarray]") -> "list[np.ndarray]":
    """Return the guard's numbers for the images of a stream, int64 (numbers,) each.

    Args:
        machine: The machine.
        folder: The artifact.
        pixels: uint8 (height, width, channels) each, of the input's size.
    """
    count = len(pixels)
    with atomic_files.create_scratch_folder() as temporary:
        process = RunnerProcess(machine, find_runnable(machine, folder, temporary), temporary)
        tensors = (np.ascontiguousarray(image.transpose(2, 0, 1), np.uint8) for image in pixels)
        paths = _write_inputs(temporary, ".bin", (tensor.tobytes() for tensor in tensors), 0)
        arguments = [argument for path in paths for argument in ("--tensor", str(path))]
        numbers_path, limit = temporary / "guard", MAX_GUARD_BYTES * count
        process.execute(
            *("--quiet", "--guard", str(numbers_path), *arguments), inputs=count, max_bytes=limit
        )
        try:
            with regular_files.open_file(numbers_path) as file:
                content = file.read(limit + 1)
        except OSError:
            raise process.create_error("the program did not write the guard's numbers") from None
        if len(content) % (8 * count):
            raise process.create_error("the size of the guard's numbers is wrong")
    return list(np.frombuffer(content, "<i8").astype(np.int64).reshape(count, -1))


def encode_ppm(image: "np.ndarray") -> bytes:
    """Return an image, uint8 (height, width, 3), as a PPM file."""
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
        # One process runs many inputs, to start only once; the size of the outputs limits them.
        batch_size = max(1, min(MAX_BATCH, BATCH_BYTES // (4 * sum(map(prod, shapes.values())))))
        while paths := _write_inputs(temporary, suffix, islice(inputs, batch_size), len(outputs)):
            outputs += _run_batch(process, option, paths, shapes)
            for path in paths:
                path.unlink()
    return outputs


def _write_inputs(
    folder: Path, suffix: str, inputs: Iterator[bytes], start_number: int
) -> list[Path]:
    """Write the next inputs to files named by their number."""
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
        UserError: The program's output has another size (E0652).
    """
    raw_path = process.folder / "raw"
    sizes = [prod(shape) for shape in shapes.values()]
    size = 4 * sum(sizes) * len(paths)
    input_arguments = [argument for path in paths for argument in (*option, str(path))]
    # Remove an earlier process's file, so that it is not read as this one's.
    raw_path.unlink(missing_ok=True)
    process.execute(
        "--quiet", "--raw", str(raw_path), *input_arguments, inputs=len(paths), max_bytes=size
    )
    try:
        with regular_files.open_file(raw_path) as file:
            # One byte more than expected: a program from another bundle may write endlessly.
            content = file.read(size + 1)
    except OSError:
        raise process.create_error("the program did not write its raw outputs") from None
    if len(content) != size:
        actual_size = "more" if len(content) > size else f"{len(content):,}"
        label = f"{actual_size} bytes instead of {size:,}"
        raise process.create_error("the size of the program's raw outputs is wrong", label)
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
        message = f"the folder has {len(programs)} runner programs (*{PROGRAM_SUFFIX}) instead of 1"
        raise fail("E0652", message, make_file_span(str(folder)), help="build the bundle again")
    # Absolute, because the process starts in another folder.
    return programs[0].resolve()


def find_runnable(machine: Machine, folder: Path, scratch: Path) -> Path:
    """Return a program that runs an artifact's library: its own, or a copy without the check.

    Raises:
        UserError: There is no program, or none links (E0652).
    """
    if machine.signer is None:
        return find_program(folder)
    from tcc.backends.arm.execute import linked_libraries

    return linked_libraries.link_unsigned(machine, folder, scratch / "unsigned")


@dataclass(frozen=True, slots=True)
class RunnerProcess:
    """A program with its machine, a scratch folder, and options for its emulator."""

    machine: Machine
    program: Path
    folder: Path
    options: tuple[str, ...] = ()

    def read_shapes(self) -> Shapes:
        """Return the shapes of the outputs by name, from the program's description.

        Raises:
            UserError: The description is not valid (E0652).
        """
        output = self.execute("--describe", inputs=0, max_bytes=0)
        try:
            return parse_shapes(json.loads(output))
        except (ValueError, RecursionError) as error:
            reason = "" if isinstance(error, json.JSONDecodeError) else str(error)[:120]
            message = "`--describe` of the program lists no valid outputs"
            raise self.create_error(message, reason or "it is not JSON") from None

    def execute(self, *arguments: str, inputs: int, max_bytes: int) -> bytes:
        """Run the program and return its standard output; errors as for `run_to_end`."""
        return self.run_to_end(*arguments, inputs=inputs, max_bytes=max_bytes).out

    def run_to_end(self, *arguments: str, inputs: int, max_bytes: int) -> ProcessOutcome:
        """Run the program until it ends with success.

        Raises:
            UserError: The program refuses an input (E0653), fails (E0652), needs instructions that
                this processor lacks (E0601), or is not signed (E1365).
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
        # It exceeded the limit on a file's size, or wrote more to standard output than was read.
        if outcome.code == -signal.SIGXFSZ or len(outcome.out) > bounded_process.MAX_OUTPUT_BYTES:
            raise self.create_error("the program writes more than its outputs")
        self._check_code(outcome)
        return outcome

    def _check_code(self, outcome: ProcessOutcome) -> None:
        """Raise the error of a program that failed; errors as for `run_to_end`."""
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
        """Return the error of a program that misbehaves (E0652)."""
        return fail("E0652", message, self._span, label=label)

    @property
    def _span(self) -> Span:
        return make_file_span(str(self.program))


def fail_unsigned(at: Span, stderr: bytes) -> UserError:
    """Return the error of a program that ended because it has no valid signature (E1365)."""
    message = "this program does not start without a valid signature next to it"
    help = "sign the bundle in its present state: `tcc sign BUNDLE --runner-key PRIVATE.pem`"
    return fail("E1365", message, at, label=_get_last_line(stderr), help=help)


def parse_shapes(description: object) -> Shapes:
    """Return the shapes of the outputs in a description.

    Raises:
        ValueError: There are no shapes, or they are not valid.
    """
    records = description.get("outputs") if isinstance(description, dict) else None
    shapes: dict[str, tuple[int, ...]] = {}
    for record in records if isinstance(records, list) else ():
        match record:
            # `type(dim) is int`: JSON's true is an int for Python's isinstance.
            case {"name": str(name), "shape": [*dims]} if name not in shapes and all(
                type(dim) is int and dim > 0 for dim in dims
            ):
                shapes[name] = tuple(dims)
            case _:
                raise ValueError("an output has no valid name or shape, or a name occurs twice")
    if not shapes or sum(map(prod, shapes.values())) > MAX_OUTPUT_VALUES:
        raise ValueError("it has no outputs, or they are too large")
    return shapes


def _get_last_line(stderr: bytes) -> str:
    """Return the last line, with an input's number in place of its file's path."""
    lines = stderr.decode(errors="replace").strip().splitlines()
    return re.sub(r"^.*/(input \d+)\.\w+", r"\1", lines[-1] if lines else "")[:200]


ISA_REFUSAL = b"--isa: takes one that this processor has"
"""The program's message for a set that this processor lacks: `set_isa` of `runtime/runner.c`."""


def build_isa_options(machine: Machine) -> tuple[str, ...]:
    """Return the arguments that pass the choice to a program."""
    return ("--isa", machine.isa) if machine.isa else ()


def check_isa(machine: Machine, name: str) -> None:
    """Refuse an unknown instruction set, and a machine whose programs have no choice (E0601)."""
    if not machine.has_isa_variants:
        message = f"{machine.target.name} has no choice of instruction sets"
        raise fail("E0601", message, _locate_isa_option(), help="remove `--isa`")
    names = [isa.name for isa in ISAS]
    if name not in names:
        message, help = "there is no such instruction set", f"use one of {', '.join(names)}"
        raise fail("E0601", message, _locate_isa_option(), label=name[:40], help=help)


def find_isa_error(machine: Machine, stderr: bytes) -> UserError | None:
    """Return the error of a set that this processor lacks, if the program reports that."""
    if not machine.isa or ISA_REFUSAL not in stderr:
        return None
    message, help = "this processor lacks this instruction set", "omit --isa to use the best one"
    return fail("E0601", message, _locate_isa_option(), label=machine.isa, help=help)


def _locate_isa_option() -> Span:
    return make_file_span("command line: --isa")
