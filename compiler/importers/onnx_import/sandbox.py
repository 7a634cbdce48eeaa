"""Foreign models are handed to native libraries in a process of its own: it may crash or hang.

The parent calls `clean` and `run_model`; the child runs this file. Each task has a process, which
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

TIMEOUT_SECONDS = 300
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

    with atomic_files.create_scratch_folder() as folder:
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        # What went wrong is told in steps: a file that was checked and could not be simplified is
        # used as it is.
        task_result = _run_process("clean", folder)
        clean_file = folder / "clean.onnx"
        if "simplified" not in task_result.steps or not clean_file.is_file():
            return model, task_result
        return onnx.load_model_from_string(clean_file.read_bytes()), task_result


def run_model(
    model: "onnx.ModelProto", feeds: "Sequence[Mapping[str, np.ndarray]]"
) -> "tuple[list[Mapping[str, np.ndarray]], TaskResult]":
    """Return what ONNX Runtime computes of each set of inputs, by output.

    The list is empty where it cannot; the step is `ran`.
    """
    import numpy as np

    with atomic_files.create_scratch_folder() as folder:
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        (folder / "inputs.json").write_text(json.dumps([list(feed) for feed in feeds]))
        for feed_index, feed in enumerate(feeds):
            for index, tensor in enumerate(feed.values()):
                # Numbered, since names of values are a stranger's and may be paths.
                np.save(folder / f"in_{feed_index}_{index}.npy", tensor)
        task_result = _run_process("outputs", folder)
        if "ran" not in task_result.steps:
            return [], task_result
        names = json.loads((folder / "names.json").read_text())
        arrays_by_feed = [_load_arrays(folder, f"out_{i}", len(names)) for i in range(len(feeds))]
        return [dict(zip(names, arrays, strict=True)) for arrays in arrays_by_feed], task_result


def _load_arrays(folder: Path, prefix: str, count: int) -> "list[np.ndarray]":
    import numpy as np

    # The child ran foreign data through native code: its answer is read as data, not as pickles.
    return [np.load(folder / f"{prefix}_{i}.npy", allow_pickle=False) for i in range(count)]


def _run_process(task: str, folder: Path) -> TaskResult:
    # -P: a file in the working folder must not pass for a library.
    command = [sys.executable, "-P", "-m", __name__, task, str(folder)]
    log = folder / "steps.txt"
    try:
        completed = subprocess.run(
            command,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each thread takes address space
        )
    except subprocess.TimeoutExpired:
        return TaskResult(_read_steps(log), f"it took longer than {TIMEOUT_SECONDS} s")
    # A full disk looks like a crash of the library, and is said as what it is.
    if completed.returncode:
        atomic_files.check_disk_space(folder)
    error_text = completed.stderr.decode(errors="replace").strip()
    if completed.returncode and memory_limit.is_shortage(error_text):
        return TaskResult(_read_steps(log), "there is not enough memory for it")
    if completed.returncode < 0:
        return TaskResult(
            _read_steps(log), f"the library was ended by signal {-completed.returncode}"
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
    # Weights are held several times: in the file, parsed, by the library, and in its result.
    file_bytes = sum(path.stat().st_size for path in folder.iterdir())
    # A limit that is there already stays: a process may lower it and never raise it.
    max_bytes = min(MAX_MEMORY + MEMORY_PER_FILE_BYTE * file_bytes, *limits, sys.maxsize)
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))


def _run_clean(folder: Path) -> None:
    import onnx
    from onnx import checker, inliner

    # As bytes: native code must not meet the name of the folder, which may be in any encoding.
    content = (folder / "model.onnx").read_bytes()
    checker.check_model(content)
    model = onnx.load_model_from_string(content)
    _log_step(folder, "checked")
    # onnxsim loads torch where it is installed, for what is not used here.
    sys.modules["torch"] = None  # type: ignore[assignment]
    import onnxsim

    if model.functions:
        # Exporters may write layers as functions, whose operators conversion has to see.
        model = inliner.inline_local_functions(model)
    # Only what is constant is computed: operators stay as the file has them.
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
    # Without optimisations, which are what may go wrong in a runtime, and what the reference does
    # without (docs/decisions/0011-reference-executors.md).
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
