"""Run concurrent writers and readers of one folder in every order of a few context switches.

    python tools/interleave.py                every case: all orders of two switches, with kills
    python tools/interleave.py --only 2,17,9  one order of all cases, to debug it
    python tools/interleave.py --random 2000  so many random orders of up to six switches

In every order, all actors that are not killed succeed. The old files stay until the new ones are
complete. The next run leaves only what it wrote.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random

from actors import Actor, patch_calls, run_in_order

from tcc.compiler.support import atomic_files

TREES = ({"manifest": b"first", "a/x": b"1"}, {"manifest": b"second", "y": b"22"})
OLD = {"manifest": b"old", "z": b"0"}


def read_tree(folder: Path) -> dict[str, bytes]:
    """Return the contents of a folder's files by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def check_tree(folder: Path) -> str | None:
    """Return why a folder is not one of the known trees, or None; used as a bundle check."""
    files = read_tree(folder)
    return None if files in (*TREES, OLD) else f"unexpected files: {sorted(files)}"


def _make_writer(base: Path, number: int) -> Callable[[], None]:
    def write() -> None:
        atomic_files.check_folder(base / "b", check_tree)
        atomic_files.write_tree(base / "b", TREES[number], frozenset(), check_tree)

    return write


def _make_file_writer(base: Path, number: int) -> Callable[[], None]:
    return lambda: atomic_files.write_file(base / "f", b"%d" % number)


def _make_scratch_user(base: Path, _: int) -> Callable[[], None]:
    def use() -> None:
        with atomic_files.create_scratch_folder() as folder:
            if not folder.is_relative_to(base):
                raise AssertionError(folder)
            (folder / "x").write_bytes(b"1")
            if (folder / "x").read_bytes() != b"1":
                raise AssertionError("another actor changed the scratch folder")

    return use


@dataclass(frozen=True)
class Play:
    """A test case of two actors: the initial files, and what must be true during and after it."""

    name: str
    actor: Callable[[Path, int], Callable[[], None]]
    has_existing: bool
    kills: bool
    expected_names: frozenset[str]


PLAYS = (
    Play("two writers of a new folder", _make_writer, False, False, frozenset({"b"})),
    Play("two writers of an existing folder", _make_writer, True, False, frozenset({"b"})),
    Play("two writers, the first killed", _make_writer, True, True, frozenset({"b"})),
    Play("two writers of a file", _make_file_writer, False, True, frozenset({"f"})),
    Play("two scratch folders", _make_scratch_user, False, True, frozenset()),
)


def run_order(play: Play, switches: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """Run one order; return the violation, if any, and the number of stops of each actor."""
    memory_folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    base = Path(tempfile.mkdtemp(dir=memory_folder))
    previous_tempdir, tempfile.tempdir = tempfile.tempdir, str(base)
    try:
        if play.has_existing:
            atomic_files.write_tree(base / "b", OLD, frozenset())
        actors = [Actor(play.actor(base, number)) for number in (0, 1)]
        with patch_calls(base) as close_file:
            run_in_order(actors, switches, close_file)
        wrong = _find_violation(play, actors, base)
        return wrong, tuple(actor.stops for actor in actors)
    finally:
        tempfile.tempdir = previous_tempdir
        shutil.rmtree(base)


def _find_violation(play: Play, actors: Sequence[Actor], base: Path) -> str:
    for number, actor in enumerate(actors):
        if actor.error:
            return f"actor {number}: {actor.error!r}"
    if (
        play.has_existing
        and not any(actor.killed for actor in actors)
        and read_tree(base / "b") == OLD
    ):
        return "nothing was written"
    if (base / "b").exists() and (reason := check_tree(base / "b")):
        return reason
    play.actor(base, 1)()  # the next run
    remaining = {path.name for path in base.iterdir()}
    if remaining != play.expected_names:
        return f"left: {sorted(remaining)}"
    return (check_tree(base / "b") or "") if "b" in remaining else ""


def list_orders(play: Play) -> Iterator[tuple[int, ...]]:
    """Yield every order of two switches, and for plays with a kill, every place of the kill."""
    _, (first_stops, second_stops) = run_order(play, ())
    for a, b in product(range(first_stops + 1), range(second_stops + 6)):
        yield (a, b)
        if play.kills:
            yield (-a - 1, b)
            yield (a, b, -1)


def sample_orders(play: Play, count: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Yield random orders of up to six switches."""
    numbers = Random(f"{play.name} {seed}")
    for _ in range(count):
        order = [numbers.randint(0, 12) for _ in range(numbers.randint(2, 6))]
        if play.kills and numbers.random() < 0.5:
            order[-1] = -order[-1] - 1
        yield tuple(order)


def main() -> int:
    """Run the orders that the command line selects."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--random", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, help="run only one in so many orders")
    parser.add_argument("--only", help="step counts, separated by commas")
    options = parser.parse_args()
    failed = 0
    for play in PLAYS:
        selected_orders: Iterator[tuple[int, ...]] = list_orders(play)
        if options.only:
            selected_orders = iter([tuple(map(int, options.only.split(",")))])
        elif options.random:
            selected_orders = sample_orders(play, options.random, options.seed)
        count = wrong = 0
        for number, order in enumerate(selected_orders):
            if number % options.every:
                continue
            count += 1
            if reason := run_order(play, order)[0]:
                wrong += 1
                if wrong <= 5:
                    print(f"{play.name}: --only={','.join(map(str, order))}: {reason}")
        failed += wrong
        print(f"{play.name}: {count} orders, {wrong} failed", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
