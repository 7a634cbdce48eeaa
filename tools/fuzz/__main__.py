"""Feed hostile inputs to every way into `tcc`, and count the answers that are no answer.

    python tools/fuzz                         every front, as many cases as each names
    python tools/fuzz specs onnx --share 0.1  two fronts, a tenth of their cases
    python tools/fuzz specs --seed 7 --only 312 --keep build/fuzz  one case

A case fails where the command ends with exit code 1 or by a signal, prints a traceback, takes more
than 20 s of processor time or 1 GB of memory, or where the front's own check finds its result
wrong. The same seed makes the same cases. Exits with 1 where any case fails.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import child
from case import Case, Front
from fronts import FRONTS
from judge import judged

SHOWN = 20
"""Failures that are printed of each front."""


def cases(front: Front, seed: int, share: float) -> Iterator[tuple[int, Case]]:
    """Yield the cases of a front with their numbers; each depends on its number and seed alone."""
    for number in range(max(1, round(front.count * share))):
        yield number, front.make(Random(f"{front.name} {seed} {number}"))


def tried(front: Front, options: argparse.Namespace) -> dict[str, Any]:
    """Run the cases of a front; return what to say of them."""
    front.warm()
    codes: Counter[int] = Counter()
    failures: list[dict[str, object]] = []
    slowest, largest, start = 0.0, 0, time.monotonic()
    for number, case in cases(front, options.seed, options.share):
        if number < options.start or options.only not in {None, number}:
            continue
        place = tempfile.mkdtemp(dir=options.keep, prefix=f"{front.name}-{number}-")
        folder = Path(place) / "case"
        folder.mkdir()
        outcome = child.run(case, folder)
        wrong = judged(outcome, case, folder)
        if not (options.keep and wrong):
            shutil.rmtree(place)
        codes[outcome.code] += 1
        slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.peak)
        if wrong:
            words = " ".join(case.words)[:200]
            failures.append({"case": number, "wrong": wrong, "words": words})
            if len(failures) <= SHOWN:
                tail = outcome.err.strip().splitlines()[-3:]
                print(f"{front.name} {number}: {wrong}: tcc {words}", *tail, sep="\n    ")
    return {
        "front": front.name,
        "cases": codes.total(),
        "codes": {str(code): count for code, count in sorted(codes.items())},
        "failures": failures,
        "slowest_s": round(slowest, 2),
        "largest_mib": largest >> 20,
        "minutes": round((time.monotonic() - start) / 60, 1),
    }


def main() -> int:
    """Run the fronts that the command line names."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    names = [front.name for front in FRONTS]
    words.add_argument(
        "fronts", nargs="*", metavar="front", help=f"{', '.join(names)}; all if none is named"
    )
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--share", type=float, default=1.0, help="share of each front's cases")
    words.add_argument("--only", type=int, help="the number of one case")
    words.add_argument("--start", type=int, default=0, help="the number of the first case")
    words.add_argument("--keep", help="a folder in which the files of failed cases are kept")
    words.add_argument("--json", help="a file to write the counts to")
    options = words.parse_args()
    if unknown := set(options.fronts) - set(names):
        words.error(f"there is no front {', '.join(sorted(unknown))}")
    if options.keep:
        Path(options.keep).mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    # What some cases let run is not to be let run by the user's own commands.
    state = tempfile.TemporaryDirectory(prefix="tcc-fuzz-state-")
    os.environ["XDG_STATE_HOME"] = state.name
    os.environ["TCC_CACHE_LIMIT"] = "0"  # each build is to be one
    for front in FRONTS:
        if not options.fronts or front.name in options.fronts:
            found.append(tried(front, options))
            shown = {key: value for key, value in found[-1].items() if key != "failures"}
            print(json.dumps(shown | {"failed": len(found[-1]["failures"])}), flush=True)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    return int(any(one["failures"] for one in found))


if __name__ == "__main__":
    sys.exit(main())
