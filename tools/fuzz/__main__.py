"""Feed hostile inputs to every `tcc` interface, and count the failures.

    python tools/fuzz                         all fronts, with the default number of cases
    python tools/fuzz specs onnx --share 0.1  two fronts, a tenth of their cases
    python tools/fuzz specs --seed 7 --only 312 --keep build/fuzz  one case

A case fails if the command exits with code 1 or by a signal, prints a traceback, or takes more than
20 s of CPU time or 1 GB of memory. It also fails if the front's own check rejects the result. The
same seed generates the same cases. Exits with 1 if a case fails. Ctrl-C or SIGTERM stops the run:
it prints the counts so far and exits with 130.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import child
from case import Case, Front, Outcome
from fronts import FRONTS
from judge import check_outcome

MAX_PRINTED = 20
"""The maximum number of printed failures per front."""


def generate_cases(front: Front, seed: int, share: float) -> Iterator[tuple[int, Case]]:
    """Yield the numbered cases of a front; a case depends only on its number and the seed."""
    for number in range(max(1, round(front.count * share))):
        yield number, front.make(Random(f"{front.name} {seed} {number}"))


@dataclass
class Tally:
    """The counts of a front; `next` is the first case that is not counted yet."""

    front: str
    codes: Counter[int] = field(default_factory=Counter)
    failures: list[dict[str, object]] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0
    next: int = 0
    start: float = field(default_factory=time.monotonic)

    def to_document(self) -> dict[str, Any]:
        """Return the counts as a JSON document."""
        return {
            "front": self.front,
            "cases": self.codes.total(),
            "next": self.next,
            "codes": {str(code): count for code, count in sorted(self.codes.items())},
            "failures": self.failures,
            "slowest_s": round(self.slowest, 2),
            "largest_mib": self.largest >> 20,
            "minutes": round((time.monotonic() - self.start) / 60, 1),
        }

    def print_summary(self) -> None:
        """Print the counts in one line."""
        summary = {key: figure for key, figure in self.to_document().items() if key != "failures"}
        print(json.dumps(summary | {"failed": len(self.failures)}), flush=True)

    def add(self, number: int, case: Case, outcome: Outcome, wrong: str) -> None:
        """Count the outcome of a case; print its failure, if any."""
        self.codes[outcome.code] += 1
        self.slowest = max(self.slowest, outcome.seconds)
        self.largest = max(self.largest, outcome.peak)
        if wrong:
            command = " ".join(case.arguments)[:200]
            self.failures.append({"case": number, "wrong": wrong, "words": command})
            if len(self.failures) <= MAX_PRINTED:
                tail = outcome.err.strip().splitlines()[-3:]
                print(
                    f"{self.front} {number}: {wrong}: tcc {command}",
                    *tail,
                    sep="\n    ",
                    flush=True,
                )


def run_front(front: Front, options: argparse.Namespace, tally: Tally, base_folder: str) -> None:
    """Run and count the cases of a front in subfolders of `base_folder`."""
    front.warm()
    for number, case in generate_cases(front, options.seed, options.share):
        if number < options.start or options.only not in {None, number}:
            continue
        tally.next = number
        case_root = tempfile.mkdtemp(
            dir=options.keep or base_folder, prefix=f"{front.name}-{number}-"
        )
        folder = Path(case_root) / "case"
        folder.mkdir()
        outcome = child.run(case, folder)
        wrong = check_outcome(outcome, case, folder)
        if not (options.keep and wrong):
            shutil.rmtree(case_root)
        tally.add(number, case, outcome, wrong)
        tally.next = number + 1


def main() -> int:
    """Run the selected fronts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [front.name for front in FRONTS]
    parser.add_argument(
        "fronts", nargs="*", metavar="front", help=f"{', '.join(names)}; default: all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of each front's cases to run"
    )
    parser.add_argument("--only", type=int, help="run only the case with this number")
    parser.add_argument("--start", type=int, default=0, help="run the cases from this number on")
    parser.add_argument("--keep", help="folder where the files of failed cases are kept")
    parser.add_argument("--json", help="file to write the counts to")
    options = parser.parse_args()
    if unknown := set(options.fronts) - set(names):
        parser.error(f"unknown front: {', '.join(sorted(unknown))}")
    if options.keep:
        Path(options.keep).mkdir(parents=True, exist_ok=True)
    tallies: list[Tally] = []
    # Some cases trust bundles; keep that trust separate from the user's own.
    base_folder = tempfile.TemporaryDirectory(prefix="tcc-fuzz-", ignore_cleanup_errors=True)
    os.environ["XDG_STATE_HOME"] = f"{base_folder.name}/state"
    os.environ["TCC_CACHE_LIMIT"] = "0"  # disable the cache, so that each build really runs
    # A run without a terminal stops like one with Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for front in FRONTS:
            if not options.fronts or front.name in options.fronts:
                tallies.append(Tally(front.name))
                run_front(front, options, tallies[-1], base_folder.name)
                tallies[-1].print_summary()
    except KeyboardInterrupt:  # keep the counts so far
        for tally in tallies[-1:]:
            tally.print_summary()
        print("stopped: continue with --start and the printed value of `next`", file=sys.stderr)
        return 130
    finally:
        if options.json:
            text = json.dumps([tally.to_document() for tally in tallies], indent=1)
            Path(options.json).write_text(text + "\n")
    return int(any(tally.failures for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
