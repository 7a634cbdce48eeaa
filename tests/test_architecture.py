"""Rules for the complete source: import layers, start-up time, forbidden text."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = sorted(
    path
    for files in ("compiler/**/*.py", "backends/**/*.py", "tools/**/*.py", "src/tcc/*.py")
    for path in ROOT.glob(files)
)
MAX_PARAMETERS = 7
TRIED_ELSEWHERE = {"compiler/driver", "compiler/report", "compiler/targets"}  # used by the commands
OPTIONS = ("compiler/cli/", "src/tcc/")  # parameters are the user's options
SHARED_NAMES = {("tcc.backends.arm.kernels.loops.tir", "Buffer")}  # a term of TVM
HEAVY = {
    "PIL", "matplotlib", "networkx", "numpy", "onnx", "onnxruntime", "openslide", "pydantic", "ruamel", "safetensors",
    "scipy", "sklearn", "tifffile", "torch", "tvm",
}  # fmt: skip


def test_import_layers_are_kept():
    """The contracts are in pyproject.toml, under `tool.importlinter`."""
    program = "from importlinter.cli import lint_imports_command as lint; lint()"
    completed = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        check=False, cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stdout + completed.stderr


def list_modules():
    """Return the files of the package by module name."""
    paths = {"tcc": ROOT / "src/tcc/__init__.py"}
    for path in CODE:
        relative_path = path.relative_to(ROOT)
        if relative_path.parts[0] in ("compiler", "backends"):
            parts = [part for part in relative_path.with_suffix("").parts if part != "__init__"]
            paths[".".join(("tcc", *parts))] = path
    return paths


def list_packages(module):
    parts = module.split(".")
    return {".".join(parts[:length]) for length in range(1, len(parts))}


def find_imports(module, tree, modules):
    """Return the package modules that a module imports, also in functions and for types.

    `from a import b` imports `a.b` if that is a module, otherwise `a`, which may be a package. A
    member that takes names from its package's `__init__` is in a cycle if the package imports from
    it. An import of `a.b` also runs `a`. That counts for all modules outside `a`.
    """
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported_names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else node.module for name in imported_names]
        for name in names:
            if name in modules:
                yield name
                yield from (list_packages(name) & modules.keys()) - list_packages(module) - {module}


def find_circles(edges):
    """Return the groups of modules that reach each other, each sorted by name."""
    graph = networkx.DiGraph(
        (module, imported_module)
        for module, imports in edges.items()
        for imported_module in imports
    )
    components = [sorted(group) for group in networkx.strongly_connected_components(graph)]
    return sorted(group for group in components if len(group) > 1 or graph.has_edge(*group * 2))


def test_no_files_import_each_other():
    """Includes imports in functions and for types: each file can be read after its imports."""
    paths = list_modules()
    edges = {
        module: set(find_imports(module, parse_file(path), paths)) for module, path in paths.items()
    }
    assert find_circles(edges) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a": "from p import b", "p.b": "def f():\n  import a"}, [["a", "p.b"]]),
        ({"a": "import p.b", "p": "import a", "p.b": ""}, [["a", "p"]]),
        ({"p": "from p.b import x", "p.b": "from p import y"}, [["p", "p.b"]]),
        ({"p": "from p.b import x", "p.b": "from p import c", "p.c": ""}, []),
        ({"a": "if TYPE_CHECKING:\n  from b import B", "b": "from a import A"}, [["a", "b"]]),
        ({"a": "from b import x", "b": "from c import x", "c": ""}, []),
    ],
)
def test_find_circles_finds_import_cycles(files, expected):
    edges = {name: set(find_imports(name, ast.parse(text), files)) for name, text in files.items()}
    assert find_circles(edges) == expected


def test_test_folders_mirror_the_packages():
    """A test folder has the name of a code folder, and every package has tests."""
    for top in ("compiler", "backends"):
        code = {path.parent.relative_to(ROOT) for path in (ROOT / top).rglob("*.py")}
        tests = {
            path.parent.relative_to(ROOT / "tests")
            for path in (ROOT / "tests" / top).rglob("test_*.py")
        }
        assert tests - code == set()
        rooms = {str(path) for path in code if path.parent == Path(top)} - TRIED_ELSEWHERE
        assert rooms - {str(Path(*path.parts[:2])) for path in tests} == set()


def test_functions_take_few_parameters():
    """Many parameters belong in a record. Options of commands are exempt."""
    excess_counts = {}
    for name, function in list_functions():
        signature = function.args
        parameters = {
            a.arg for a in (*signature.posonlyargs, *signature.args, *signature.kwonlyargs)
        }
        count = len(parameters - {"self", "cls"})
        if count > MAX_PARAMETERS and not name.startswith(OPTIONS):
            excess_counts[f"{name}: {function.name}"] = count
    assert excess_counts == {}


def list_types(tree):
    """Return the classes of a module and its type aliases, such as `Shape = tuple[int, ...]`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield node.name, True
    for node in tree.body:
        names = node.targets if isinstance(node, ast.Assign) else []
        simple_names = (name.id for name in names if isinstance(name, ast.Name))
        yield from (
            (name, False) for name in simple_names if name[0].isupper() and not name.isupper()
        )


def test_class_names_are_unique():
    """No other file has a class or type alias of that name, except for command options.

    Names with `_` are private. An alias may exist twice if both mean the same, such as `Array`.
    """
    classes = {}
    for module, path in list_modules().items():
        for name, is_class in list_types(parse_file(path)):
            alias_of_option = not is_class and module.startswith("tcc.compiler.cli.")
            if not (name.startswith("_") or alias_of_option or (module, name) in SHARED_NAMES):
                classes.setdefault(name, []).append((module, is_class))
    shared = {
        name: [m for m, _ in definitions]
        for name, definitions in classes.items()
        if len(definitions) > 1
    }
    assert {n: m for n, m in shared.items() if any(c for _, c in classes[n])} == {}


def format_path(path):
    return str(path.relative_to(ROOT))


@functools.cache
def parse_file(path):
    return ast.parse(path.read_text())


def list_functions():
    """Return each function with its file name."""
    for path in CODE:
        for node in ast.walk(parse_file(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield format_path(path), node


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["--help"], set()),
        (["help", "E0607"], set()),
        (["check", "ddsnet", "-q"], {"ruamel"}),
        (["check", "ddsnet", "--set", "growth=16", "-q"], {"ruamel"}),
    ],
    ids=str,
)
def test_commands_load_no_heavy_library_that_they_do_not_need(arguments, needed):
    """Slow imports belong in the command that needs them."""
    loaded_libraries = {name.partition(".")[0] for name in list_loaded_modules(*arguments)}
    assert HEAVY & loaded_libraries == needed


def test_only_figures_load_plotting_libraries(tmp_path):
    def find_drawing_modules(*arguments):
        modules = list_loaded_modules("show", "squeezenet", *arguments)
        return {m.rpartition(".")[2] for m in modules if m.startswith("tcc.compiler.figures.")}

    assert (
        find_drawing_modules()
        == find_drawing_modules("--format", "onnx", "-o", str(tmp_path / "net.onnx"))
        == set()
    )
    svg = find_drawing_modules("--format", "svg")
    assert "svg" in svg
    assert "export" not in svg
    assert "export" in find_drawing_modules("--format", "pdf", "-o", str(tmp_path / "net.pdf"))


def list_loaded_modules(*arguments):
    """Return the modules that a command has loaded when it ends."""
    program = (
        "import sys, tcc.compiler.cli\n"
        f"try: tcc.compiler.cli.app({list(arguments)})\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(completed.stderr.split())


BINARY = (".png", ".safetensors", ".bin", ".onnx", ".ppm")


def list_tracked_files():
    """Return the text files of a clone."""
    completed = subprocess.run(
        ["git", "ls-files", "-z"], check=False, cwd=ROOT, capture_output=True
    )
    if completed.returncode:
        pytest.skip("needs a git checkout")
    for name in completed.stdout.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file() and not path.is_symlink() and path.suffix not in BINARY:
            yield path


def test_no_file_contains_machine_specific_paths():
    """No home folder, drive or package host: the project builds anywhere."""
    machine = re.compile(
        r"(?<![\w.*-])/(home|root|work|Users|mnt)/\w|\b[A-Z]:\\\\|\bpypi\.org|pythonhosted"
    )
    this = Path(__file__)
    matching_lines = [
        f"{format_path(path)}: {line.strip()}"
        for path in list_tracked_files()
        if path != this
        for line in path.read_text().splitlines()
        if machine.search(line)
    ]
    assert matching_lines == []


def test_temporary_files_are_made_in_one_module():
    """Files made elsewhere would remain after the process is killed."""
    file_names = [
        format_path(path) for path in CODE if re.search(r"\btempfile\b", path.read_text())
    ]
    assert [name for name in file_names if not name.startswith(("tools/", "tests/"))] == [
        "compiler/support/atomic_files.py"
    ]


def test_no_todo_comments_remain():
    marks = re.compile(r"\b(TODO|FIXME|XXX|raise NotImplementedError)\b")
    marked_files = [format_path(p) for p in CODE if marks.search(p.read_text())]
    assert marked_files == []


def test_regexes_have_no_possessive_groups():
    """Python before 3.11.5 matches these wrongly (gh-106052): `(?:a|b)*+`, `(?>...)`."""
    possessive = re.compile(r"(?<!\\)\)[*+?]\+|\(\?>")
    texts = (
        (path, node.value)
        for path in CODE
        for node in ast.walk(parse_file(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    assert [(format_path(path), text) for path, text in texts if possessive.search(text)] == []
