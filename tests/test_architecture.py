"""What holds for the source as a whole: layers, sizes, what starts fast, what text may say."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted(
    path
    for folder in ("compiler", "backends", "tools", "src/tcc")
    for path in (ROOT / folder).rglob("*.py")
)
LONGEST_FILE = 300
LONGEST_FUNCTION = 40
HEAVY = {
    "PIL", "jsonschema", "networkx", "numpy", "onnx", "onnxruntime", "ruamel", "safetensors",
    "torch", "tvm",
}  # fmt: skip


def test_the_layers_hold():
    """The contracts are in pyproject.toml, under `tool.importlinter`."""
    linter = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run(
        [linter, "--no-cache"], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


def named(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", CODE, ids=named)
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) < LONGEST_FILE
    functions = (
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    # of code: a command's options are its parameters, one a line, and what is public says more
    long = {f.name: f.end_lineno - (f.body[1:] or f.body)[0].lineno + 1 for f in functions}
    assert {name: lines for name, lines in long.items() if lines >= LONGEST_FUNCTION} == {}


def test_help_loads_no_heavy_library():
    """What makes a process slow to start is imported by the command that needs it."""
    program = (
        "import sys, tcc.compiler.cli\n"
        "try: tcc.compiler.cli.app(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert HEAVY & set(found.stderr.split()) == set()


def tracked():
    """The text files that a clone holds."""
    listed = subprocess.run(["git", "ls-files", "-z"], check=False, cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    for name in listed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and not path.is_symlink() and path.suffix != ".png":
            yield path


def test_no_text_names_one_machine():
    """No home folder, drive or package host: the project builds anywhere."""
    machine = re.compile(
        r"(?<![\w.*-])/(home|root|work|Users|mnt)/\w|\b[A-Z]:\\\\|\bpypi\.org|pythonhosted"
    )
    this = Path(__file__)
    found = [
        f"{named(path)}: {line.strip()}"
        for path in tracked()
        if path != this
        for line in path.read_text().splitlines()
        if machine.search(line)
    ]
    assert found == []


def test_temporary_files_have_one_place():
    """What is made elsewhere, nobody sweeps when the process is killed."""
    found = [named(path) for path in CODE if re.search(r"\btempfile\b", path.read_text())]
    assert [name for name in found if not name.startswith(("tools/", "tests/"))] == [
        "compiler/support/scratch_folders.py"
    ]


def test_no_work_is_left_marked():
    marks = re.compile(r"\b(TODO|FIXME|XXX|raise NotImplementedError)\b")
    found = [named(p) for p in CODE if marks.search(p.read_text())]
    assert found == []
