"""The costs of kernels on each core, from `kernel_costs.toml` (`tools/search_kernels.py` measures).

A kernel's cost is the sum of its amounts (products, taps, ...), each times its unit cost on the
core. The unit of the costs does not matter: they are only compared with each other.
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
from tcc.compiler.support.diagnostics import Diagnostic, Span, make_file_span

COSTS_FILE = "kernel_costs.toml"
COST_UNITS = ("cycles", "instructions", "microseconds")
WINOGRAD = ("products", "runs", "pixels", "sums", "outputs", "weights", "bands")
PANELS = (
    *("products", "taps", "tiles", "blocks", "rests"),
    *("pieces", "copies", "near", "dealt", "singles", "borders"),
)
QUANTIZED_PANELS = (
    *("products", "taps", "tiles", "blocks", "rests"),
    *("rows", "near", "dealt", "borders"),
)
CHANNEL_PANELS = (
    *("products", "taps", "tiles", "blocks", "rests"),
    *("levels", "near", "dealt"),
)
PLANES = tuple(
    f"{unit}_{side}x{side}_s{stride}"
    for side in (3, 5)
    for stride in (1, 2)
    for unit in ("products", "rows", "planes")
)
QUANTIZED_PLANES = (
    *(f"windows_{unit}" for unit in ("products", "outputs", "read", "dealt", "rows", "planes")),
    *(f"{method}_{unit}" for method in ("points", "halves") for unit in ("outputs", "planes")),
)
LOOP = ("products", "steps", "outputs", "read")
STRIDED_METHODS = ("depthwise", "gathered", "whole")
QUANTIZED_LOOPS = (
    *(f"{method}_{unit}" for method in ("across", *STRIDED_METHODS) for unit in LOOP),
    *(f"{method}_dealt" for method in STRIDED_METHODS),
)
LOOPS = tuple(
    f"{method}_{unit}" for method in ("across", *STRIDED_METHODS, "in_place") for unit in LOOP
)
AMOUNTS: Mapping[str, tuple[str, ...]] = {
    "winograd": WINOGRAD,
    "level_winograd": WINOGRAD,
    "float_matrix": PANELS,
    "float_depthwise": PLANES,
    "matrix": QUANTIZED_PANELS,
    "channel_matrix": CHANNEL_PANELS,
    "vector": ("products", "outputs"),
    "depthwise": QUANTIZED_PLANES,
    "loops": LOOPS,
    "level_loops": QUANTIZED_LOOPS,
}
"""The amounts of each kernel that have a cost; `schedule/kernel_candidates.py` counts them."""
LOOP_NAME = re.compile(r"(?P<kind>(?:level_)?loops)_(?P<rows>[1-9]\d?)x(?P<pixels>[1-9]\d?)")
"""Names of plain loops include their tile: filters by pixels."""

Costs = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class CoreCosts:
    """The measured costs of one core: unit costs of kernels by name, and their unit.

    `tile` is the default register tile of plain loops: filters by pixels.
    """

    unit: str
    tile: Pair
    kernels: Mapping[str, Costs]

    def list_tiles(self, loops: str) -> tuple[Pair, ...]:
        """Return the tiles of plain loops that have costs, with `tile` first."""
        name_matches = (LOOP_NAME.fullmatch(name) for name in self.kernels)
        tiles = {
            (int(n["rows"]), int(n["pixels"])) for n in name_matches if n and n["kind"] == loops
        }
        return tuple(sorted(tiles, key=lambda tile: (tile != self.tile, tile)))

    def clear_kernel_cost(self, name: str) -> "CoreCosts":
        """Return costs in which one kernel costs nothing, so that it is always chosen."""
        zero_costs = dict.fromkeys(AMOUNTS[get_kind(name)], 0.0)
        return replace(self, kernels={**self.kernels, name: zero_costs})


def get_core_costs(core: str, target: str) -> CoreCosts:
    """Return the costs of one core.

    Args:
        core: The core's name in the file.
        target: The target of this core, for the error's help.

    Raises:
        MachineError: The file has no such core, or is damaged (E0604).
    """
    costs = load_costs()
    if core not in costs:
        raise create_missing_error(f"core {core!r}", target)
    return costs[core]


def create_missing_error(subject: str, target: str) -> MachineError:
    """Return the error of a core, or of a kernel on it, without measured costs."""
    message = f"{COSTS_FILE} has no entry for {subject}"
    help = f"measure it with `python tools/search_kernels.py search {target}`"
    return MachineError(Diagnostic("E0604", message, make_file_span(COSTS_FILE), help=help))


@cache
def load_costs() -> Mapping[str, CoreCosts]:
    """Return the costs of each core, by zig's name of the core.

    Raises:
        MachineError: The file is damaged (E0604).
    """
    return parse_costs((files("tcc.backends.arm.micro") / COSTS_FILE).read_text("utf-8"))


def parse_costs(text: str) -> Mapping[str, CoreCosts]:
    """Return the costs of each core from the file's text; errors as for `load_costs`."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"line (\d+)", str(error))
        raise _create_damaged_error(
            text, f"it is not TOML: {error}", int(line[1]) if line else 1
        ) from None
    return {core: _parse_core(text, core, table) for core, table in tables.items()}


def get_kind(name: str) -> str:
    """Return the key of a kernel in `AMOUNTS`."""
    loops = LOOP_NAME.fullmatch(name)
    return loops["kind"] if loops else name


def _parse_core(text: str, core: str, core_table: object) -> CoreCosts:
    at = _find_line(text, rf"\[{re.escape(core)}\]")
    match core_table:
        case {"counted": str(unit), "tile": [int(rows), int(pixels)], **tables}:
            kernel_tables = {str(name): table for name, table in tables.items()}
            core_costs = CoreCosts(
                unit, (rows, pixels), dict(_parse_kernels(text, core, kernel_tables))
            )
        case _:
            raise _create_damaged_error(text, f"[{core}] has no `counted` and `tile`", at)
    if unit not in COST_UNITS:
        raise _create_damaged_error(
            text, f"[{core}] has `counted = {unit!r}`; use one of {', '.join(COST_UNITS)}", at
        )
    if not (core_costs.list_tiles("loops") and core_costs.list_tiles("level_loops")):
        raise _create_damaged_error(text, f"[{core}] has no costs of plain loops", at)
    return core_costs


def _parse_kernels(
    text: str, core: str, tables: Mapping[str, object]
) -> Iterator[tuple[str, Costs]]:
    for name, table in tables.items():
        at = _find_line(text, rf"\[{re.escape(core)}\.{re.escape(name)}\]")
        if get_kind(name) not in AMOUNTS:
            raise _create_damaged_error(text, f"`{name}` is not a known kernel", at)
        if not isinstance(table, dict) or table.keys() != set(AMOUNTS[get_kind(name)]):
            unit_names = ", ".join(AMOUNTS[get_kind(name)])
            raise _create_damaged_error(
                text, f"kernel `{name}` must have exactly the costs {unit_names}", at
            )
        for key, cost in table.items():
            if type(cost) not in (int, float) or not isfinite(cost) or cost < 0:
                raise _create_damaged_error(text, f"the cost of `{key}` must be 0 or more", at)
        if not any(table.values()):
            raise _create_damaged_error(text, f"all costs of kernel `{name}` are 0", at)
        yield name, {key: float(cost) for key, cost in table.items()}


def _find_line(text: str, header: str) -> int:
    """Return the line number of a table's header."""
    numbered = enumerate(text.splitlines(), 1)
    return next((n for n, line in numbered if re.fullmatch(header, line.strip())), 1)


def _create_damaged_error(text: str, problem: str, line: int) -> MachineError:
    lines = [*text.splitlines(), ""]
    at = Span(COSTS_FILE, line, 1, lines[min(line, len(lines)) - 1])
    message = f"{COSTS_FILE} is damaged: {problem}"
    help = "undo the changes to this file, or reinstall tcc"
    return MachineError(Diagnostic("E0604", message, at, help=help))
