"""Run native libraries on untrusted models in a separate process, which may crash or hang.

The parent calls `clean` and `run_model`; the child runs this file. Each task gets its own process:
a memory limit applies to the process and cannot be raised again, and damage that a file does to a
native library must not affect the next task.
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

TIMEOUT_SECONDS = 300
"""Time limit of one task in seconds. It only ends tasks that hang: a classifier takes seconds."""
MAX_MEMORY, MEMORY_PER_FILE_BYTE = 4 << 30, 8
"""Limit of the child's address space in bytes: a base, plus a multiple of the size of its files.
Applied only if the system supports it. Address space includes memory that libraries map but never
use."""
MAX_FOLDED_CONSTANT = 64 << 20
"""Maximum size in bytes of a constant that cleaning computes, unless the file is larger. Constants
computed from weights, such as transposed weights, are not larger than the weights."""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """Result of the child: the steps that it finished, and why it stopped early."""

    steps: tuple[str, ...]
    problem: str = ""


def clean(model: "onnx.ModelProto") -> "tuple[onnx.ModelProto, TaskResult]":
    """Return a checked model with its constants computed; unchanged if that failed.

    The steps are `checked` and `simplified`.
    """
    import onnx

    with atomic_files.create_scratch_folder() as folder:
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        # The steps show what failed: a model that was checked but not simplified is used as it is.
        task_result = _run_process("clean", folder)
        clean_file = folder / "clean.onnx"
        if "simplified" not in task_result.steps or not clean_file.is_file():
            return model, task_result
        return onnx.load_model_from_string(clean_file.read_bytes()), task_result


def run_model(
    model: "onnx.ModelProto", feeds: "Sequence[Mapping[str, np.ndarray]]"
) -> "tuple[list[Mapping[str, np.ndarray]], TaskResult]":
    """Return the outputs that ONNX Runtime computes for each set of inputs, by name.

    The list is empty if it failed; the step is `ran`.
    """
    import numpy as np

    with atomic_files.create_scratch_folder() as folder:
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        (folder / "inputs.json").write_text(json.dumps([list(feed) for feed in feeds]))
        for feed_index, feed in enumerate(feeds):
            for index, tensor in enumerate(feed.values()):
                # Numbered, because names in an untrusted file may be paths.
                np.save(folder / f"in_{feed_index}_{index}.npy", tensor)
        task_result = _run_process("outputs", folder)
        if "ran" not in task_result.steps:
            return [], task_result
        names = json.loads((folder / "names.json").read_text())
        arrays_by_feed = [_load_arrays(folder, f"out_{i}", len(names)) for i in range(len(feeds))]
        return [dict(zip(names, arrays, strict=True)) for arrays in arrays_by_feed], task_result


def _load_arrays(folder: Path, prefix: str, count: int) -> "list[np.ndarray]":
    import numpy as np

    # The child ran untrusted data through native code: read its results as data, never as pickles.
    return [np.load(folder / f"{prefix}_{i}.npy", allow_pickle=False) for i in range(count)]


def _run_process(task: str, folder: Path) -> TaskResult:
    # -P: a file in the working folder must not be imported as a library.
    command = [sys.executable, "-P", "-m", __name__, task, str(folder)]
    log = folder / "steps.txt"
    try:
        completed = subprocess.run(
            command,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each thread uses address space
        )
    except subprocess.TimeoutExpired:
        return TaskResult(_read_steps(log), f"it took longer than {TIMEOUT_SECONDS} s")
    # A full disk looks like a crash of the library; report it as a full disk.
    if completed.returncode:
        atomic_files.check_disk_space(folder)
    error_text = completed.stderr.decode(errors="replace").strip()
    if completed.returncode and memory_limit.is_shortage(error_text):
        return TaskResult(_read_steps(log), "not enough memory")
    if completed.returncode < 0:
        return TaskResult(
            _read_steps(log), f"the library was killed by signal {-completed.returncode}"
        )
    return TaskResult(
        _read_steps(log),
        error_text.splitlines()[-1][:300] if completed.returncode and error_text else "",
    )


def _read_steps(log: Path) -> tuple[str, ...]:
    return tuple(log.read_text().split()) if log.is_file() else ()


def _limit_memory(folder: Path) -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    limits = [n for n in resource.getrlimit(resource.RLIMIT_AS) if n != resource.RLIM_INFINITY]
    # Weights exist several times: in the file, parsed, in the library, and in its result.
    file_bytes = sum(path.stat().st_size for path in folder.iterdir())
    # An existing limit is kept: a process can lower its limit but never raise it.
    max_bytes = min(MAX_MEMORY + MEMORY_PER_FILE_BYTE * file_bytes, *limits, sys.maxsize)
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))


def _run_clean(folder: Path) -> None:
    import onnx
    from onnx import checker, inliner

    # As bytes: native code must not see the folder's name, which may be in any encoding.
    content = (folder / "model.onnx").read_bytes()
    checker.check_model(content)
    model = onnx.load_model_from_string(content)
    _log_step(folder, "checked")
    # onnxsim imports torch if it is installed, for features that are not used here.
    sys.modules["torch"] = None  # type: ignore[assignment]
    import onnxsim

    if model.functions:
        # Exporters may write layers as functions; conversion needs the operators in them.
        model = inliner.inline_local_functions(model)
    # Only constants are computed; operators stay as in the file.
    size_limit = f"{max(len(content), MAX_FOLDED_CONSTANT) >> 20}MB"
    simplified, _ = onnxsim.simplify(
        model, 0, perform_optimization=False, tensor_size_threshold=size_limit
    )
    (folder / "clean.onnx").write_bytes(simplified.SerializeToString())
    _log_step(folder, "simplified")


def _run_outputs(folder: Path) -> None:
    import numpy as np

    from tcc.compiler.reference.onnxruntime_session import FATAL, create_session

    model = (folder / "model.onnx").read_bytes()
    # Without optimizations, which may introduce errors. The reference does not use them either
    # (docs/decisions/0011-reference-executors.md).
    runtime_session = create_session(model, optimised=False, severity=FATAL)
    output_names = [output.name for output in runtime_session.get_outputs()]
    (folder / "names.json").write_text(json.dumps(output_names))
    for feed_index, names in enumerate(json.loads((folder / "inputs.json").read_text())):
        feed = dict(zip(names, _load_arrays(folder, f"in_{feed_index}", len(names)), strict=True))
        for index, array in enumerate(runtime_session.run(output_names, feed)):
            np.save(folder / f"out_{feed_index}_{index}.npy", array)
    _log_step(folder, "ran")


def _log_step(folder: Path, step: str) -> None:
    with (folder / "steps.txt").open("a") as log:
        log.write(f"{step}\n")


def _run_task(task: str, folder: str) -> int:
    try:
        _limit_memory(Path(folder))
        {"clean": _run_clean, "outputs": _run_outputs}[task](Path(folder))
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())}"[:400])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_run_task(*sys.argv[1:]))
