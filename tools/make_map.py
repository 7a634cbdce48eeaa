"""Draw docs/pictures/map.svg: the packages of tcc and their imports.

    python tools/make_map.py [--check]

With `--check`, write nothing and fail if the file is out of date. Packages and arrows come from the
import graph, descriptions from the packages' docstrings. Arrows that other arrows imply are
omitted. Every arrow points down; an import cycle is an error.
"""

import ast
import sys
from collections.abc import Iterable, Mapping
from html import escape
from itertools import pairwise
from pathlib import Path
from textwrap import wrap

import grimp
import networkx as nx
from generated import write_or_check

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "docs" / "pictures" / "map.svg"
WIDTH, HEIGHT, ACROSS, DOWN, MARGIN = 190, 62, 16, 34, 16
"""Of a package's box, of the gaps between boxes, and of the border, in pixels."""
LANE = 12
"""The width of an arrow that passes a row, in pixels."""
CHARACTERS = 33
"""The maximum length of a line below a package's name."""
SWEEPS = 24
"""The number of passes that sort the rows by the positions of their neighbours."""
STYLE = """\
text{font-family:Helvetica,Arial,'DejaVu Sans',sans-serif;font-size:10px;fill:#24292f}
.t{font-size:12px;font-weight:bold}rect{fill:#ddf4ff;stroke:#54aeff}
.backends{fill:#dafbe1;stroke:#4ac26b}path{fill:none;stroke:#6e7781;stroke-width:1.2}"""

PackageRows = list[list[str]]
"""Rows of packages from top to bottom; `from>to` is an arrow that passes the row."""


def build_package_graph() -> "nx.DiGraph[str]":
    """Return the packages, such as `compiler/ir`, with an edge to each imported package.

    Raises:
        networkx.NetworkXUnfeasible: Packages import each other.
    """
    imports = grimp.build_graph("tcc")
    package_graph: nx.DiGraph[str] = nx.DiGraph()
    for module in sorted(imports.modules):
        package = find_package(module)
        imported_packages = {
            find_package(name) for name in imports.find_modules_directly_imported_by(module)
        }
        package_graph.add_edges_from(
            (package, imported_package)
            for imported_package in imported_packages
            if package and imported_package != package and imported_package
        )
    list(nx.topological_sort(package_graph))
    return package_graph


def find_package(module: str) -> str | None:
    """Return the package of a module, or None for a module outside the packages."""
    path_parts = module.split(".")[1:3]
    folder = ROOT.joinpath(*path_parts)
    return "/".join(path_parts) if len(path_parts) == 2 and folder.is_dir() else None


def arrange_rows(graph: "nx.DiGraph[str]") -> PackageRows:
    """Return the rows, each package below its importers, ordered to have few crossings."""
    depth = dict.fromkeys(graph, 0)
    for name in nx.topological_sort(graph):
        for below in graph.successors(name):
            depth[below] = max(depth[below], depth[name] + 1)
    package_rows: PackageRows = [[] for _ in range(max(depth.values()) + 1)]
    for name in sorted(graph):
        package_rows[depth[name]].append(name)
    for a, b in sorted(graph.edges):
        for level in range(depth[a] + 1, depth[b]):
            package_rows[level].append(f"{a}>{b}")
    segments = [
        points for edge in sorted(graph.edges) for points in pairwise(_list_waypoints(edge, depth))
    ]
    for sweep in range(SWEEPS):
        _sort_rows(package_rows, segments, down=sweep % 2 == 0)
    return package_rows


def _list_waypoints(edge: tuple[str, str], depth: Mapping[str, int]) -> list[str]:
    """Return the nodes that an arrow passes, from its first package to its last."""
    a, b = edge
    return [a, *[f"{a}>{b}"] * (depth[b] - depth[a] - 1), b]


def _sort_rows(
    package_rows: PackageRows, segments: Iterable[tuple[str, str]], *, down: bool
) -> None:
    """Sort each row by the mean position of its neighbours in the previous row."""
    pairs = list(segments)
    for fixed_row, row in pairwise(package_rows if down else package_rows[::-1]):
        positions = {name: index / len(fixed_row) for index, name in enumerate(fixed_row)}
        neighbour_positions: dict[str, list[float]] = {name: [] for name in row}
        for a, b in pairs:
            upper, lower = (a, b) if down else (b, a)
            if lower in neighbour_positions and upper in positions:
                neighbour_positions[lower].append(positions[upper])
        row.sort(
            key=lambda name: (
                sum(neighbour_positions[name]) / len(neighbour_positions[name])
                if neighbour_positions[name]
                else 0.5
            )
        )


def draw_map(graph: "nx.DiGraph[str]") -> str:
    """Return the diagram as the text of an SVG file."""
    levels = arrange_rows(graph)
    lengths = [sum(_get_width(name) + ACROSS for name in row) - ACROSS for row in levels]
    width, height = max(lengths) + 2 * MARGIN, len(levels) * (HEIGHT + DOWN) - DOWN + 2 * MARGIN
    centres: dict[tuple[str, int], tuple[int, int]] = {}
    for level, row in enumerate(levels):
        x = (width - lengths[level]) // 2
        for name in row:
            centres[name, level] = (x + _get_width(name) // 2, MARGIN + level * (HEIGHT + DOWN))
            x += _get_width(name) + ACROSS
    boxes = [_draw_box(name, x, y) for (name, _), (x, y) in centres.items() if ">" not in name]
    return "\n".join(
        [
            "<!-- tools/make_map.py -->",
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}">',
            "<title>The packages of tcc: an arrow points to an imported package</title>",
            f"<style>\n{STYLE}\n</style>",
            '<marker id="a" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" markerHeight="6"'
            ' orient="auto"><path d="M0 0L6 3L0 6z" style="fill:#6e7781;stroke:none"/></marker>',
            f'<rect width="{width}" height="{height}" style="fill:#fff;stroke:none"/>',
            *(_draw_arrow(edge, centres) for edge in sorted(graph.edges)),
            *boxes,
            "</svg>\n",
        ]
    )


def _get_width(name: str) -> int:
    return LANE if ">" in name else WIDTH


def _draw_arrow(edge: tuple[str, str], centres: Mapping[tuple[str, int], tuple[int, int]]) -> str:
    """Return a line from the bottom of one box, past the rows between, to the top of another."""
    a, b = edge
    passed = sorted((y, x) for (name, _), (x, y) in centres.items() if name == f"{a}>{b}")
    (start,) = (at for (name, _), at in centres.items() if name == a)
    (end,) = (at for (name, _), at in centres.items() if name == b)
    x, y = start[0], start[1] + HEIGHT
    steps = [f"M{x} {y}"]
    for top, lane in passed:
        steps += [_draw_curve(x, y, lane, top), f"L{lane} {top + HEIGHT}"]
        x, y = lane, top + HEIGHT
    return f'<path d="{"".join((*steps, _draw_curve(x, y, *end)))}" marker-end="url(#a)"/>'


def _draw_curve(x: int, y: int, to_x: int, to_y: int) -> str:
    middle = (y + to_y) // 2
    return f"C{x} {middle} {to_x} {middle} {to_x} {to_y}"


def _draw_box(name: str, x: int, y: int) -> str:
    box_left, kind = x - WIDTH // 2, name.partition("/")[0]
    lines = wrap(read_summary(name), CHARACTERS)[:3]
    texts = [f'<text class="t" x="{box_left + 8}" y="{y + 16}">{name}</text>']
    texts += [
        f'<text x="{box_left + 8}" y="{y + 31 + 12 * n}">{escape(line)}</text>'
        for n, line in enumerate(lines)
    ]
    rectangle = (
        f'<rect class="{kind}" x="{box_left}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
    )
    return "\n".join((rectangle, *texts))


def read_summary(name: str) -> str:
    """Return the first sentence of a package's docstring."""
    package_path = ROOT / name
    path = (
        package_path / "__init__.py" if package_path.is_dir() else package_path.with_suffix(".py")
    )
    summary_text = " ".join(
        (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split()
    )
    return summary_text.partition(". ")[0].rstrip(".").replace("`", "")


def main() -> int:
    """Write or check the diagram; return the exit code."""
    return write_or_check({PATH: draw_map(nx.transitive_reduction(build_package_graph()))})


if __name__ == "__main__":
    sys.exit(main())
