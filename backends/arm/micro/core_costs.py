"""What kernels cost on each core: `kernel_costs.toml`, which `tools/search_kernels.py` measures.

A kernel's cost is the sum of its amounts, each times what one of it costs on the core. Whatever the
costs are counted in, they are only compared with each other.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from math import isfinite

from tcc.compiler.ir.types import Pair
from tcc.compiler.support.atomic_files import MachineError
from tcc.compiler.support.diagnostics import Diagnostic, Span, whole_file

FILE = "kernel_costs.toml"
UNITS = ("cycles", "instructions", "microseconds")
WINOGRAD = ("products", "runs", "pixels", "sums", "outputs", "weights", "bands")
PANELS = (
    *("products", "taps", "tiles", "blocks", "rests"),
    *("pieces", "copies", "near", "dealt", "singles", "borders"),
)
LEVEL_PANELS = (
    *("products", "taps", "tiles", "blocks", "rests"),
    *("rows", "near", "dealt", "borders"),
)
CHANNEL_PANELS = (
    *("products", "taps", "tiles", "blocks", "rests"),
    *("levels", "near", "dealt"),
)
PLANES = tuple(
    f"{what}_{side}x{side}_s{stride}"
    for side in (3, 5)
    for stride in (1, 2)
    for what in ("products", "rows", "planes")
)
LEVEL_PLANES = (
    *(f"windows_{what}" for what in ("products", "outputs", "read", "dealt", "rows", "planes")),
    *(f"{way}_{what}" for way in ("points", "halves") for what in ("outputs", "planes")),
)
LOOP = ("products", "steps", "outputs", "read")
OWN = ("depthwise", "gathered", "whole")
LEVEL_LOOPS = (
    *(f"{way}_{what}" for way in ("across", *OWN) for what in LOOP),
    *(f"{way}_dealt" for way in OWN),
)
LOOPS = tuple(f"{way}_{what}" for way in ("across", *OWN, "in_place") for what in LOOP)
AMOUNTS: Mapping[str, tuple[str, ...]] = {
    "winograd": WINOGRAD,
    "level_winograd": WINOGRAD,
    "float_matrix": PANELS,
    "float_depthwise": PLANES,
    "matrix": LEVEL_PANELS,
    "channel_matrix": CHANNEL_PANELS,
    "vector": ("products", "outputs"),
    "depthwise": LEVEL_PLANES,
    "loops": LOOPS,
    "level_loops": LEVEL_LOOPS,
}
"""What counts of each kernel; `schedule/kernel_candidates.py` says how much of it there is."""
LOOPS_OF = re.compile(r"(?P<kind>(?:level_)?loops)_(?P<rows>[1-9]\d?)x(?P<pixels>[1-9]\d?)")
"""Plain loops are named with their tile: filters by pixels."""

Costs = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CoreCosts:
    """What is known of one core: costs of kernels by their names, and in what these are counted.

    `tile` is the register tile of plain loops where no costs choose it: of filters by pixels.
    """

    counted: str
    tile: Pair
    kernels: Mapping[str, Costs]

    def tiles(self, loops: str) -> tuple[Pair, ...]:
        """Return the tiles of plain loops of a kind among which costs choose, `tile` first."""
        named = (LOOPS_OF.fullmatch(name) for name in self.kernels)
        found = {(int(n["rows"]), int(n["pixels"])) for n in named if n and n["kind"] == loops}
        return tuple(sorted(found, key=lambda tile: (tile != self.tile, tile)))

    def favouring(self, name: str) -> "CoreCosts":
        """Return the same where a kernel costs nothing: it computes whatever it can."""
        free = dict.fromkeys(AMOUNTS[kind(name)], 0.0)
        return replace(self, kernels={**self.kernels, name: free})


def of(core: str, target: str) -> CoreCosts:
    """Return the costs of one core.

    Args:
        core: Its name in the file.
        target: The target that is built for it, which the search of its costs takes.

    Raises:
        MachineError: The file has no such core, or is damaged (E0604).
    """
    costs = known()
    if core not in costs:
        raise missing(f"core {core!r}", target)
    return costs[core]


def missing(subject: str, target: str) -> MachineError:
    """Return the error of a core, or of one of its kernels, that nobody has measured yet."""
    message = f"{FILE} has no entry for {subject}"
    help = f"run `python tools/search_kernels.py search {target}`, which measures it"
    return MachineError(Diagnostic("E0604", message, whole_file(FILE), help=help))


@cache
def known() -> Mapping[str, CoreCosts]:
    """Return the costs of each core, by zig's name of it.

    Raises:
        MachineError: The file is damaged (E0604).
    """
    return read((files("tcc.backends.arm.micro") / FILE).read_text("utf-8"))


def read(text: str) -> Mapping[str, CoreCosts]:
    """Return what the file's text says; errors as above."""
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        raise _damaged(text, f"it is not TOML: {error}", int(line[1]) if line else 1) from None
    return {core: _core(text, core, given) for core, given in found.items()}


def kind(name: str) -> str:
    """Return what `AMOUNTS` calls a kernel."""
    loops = LOOPS_OF.fullmatch(name)
    return loops["kind"] if loops else name


def _core(text: str, core: str, given: object) -> CoreCosts:
    at = _line(text, rf"\[{re.escape(core)}\]")
    match given:
        case {"counted": str(counted), "tile": [int(rows), int(pixels)], **tables}:
            named = {str(name): table for name, table in tables.items()}
            made = CoreCosts(counted, (rows, pixels), dict(_kernels(text, core, named)))
        case _:
            raise _damaged(text, f"[{core}] has no `counted` and `tile`", at)
    if counted not in UNITS:
        raise _damaged(text, f"[{core}] is counted in `{counted}`, none of {', '.join(UNITS)}", at)
    if not (made.tiles("loops") and made.tiles("level_loops")):
        raise _damaged(text, f"[{core}] has no costs of plain loops", at)
    return made


def _kernels(text: str, core: str, tables: Mapping[str, object]) -> Iterator[tuple[str, Costs]]:
    for name, table in tables.items():
        at = _line(text, rf"\[{re.escape(core)}\.{re.escape(name)}\]")
        if kind(name) not in AMOUNTS:
            raise _damaged(text, f"there is no kernel `{name}`", at)
        if not isinstance(table, dict) or table.keys() != set(AMOUNTS[kind(name)]):
            wanted = ", ".join(AMOUNTS[kind(name)])
            raise _damaged(text, f"the costs of a kernel `{name}` are {wanted}", at)
        for key, cost in table.items():
            if type(cost) not in (int, float) or not isfinite(cost) or cost < 0:
                raise _damaged(text, f"the cost of `{key}` is no number from 0 on", at)
        if not any(table.values()):
            raise _damaged(text, f"a kernel `{name}` costs nothing", at)
        yield name, {key: float(cost) for key, cost in table.items()}


def _line(text: str, header: str) -> int:
    """Return the number of the line that a table begins in."""
    numbered = enumerate(text.splitlines(), 1)
    return next((n for n, line in numbered if re.fullmatch(header, line.strip())), 1)


def _damaged(text: str, what: str, line: int) -> MachineError:
    lines = [*text.splitlines(), ""]
    at = Span(FILE, line, 1, lines[min(line, len(lines)) - 1])
    message = f"the costs by which kernels are chosen are damaged: {what}"
    help = "undo what was changed in this file, or install tcc again"
    return MachineError(Diagnostic("E0604", message, at, help=help))
