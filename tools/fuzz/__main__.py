"""Feed hostile inputs to every way into `tcc`, and count the answers that are no answer.

    python tools/fuzz                         every front, as many cases as each names
    python tools/fuzz specs onnx --share 0.1  two fronts, a tenth of their cases
    python tools/fuzz specs --seed 7 --only 312 --keep build/fuzz  one case

A case fails where the command ends with exit code 1 or by a signal, prints a traceback, takes more
than 20 s of processor time or 1 GB of memory, or where the front's own check finds its result
wrong. The same seed makes the same cases. Exits with 1 where any case fails, and with 130 and what
was counted until then where Ctrl-C or SIGTERM stops it.
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
"""Failures that are printed of each front."""


def generate_cases(front: Front, seed: int, share: float) -> Iterator[tuple[int, Case]]:
    """Yield the cases of a front with their numbers; each depends on its number and seed alone."""
    for number in range(max(1, round(front.count * share))):
        yield number, front.make(Random(f"{front.name} {seed} {number}"))


@dataclass
class Tally:
    """What is counted of a front; `next` is the case that is not counted yet."""

    front: str
    codes: Counter[int] = field(default_factory=Counter)
    failures: list[dict[str, object]] = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0
    next: int = 0
    start: float = field(default_factory=time.monotonic)

    def to_document(self) -> dict[str, Any]:
        """Return what to say of it."""
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
        """Print it in a line."""
        summary = {key: figure for key, figure in self.to_document().items() if key != "failures"}
        print(json.dumps(summary | {"failed": len(self.failures)}), flush=True)

    def add(self, number: int, case: Case, outcome: Outcome, wrong: str) -> None:
        """Count how a case ended, and print what is wrong with it, if anything."""
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
    """Run the cases of a front in folders of `base_folder`, and count them."""
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
    """Run the fronts that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [front.name for front in FRONTS]
    parser.add_argument(
        "fronts", nargs="*", metavar="front", help=f"{', '.join(names)}; all if none is named"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0, help="share of each front's cases")
    parser.add_argument("--only", type=int, help="the number of one case")
    parser.add_argument("--start", type=int, default=0, help="the number of the first case")
    parser.add_argument("--keep", help="a folder in which the files of failed cases are kept")
    parser.add_argument("--json", help="a file to write the counts to")
    options = parser.parse_args()
    if unknown := set(options.fronts) - set(names):
        parser.error(f"there is no front {', '.join(sorted(unknown))}")
    if options.keep:
        Path(options.keep).mkdir(parents=True, exist_ok=True)
    tallies: list[Tally] = []
    # What some cases let run is not to be let run by the user's own commands.
    base_folder = tempfile.TemporaryDirectory(prefix="tcc-fuzz-", ignore_cleanup_errors=True)
    os.environ["XDG_STATE_HOME"] = f"{base_folder.name}/state"
    os.environ["TCC_CACHE_LIMIT"] = "0"  # each build is to be one
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run without a terminal is stopped
    try:
        for front in FRONTS:
            if not options.fronts or front.name in options.fronts:
                tallies.append(Tally(front.name))
                run_front(front, options, tallies[-1], base_folder.name)
                tallies[-1].print_summary()
    except KeyboardInterrupt:  # what was counted until then is not lost
        for tally in tallies[-1:]:
            tally.print_summary()
        print("stopped: go on with --start and what `next` says", file=sys.stderr)
        return 130
    finally:
        if options.json:
            text = json.dumps([tally.to_document() for tally in tallies], indent=1)
            Path(options.json).write_text(text + "\n")
    return int(any(tally.failures for tally in tallies))


if __name__ == "__main__":
    sys.exit(main())
