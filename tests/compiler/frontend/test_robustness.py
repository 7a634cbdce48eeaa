"""Any file gives a graph or located diagnostics."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tcc.compiler.frontend.spec import load
from tcc.compiler.frontend.spec_tests import check_expectations
from tcc.compiler.support.diagnostics import Diagnostic, UserError

ROOT = Path(__file__).parents[3]
LINES = (ROOT / "spec" / "ddsnet.yaml").read_text().split("\n")
PIECES = st.sampled_from(
    [
        *"[]{}:,-'\"#&*!|>%@ \t\0é",
        *("-1", "0", "1e9", "null", "[]", "{}", "true", "9" * 20, ".nan"),
        *("conv", "relu", "repeat", "body", "as: x", "from: x", "C", "layers", "- []", "each: {}"),
    ]
)


def remove_line(lines: list[str], at: int, _: str) -> list[str]:
    return lines[:at] + lines[at + 1 :]


def repeat_line(lines: list[str], at: int, _: str) -> list[str]:
    return [*lines[:at], lines[at], *lines[at:]]


def indent_line(lines: list[str], at: int, _: str) -> list[str]:
    return [*lines[:at], "  " + lines[at], *lines[at + 1 :]]


def truncate_lines(lines: list[str], at: int, _: str) -> list[str]:
    return lines[:at]


def insert(lines: list[str], at: int, piece: str) -> list[str]:
    middle = len(lines[at]) // 2
    return [*lines[:at], lines[at][:middle] + piece + lines[at][middle:], *lines[at + 1 :]]


def replace_value(lines: list[str], at: int, piece: str) -> list[str]:
    head, colon, _ = lines[at].rpartition(":")
    return [*lines[:at], f"{head}{colon} {piece}", *lines[at + 1 :]]


CHANGES = st.sampled_from(
    [remove_line, repeat_line, indent_line, truncate_lines, insert, replace_value]
)


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.tuples(CHANGES, st.integers(0, 500), PIECES), min_size=1, max_size=3))
def test_a_damaged_spec_compiles_or_is_diagnosed(tmp_path: Path, changes: list[tuple]) -> None:  # type: ignore[type-arg]
    lines = LINES
    for change, at, piece in changes:
        lines = change(lines, at % len(lines), piece) or [""]
    path = tmp_path / "damaged.yaml"
    text = "\n".join(lines)
    path.write_text(text)
    for diagnostic in read_diagnostics(path):
        assert diagnostic.code.startswith("E")
        assert diagnostic.at.line <= text.count("\n") + 2 or diagnostic.at.file != str(path)


def read_diagnostics(path: Path) -> tuple[Diagnostic, ...]:
    try:
        check_expectations(load(path))
    except UserError as error:
        return error.diagnostics
    return ()
