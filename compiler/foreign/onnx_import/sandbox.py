"""Foreign models are handed to native libraries in a process of its own: it may crash or hang.

The parent calls `clean` and `outputs`; the child runs this file. Each task has a process, which
ends with it: a limit of memory holds for a whole process and is never raised again, and what a
damaged file did to a native library must not reach the next task.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.support import atomic_files, memory_limit

if TYPE_CHECKING:
    import numpy as np
    import onnx

TIMEOUT = 300
"""Seconds that one task may take: it only has to end what hangs, for a classifier takes some."""
MAX_MEMORY, MEMORY_PER_FILE_BYTE = 4 << 30, 8
"""Bytes of address space that the child may take at most, and as many times the sizes of its files
besides, where the system can limit it. Address space counts what libraries map and never use."""
MAX_FOLDED_CONSTANT = 64 << 20
"""Largest constant, in bytes, that cleaning computes, where the file itself is smaller: what is
computed of weights, such as their transposition, is no larger than they are."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What the child did: the task's steps that it finished, and why it went no further."""

    steps: tuple[str, ...]
    problem: str = ""


def clean(model: "onnx.ModelProto") -> "tuple[onnx.ModelProto, TaskResult]":
    """Return a model checked and with its constants computed; the same where that failed.

    The steps are `checked` and `simplified`.
    """
    import onnx

    with atomic_files.scratch_folder() as folder:
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        # What went wrong is told in steps: a file that was checked and could not be simplified is
        # used as it is.
        done = _run("clean", folder)
        result = folder / "clean.onnx"
        if "simplified" not in done.steps or not result.is_file():
            return model, done
        return onnx.load_model_from_string(result.read_bytes()), done


def outputs(
    model: "onnx.ModelProto", feeds: "Sequence[Mapping[str, np.ndarray]]"
) -> "tuple[list[Mapping[str, np.ndarray]], TaskResult]":
    """Return what ONNX Runtime computes of each set of inputs, by output.

    The list is empty where it cannot; the step is `ran`.
    """
    import numpy as np

    with atomic_files.scratch_folder() as folder:
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        (folder / "inputs.json").write_text(json.dumps([list(feed) for feed in feeds]))
        for trial, feed in enumerate(feeds):
            for index, tensor in enumerate(feed.values()):
                # Numbered, since names of values are a stranger's and may be paths.
                np.save(folder / f"in_{trial}_{index}.npy", tensor)
        done = _run("outputs", folder)
        if "ran" not in done.steps:
            return [], done
        names = json.loads((folder / "names.json").read_text())
        found = [_stored(folder, f"out_{i}", len(names)) for i in range(len(feeds))]
        return [dict(zip(names, values, strict=True)) for values in found], done


def _stored(folder: Path, trial: str, count: int) -> "list[np.ndarray]":
    import numpy as np

    # The child ran foreign data through native code: its answer is read as data, not as pickles.
    return [np.load(folder / f"{trial}_{i}.npy", allow_pickle=False) for i in range(count)]


def _run(task: str, folder: Path) -> TaskResult:
    # -P: a file in the working folder must not pass for a library.
    command = [sys.executable, "-P", "-m", __name__, task, str(folder)]
    log = folder / "steps.txt"
    try:
        ended = subprocess.run(
            command,
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each thread takes address space
        )
    except subprocess.TimeoutExpired:
        return TaskResult(_steps(log), f"it took longer than {TIMEOUT} s")
    # A full disk looks like a crash of the library, and is said as what it is.
    if ended.returncode:
        atomic_files.check_room(folder)
    words = ended.stderr.decode(errors="replace").strip()
    if ended.returncode and memory_limit.is_shortage(words):
        return TaskResult(_steps(log), "there is not enough memory for it")
    if ended.returncode < 0:
        return TaskResult(_steps(log), f"the library was ended by signal {-ended.returncode}")
    return TaskResult(
        _steps(log), words.splitlines()[-1][:300] if ended.returncode and words else ""
    )


def _steps(log: Path) -> tuple[str, ...]:
    return tuple(log.read_text().split()) if log.is_file() else ()


def _limit(folder: Path) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = [n for n in resource.getrlimit(resource.RLIMIT_AS) if n != resource.RLIM_INFINITY]
    # Weights are held several times: in the file, parsed, by the library, and in its result.
    given = sum(path.stat().st_size for path in folder.iterdir())
    # A limit that is there already stays: a process may lower it and never raise it.
    allowed = min(MAX_MEMORY + MEMORY_PER_FILE_BYTE * given, *limits, sys.maxsize)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))


def _clean(folder: Path) -> None:
    import onnx
    from onnx import checker, inliner

    # As bytes: native code must not meet the name of the folder, which may be in any encoding.
    data = (folder / "model.onnx").read_bytes()
    checker.check_model(data)
    model = onnx.load_model_from_string(data)
    _finish(folder, "checked")
    # onnxsim loads torch where it is installed, for what is not used here.
    sys.modules["torch"] = None  # type: ignore[assignment]
    import onnxsim

    if model.functions:
        # Exporters may write layers as functions, whose operators conversion has to see.
        model = inliner.inline_local_functions(model)
    # Only what is constant is computed: operators stay as the file has them.
    largest = f"{max(len(data), MAX_FOLDED_CONSTANT) >> 20}MB"
    simple, _ = onnxsim.simplify(
        model, 0, perform_optimization=False, tensor_size_threshold=largest
    )
    (folder / "clean.onnx").write_bytes(simple.SerializeToString())
    _finish(folder, "simplified")


def _outputs(folder: Path) -> None:
    import numpy as np

    from tcc.compiler.reference.onnxruntime_session import FATAL, session

    model = (folder / "model.onnx").read_bytes()
    # Without optimisations, which are what may go wrong in a runtime, and what the reference does
    # without (docs/decisions/0011-reference-executors.md).
    loaded = session(model, optimised=False, severity=FATAL)
    wanted = [output.name for output in loaded.get_outputs()]
    (folder / "names.json").write_text(json.dumps(wanted))
    for trial, names in enumerate(json.loads((folder / "inputs.json").read_text())):
        feed = dict(zip(names, _stored(folder, f"in_{trial}", len(names)), strict=True))
        for index, value in enumerate(loaded.run(wanted, feed)):
            np.save(folder / f"out_{trial}_{index}.npy", value)
    _finish(folder, "ran")


def _finish(folder: Path, step: str) -> None:
    with (folder / "steps.txt").open("a") as log:
        log.write(f"{step}\n")


def _main(task: str, place: str) -> int:
    try:
        _limit(Path(place))
        {"clean": _clean, "outputs": _outputs}[task](Path(place))
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())}"[:400])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
