"""Time a file on a board with LiteRT's own program `benchmark_model`."""

import re
from pathlib import Path

from tcc.compiler.ir.measurement import BoardTask, Measurement, MemoryUse, RunCost, RunTimes
from tcc.compiler.support import regular_files
from tcc.compiler.support.decimal_numbers import parse_float
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

WARMUP_RUNS = 5
"""Warm-up runs, which do not count."""
MAX_SECONDS = 900
"""Time limit of the program in seconds; it is configured to end earlier."""
MAX_BENCHMARK_SECONDS = 600
CAUTION = (
    "timed with an input that LiteRT's program generates, so its outputs are not the golden outputs"
)
_COUNTED = re.compile(rb"^count=(\d{1,9}) .*$", re.MULTILINE)
_FIELD = re.compile(rb"(\w+)=([-+.\deE]+)")
_INITIAL = re.compile(rb"Init: ([\d.eE+]+), First inference: ([\d.eE+]+)")
_GROWN = re.compile(rb"Memory footprint delta .*overall=(\d{1,6}(?:\.\d+)?)")


def measure(file: Path, task: BoardTask) -> Measurement:
    """Return the cost of a file on a board, with XNNPACK.

    Raises:
        UserError: No program is given (E0601), it fails or prints unexpected output (E0651), or the
            board does not respond correctly (E0658).
    """
    if task.runner is None:
        help = "set --benchmark-model to LiteRT's benchmark_model, built for the board"
        message = "no program to run TFLite files on the board"
        raise fail("E0601", message, make_file_span("command line: --benchmark-model"), help=help)
    board, workload = task.board, task.workload
    program = board.send("benchmark_model", _read_file(task.runner), executable=True)
    model = board.send(file.name, _read_file(file))
    options = {
        "graph": model,
        "num_threads": workload.threads,
        "warmup_runs": WARMUP_RUNS,
        "num_runs": workload.runs,
        "min_secs": 0,
        "max_secs": MAX_BENCHMARK_SECONDS,
        "use_xnnpack": "true",
    }
    arguments = [f"--{name}={setting}" for name, setting in options.items()]
    process = board.execute([program, *arguments], MAX_SECONDS)
    output = process.out + b"\n" + process.err
    if process.code:
        raise _build_error(task.runner, f"it ended with exit status {process.code}")
    threads = f"{workload.threads} threads" if workload.threads > 1 else "one thread"
    method = f"{board.link.name}, LiteRT's benchmark_model with XNNPACK, {threads}"
    return _parse_measurement(method, output, task.runner, file.stat().st_size)


def _parse_measurement(method: str, output: bytes, program: Path, size: int) -> Measurement:
    count_matches, load_match = [*_COUNTED.finditer(output)], _INITIAL.search(output)
    memory_match = _GROWN.search(output)
    try:
        fields = {
            field_name.decode(): _parse_milliseconds(time)
            for field_name, time in _FIELD.findall(count_matches[-1][0])
        }
        load, first_run = (
            (_parse_milliseconds(time) for time in load_match.groups())
            if load_match
            else (0.0, 0.0)
        )
        median = fields.get("median", fields["avg"])
        # Versions of the program print either percentiles or minimum and maximum; the caution
        # names which.
        low, high = fields.get("p5", fields["min"]), fields.get("p95", fields["max"])
    except (ValueError, IndexError, KeyError):
        median = 0
    if not median or not load_match:
        raise _build_error(
            program, "its output does not contain the times that LiteRT's benchmark_model prints"
        )
    spread = (
        "5th and 95th percentiles"
        if "p5" in fields
        else "minimum and maximum, and its median is the mean"
    )
    memory = MemoryUse(
        size, peak=round(float(memory_match[1]) * (1 << 20)) if memory_match else None
    )
    return Measurement(
        how=method,
        network=RunCost(times=RunTimes(median, low, high, first_run, int(count_matches[-1][1]))),
        load=RunCost(times=RunTimes(load, load, load, load, 1)),
        preprocess=None,
        memory=memory,
        caution=f"{CAUTION}; its quartiles are {spread}",
    )


def _parse_milliseconds(microseconds: bytes) -> float:
    """Return a time that the program prints, in milliseconds.

    Raises:
        ValueError: It is not a valid number of microseconds.
    """
    milliseconds = parse_float(microseconds.decode()) / 1e3
    if not 0 <= milliseconds < 1e9:
        raise ValueError("not a valid time")
    return milliseconds


def _read_file(path: Path) -> bytes:
    try:
        with regular_files.open_file(path) as file:
            return file.read()
    except OSError as error:
        reason = error.strerror or str(error)
        raise fail(
            "E0601",
            f"cannot read the program of --benchmark-model: {reason}",
            make_file_span(str(path)),
        ) from None


def _build_error(program: Path, label: str) -> UserError:
    message = "LiteRT's benchmark_model could not time the model"
    return fail("E0651", message, make_file_span(str(program)), label=label)
