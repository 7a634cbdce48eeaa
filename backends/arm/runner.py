"""Running the runner program, here or under qemu."""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tcc.backends.arm.machine import Machine
from tcc.compiler import scratch
from tcc.compiler.graph import Input
from tcc.compiler.source import Span, UserError, fail, whole_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Outputs = dict[str, NDArray[np.float32]]

BATCH = 64
"""Inputs of one process."""
START, EACH = 120, 600
"""Seconds that a process may take: to start, and for each input. qemu is some 30 times slower
than the device, so this only ends what hangs."""
BAD_INPUT = 2


def infer(
    machine: Machine, folder: Path, source: Input, tensors: "Sequence[np.ndarray]"
) -> "list[Outputs]":
    """Return the raw outputs for each tensor, float32 of the input's shape."""
    shape = source.type.shape
    if any(t.shape != shape for t in tensors):
        raise AssertionError(f"the network takes {shape}")
    encoded = (np.ascontiguousarray(t, "<f4").tobytes() for t in tensors)
    return _batches(machine, folder, ("--tensor",), ".bin", encoded)


def run(
    machine: Machine, folder: Path, source: Input, images: "Sequence[np.ndarray]"
) -> "list[Outputs]":
    """Return the raw outputs for each image, uint8 (height, width, 3)."""
    if source.preprocess is None:
        raise fail("E0625", "this network does not take an image", whole_file(str(folder)))
    return _batches(machine, folder, (), ".ppm", map(_ppm, images))


def _ppm(image: "np.ndarray") -> bytes:
    height, width, _ = image.shape
    return f"P6\n{width} {height}\n255\n".encode() + np.ascontiguousarray(image, np.uint8).tobytes()


def _batches(
    machine: Machine,
    folder: Path,
    option: tuple[str, ...],
    suffix: str,
    inputs: Iterator[bytes],
) -> "list[Outputs]":
    program = _program(folder)
    shapes = _outputs(machine, program)
    found: list[Outputs] = []
    with scratch.folder() as temporary:
        while paths := _written(temporary, suffix, inputs, len(found)):
            found += _batch(machine, program, option, paths, shapes)
            for path in paths:
                path.unlink()
    return found


def _written(folder: Path, suffix: str, inputs: Iterator[bytes], first: int) -> list[Path]:
    """Write the next inputs into files that are called by their number."""
    paths = []
    for number, data in zip(range(first, first + BATCH), inputs, strict=False):
        paths.append(folder / f"input {number}{suffix}")
        paths[-1].write_bytes(data)
    return paths


def _batch(
    machine: Machine,
    program: Path,
    option: tuple[str, ...],
    paths: Sequence[Path],
    shapes: "dict[str, tuple[int, ...]]",
) -> "list[Outputs]":
    """Return the raw outputs of the inputs in some files, from one process."""
    raw = paths[0].parent / "raw"
    listed = [word for path in paths for word in (*option, str(path))]
    _execute(machine, program, "--quiet", "--raw", str(raw), *listed, inputs=len(paths))
    values = np.frombuffer(raw.read_bytes(), "<f4").astype(np.float32)
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])
    found = []
    for row in values.reshape(len(paths), -1):
        parts = zip(shapes.items(), np.split(row, ends[:-1]), strict=True)
        found.append({name: part.reshape(shape) for (name, shape), part in parts})
    return found


def _program(folder: Path) -> Path:
    """Return the runner program of an artifact."""
    programs = sorted(folder.glob("*-run"))
    if len(programs) != 1:
        raise fail("E0652", "there is no runner program here", whole_file(str(folder)))
    return programs[0].resolve()


def _outputs(machine: Machine, program: Path) -> "dict[str, tuple[int, ...]]":
    """Return the shapes of the outputs by name, as the program itself tells them."""
    about = json.loads(_execute(machine, program, "--describe", inputs=0))
    return {o["name"]: tuple(o["shape"]) for o in about["outputs"]}


def _execute(machine: Machine, program: Path, *arguments: str, inputs: int) -> str:
    """Run the program and return what it prints.

    Raises:
        UserError: It refuses an input, or fails (E0652).
    """
    emulator = [] if machine.native else [machine.qemu, "-cpu", machine.qemu_cpu]
    where = whole_file(str(program))
    try:
        done = subprocess.run(
            [*emulator, str(program), *arguments],
            capture_output=True,
            check=False,
            stdin=subprocess.DEVNULL,
            env={k: v for k, v in os.environ.items() if not k.startswith(("LD_", "QEMU_"))},
            timeout=START + EACH * inputs,
        )
    except subprocess.TimeoutExpired as error:
        raise fail("E0652", f"the program did not end in {error.timeout:.0f} s", where) from None
    except OSError as error:
        raise fail("E0652", "the program cannot be run", where, label=str(error.strerror)) from None
    if done.returncode:
        raise _failure(done, where)
    return done.stdout.decode()


def _failure(done: "subprocess.CompletedProcess[bytes]", where: Span) -> UserError:
    said = done.stderr.decode(errors="replace").strip().splitlines()
    if done.returncode == BAD_INPUT:
        return fail("E0653", "the program refuses its input", where, label=_last(said))
    cause = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
    return fail("E0652", f"the program failed with {cause}", where, label=_last(said))


def _last(lines: Sequence[str]) -> str:
    """Return the last line, with the number of an input in place of its file's path."""
    said = lines[-1] if lines else ""
    return re.sub(r"^.*/(input \d+)\.\w+", r"\1", said)[:200]
