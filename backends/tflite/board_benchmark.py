"""Timing a file on a board, by LiteRT's own program `benchmark_model`."""

import re
from pathlib import Path

from tcc.compiler.ir.measurement import BoardTask, Measurement, MemoryUse, RunCost, RunTimes
from tcc.compiler.support import regular_files
from tcc.compiler.support.decimal_numbers import parse_float
from tcc.compiler.support.diagnostics import UserError, fail, whole_file

WARM = 5
"""Runs before those that count."""
SECONDS = 900
"""How long the program may take; it is told to end earlier."""
LONGEST = 600
CAUTION = (
    "the first input that LiteRT's program makes up was timed: its answers are not the goldens'"
)
_COUNTED = re.compile(rb"^count=(\d{1,9}) .*$", re.MULTILINE)
_FIELD = re.compile(rb"(\w+)=([-+.\deE]+)")
_INITIAL = re.compile(rb"Init: ([\d.eE+]+), First inference: ([\d.eE+]+)")
_GROWN = re.compile(rb"Memory footprint delta .*overall=(\d{1,6}(?:\.\d+)?)")


def measure(file: Path, task: BoardTask) -> Measurement:
    """Return what a file costs on a board, with XNNPACK.

    Raises:
        UserError: No program to run it is given (E0601), it fails or prints something else (E0651),
            or the board does not do what it is asked (E0658).
    """
    if task.runner is None:
        help = "name LiteRT's benchmark_model for the board with --benchmark-model"
        message = "what runs TFLite files on the board?"
        raise fail("E0601", message, whole_file("command line: --benchmark-model"), help=help)
    board, work = task.board, task.workload
    program = board.put("benchmark_model", _data(task.runner), executable=True)
    model = board.put(file.name, _data(file))
    options = {
        "graph": model, "num_threads": work.threads, "warmup_runs": WARM, "num_runs": work.runs,
        "min_secs": 0, "max_secs": LONGEST, "use_xnnpack": "true",
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in options.items()]
    ended = board.execute([program, *words], SECONDS)
    said = ended.out + b"\n" + ended.err
    if ended.code:
        raise _broken(task.runner, f"it ends with status {ended.code}")
    threads = f"{work.threads} threads" if work.threads > 1 else "one thread"
    how = f"{board.way.name}, LiteRT's benchmark_model with XNNPACK, {threads}"
    return _measurement(how, said, task.runner, file.stat().st_size)


def _measurement(how: str, said: bytes, program: Path, size: int) -> Measurement:
    counted, initial = [*_COUNTED.finditer(said)], _INITIAL.search(said)
    grown = _GROWN.search(said)
    try:
        fields = {word.decode(): _milliseconds(at) for word, at in _FIELD.findall(counted[-1][0])}
        load, first = (_milliseconds(each) for each in initial.groups()) if initial else (0.0, 0.0)
        middle = fields.get("median", fields["avg"])
        # Versions of the program print percentiles, or the least and the most; the caution says
        # which.
        low, high = fields.get("p5", fields["min"]), fields.get("p95", fields["max"])
    except (ValueError, IndexError, KeyError):
        middle = 0
    if not middle or not initial:
        raise _broken(program, "it does not print the times that LiteRT's program prints")
    spread = "5th and 95th percentiles" if "p5" in fields else "the least and the most, and a mean"
    memory = MemoryUse(size, peak=round(float(grown[1]) * (1 << 20)) if grown else None)
    return Measurement(
        how=how,
        network=RunCost(times=RunTimes(middle, low, high, first, int(counted[-1][1]))),
        load=RunCost(times=RunTimes(load, load, load, load, 1)),
        preprocess=None,
        memory=memory,
        caution=f"{CAUTION}; its quartiles are {spread}",
    )


def _milliseconds(microseconds: bytes) -> float:
    """Return a time of the program's in milliseconds.

    Raises:
        ValueError: It is no number of seconds.
    """
    found = parse_float(microseconds.decode()) / 1e3
    if not 0 <= found < 1e9:
        raise ValueError("no time")
    return found


def _data(path: Path) -> bytes:
    try:
        with regular_files.opened(path) as file:
            return file.read()
    except OSError as error:
        reason = error.strerror or str(error)
        raise fail("E0601", f"cannot read the program: {reason}", whole_file(str(path))) from None


def _broken(program: Path, label: str) -> UserError:
    message = "LiteRT's program did not time the model"
    return fail("E0651", message, whole_file(str(program)), label=label)
