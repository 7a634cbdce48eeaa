"""The table of error codes: every code has an entry, and its example produces the code."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
from error_examples import PREPARE, write_images
from typer.testing import CliRunner

from tcc.compiler.frontend.warnings.warning_kinds import WARNING_KINDS
from tcc.compiler.support import error_codes

ROOT = Path(__file__).resolve().parents[3]
CODE = re.compile(r"[EW]\d{4}")
TCC_COMMAND = re.compile(r"((?:\w+=\w+ )*)tcc (.*)")
"""A `tcc` command after environment variables."""
ENTRIES = error_codes.load_error_codes()
ENTRIES_WITH_EXAMPLE = {
    code: entry for code, entry in ENTRIES.items() if entry.spec or entry.command
}
EXTRAS = {
    "E0906": "onnx_graphsurgeon", "E0910": "onnxsim", "E0911": "onnxsim",
    **{f"E{code}": "openslide" for code in range(1300, 1310)},
}  # fmt: skip
"""Packages that an example needs in addition to the base installation."""


def collect_used_codes():
    """Collect the codes in string constants of the source, outside docstrings."""
    for folder in ("compiler", "backends", "tools", "src/tcc"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and CODE.fullmatch(str(node.value)):
                    yield node.value


def test_codes_and_entries_match():
    assert set(ENTRIES) == set(collect_used_codes())


def test_entries_are_sorted_and_complete_sentences():
    codes = sorted(ENTRIES, key=lambda code: (code[0], int(code[1:])))
    assert list(ENTRIES) == codes
    for entry in ENTRIES.values():
        for text in (entry.what, entry.why, entry.remedy, entry.text):
            assert text == text.strip()
            assert not text or text.endswith((".", ".)")), text
        assert entry.what.count(". ") == 0
        assert entry.spec or entry.command or entry.text, entry.code


def test_every_spec_warning_has_an_entry():
    assert {kind.code for kind in WARNING_KINDS} == {c for c in ENTRIES if c.startswith("W05")}


def test_most_entries_have_a_runnable_example():
    """Other entries need another machine, little memory or disk, or a forged bundle. They have a
    text.
    """
    assert len(ENTRIES_WITH_EXAMPLE) >= 0.84 * len(ENTRIES)


# every fourth runs at each change, all of them with `make test-all`
@pytest.mark.parametrize(
    "code",
    [
        pytest.param(code, marks=() if number % 4 == 0 else pytest.mark.slow)
        for number, code in enumerate(ENTRIES_WITH_EXAMPLE)
    ],
)
def test_example_produces_its_code(code, tmp_path, monkeypatch):
    if code in EXTRAS:
        pytest.importorskip(EXTRAS[code])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    entry = ENTRIES[code]
    (tmp_path / "net.yaml").write_text(error_codes.complete_spec(entry.spec))
    write_images(tmp_path)
    PREPARE.get(code, lambda _: None)(tmp_path)
    *setup_lines, final_line = (entry.command or "tcc check net.yaml").splitlines()
    for line in setup_lines:
        completed = run(line)
        assert completed is None or completed.exit_code == 0, f"$ {line}\n{completed.stderr}"
    completed = run(final_line)
    printed = re.findall(r"^(error|warning|note)\[(\w+)\]", completed.stderr, re.MULTILINE)
    (kind,) = {kind for kind, printed_code in printed if printed_code == code}
    warns = kind != "error"
    assert warns or code[0] == "E", completed.stderr
    assert {printed_code for kind, printed_code in printed if kind == "error"} <= {code}, (
        completed.stderr
    )
    assert completed.exit_code in ({0} if warns else {1, 2, 4}), completed.stderr


def run(line):
    """Run a line in the working folder: a `tcc` command in this process, another line in a shell."""
    from tcc.compiler.cli import app

    if matched_line := TCC_COMMAND.fullmatch(line):
        variables, arguments = matched_line.groups()
        return CliRunner().invoke(
            app, arguments.split(), env=dict(e.split("=") for e in variables.split())
        )
    subprocess.run(["bash", "-euo", "pipefail", "-c", line], check=True)
    return None


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("E0607", "E0607"), ("e0607", "E0607"), ("607", "E0607"), ("0607", "E0607"),
        ("[E0607]", "E0607"), ("501", "E0501"), ("w501", "W0501"), ("W0542", "W0542"),
        ("542", "W0542"), ("E9999", None), ("conv", None), ("", None), ("E", None),
        ("٦٠٧", None), ("E06070", None),
    ],
)  # fmt: skip
def test_spellings_of_a_code_are_found(query, code):
    assert error_codes.find_code(query, ENTRIES) == code
