"""The installed package: a wheel with all data that runs without a checkout."""

import ast
import os
import re
import runpy
import shutil
import stat
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from shared_folders import fill_once

from tcc.compiler.cli import doctor

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGED = ("compiler", "backends", "spec", "zoo")
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", ".*_cache", "__pycache__", "*.egg-info", "build", "dist"
)


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A folder with the source distribution and the wheel that is built from it."""
    return fill_once(tmp_path_factory, "packages", build_packages) / "dist"


def build_packages(folder):
    shutil.copytree(ROOT, folder / "source", symlinks=True, ignore=LEFT_OUT)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist"]
    completed = subprocess.run(
        [*command, folder / "source"], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stdout[-3000:] + completed.stderr


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The `tcc` of a new environment with the wheel. Dependencies are shared."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    pip += ["--python", folder / "bin/python", "install", "--no-deps", "--no-index", wheel]
    subprocess.run(pip, check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return folder / "bin/tcc"


def run_tcc(installed, folder, *arguments):
    """Returns the output of `tcc` outside the checkout."""
    clean = {"PATH": f"{installed.parent}:/usr/bin:/bin", "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    clean["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    clean["TCC_CACHE_LIMIT"] = "0"
    completed = subprocess.run(
        [installed, *arguments], cwd=folder, env=clean, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


def list_data_files():
    """Return the files of the packages in the checkout."""
    for folder in PACKAGED:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path.relative_to(ROOT).as_posix()


def test_the_wheel_contains_every_package_file(built):
    (wheel,) = built.glob("tcc_compiler-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    assert {f"tcc/{name}" for name in list_data_files()} - names == set()
    assert {
        "tcc/__init__.py",
        "tcc/py.typed",
        "tcc/spec/ddsnet.yaml",
        "tcc_pytest/__init__.py",
    } <= names
    assert "tcc/testing/conformance.py" in names
    outside = {name.split("/")[0] for name in names} - {"tcc", "tcc_pytest"}
    assert outside == {f"tcc_compiler-{read_version()}.dist-info"}


def test_the_source_distribution_contains_every_file_and_the_licence(built):
    (archive,) = built.glob("tcc_compiler-*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {f"src/tcc/{name}" for name in list_data_files()} - names == set()
    assert {"LICENSE", "README.md", "pyproject.toml"} <= names


@pytest.mark.slow
def test_the_source_distribution_runs_its_own_tests(built, installed, tmp_path):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    tests = ["tests/test_passes_table.py", "tests/test_dispatch.py", "tests/compiler/passes"]
    completed = subprocess.run(
        [installed.with_name("python"), "-m", "pytest", "-q", "-m", "not slow", *tests],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stdout[-3000:] + completed.stderr
    for name in ("CONTRIBUTING.md", "Makefile", "constraints.txt", "tools/generate.py"):
        assert (folder / name).is_file(), name


def read_version():
    from tcc import __version__

    return __version__


def test_the_wheel_runs_outside_the_checkout(installed, tmp_path):
    program = "import tcc, tcc.compiler; print(tcc.__file__)"
    python = installed.with_name("python")
    completed = subprocess.run(
        [python, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(completed.stdout.strip()).is_relative_to(installed.parents[1])
    assert "import" in run_tcc(installed, tmp_path, "--help")
    assert read_version() in run_tcc(installed, tmp_path, "--version")


def test_the_wheel_checks_a_known_spec(installed, tmp_path):
    assert "189,870 parameters" in run_tcc(installed, tmp_path, "check", "ddsnet")


@pytest.mark.slow
def test_the_wheel_builds_for_a_device_and_runs(installed, tmp_path):
    pytest.importorskip("tvm", reason="needs the extra `arm`")
    run_tcc(installed, tmp_path, "build", "ddsnet", "--target", "host", "--out", "made")
    (bundle,) = (tmp_path / "made").iterdir()
    sample = ROOT / "zoo/samples/TUM/1.png"
    assert "TUM" in run_tcc(installed, tmp_path, "run", bundle, sample)


def test_git_stores_the_package_links_as_links():
    completed = subprocess.run(
        ["git", "ls-files", "-s", "src/tcc"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if completed.returncode:
        pytest.skip("needs a git checkout")
    modes = {line.split()[-1]: line.split()[0] for line in completed.stdout.splitlines()}
    assert {name for name, mode in modes.items() if mode == "120000"} == {
        f"src/tcc/{folder}" for folder in PACKAGED
    }
    assert all(os.readlink(ROOT / f"src/tcc/{f}") == f"../../{f}" for f in PACKAGED)


def test_distributions_contain_no_links(built):
    (archive,) = built.glob("*.tar.gz")
    (wheel,) = built.glob("*.whl")
    with tarfile.open(archive) as file:
        assert [m.name for m in file if m.issym() or m.islnk()] == []
    with zipfile.ZipFile(wheel) as file:
        modes = {member.filename: member.external_attr >> 16 for member in file.infolist()}
    assert [name for name, mode in modes.items() if stat.S_ISLNK(mode)] == []


@pytest.fixture(params=["a file", "missing"])
def without_links(request, tmp_path):
    """A checkout as git and archives leave it without links, and the content in place of a link."""
    for name in PACKAGED:
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("tests", "src/tcc"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("src/tcc/__init__.py", "src/tcc/source_links.py", "tests/conftest.py",
                 "tests/package_folders.py", "Makefile", "constraints.txt", "pyproject.toml", "setup.py"):  # fmt: skip
        shutil.copy(ROOT / name, tmp_path / name)
    for name in PACKAGED if request.param == "a file" else ():
        (tmp_path / "src/tcc" / name).write_text(f"../../{name}")
    return tmp_path, request.param


PIP = "-m pip --disable-pip-version-check --quiet install --no-index --no-build-isolation --no-deps"


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, *PIP.split(), "--target", "there", "."],
        [sys.executable, *PIP.split(), "--target", "there", "--editable", "."],
        [sys.executable, "-c", "import sys; sys.path.insert(0, 'src'); import tcc"],
        [sys.executable, "-m", "pytest"],
        ["make", "test"],
    ],
    ids=["build", "editable", "import", "pytest", "make"],
)
def test_a_checkout_without_links_is_reported(without_links, command):
    folder, kind = without_links
    completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    output = completed.stdout + completed.stderr
    repair = "ln -sf ../../backends ../../compiler ../../spec ../../zoo src/tcc"
    sentence = (
        f"src/tcc/backends is {kind} but must be a link to ../../backends: run `{repair}`"
        f" in {folder}; in a git checkout, run `git config core.symlinks true` first"
    )
    assert completed.returncode != 0
    assert output.count(sentence) == 1
    # output of pip, Python and make around it
    assert len(output.splitlines()) <= 20
    assert output.count("\n  File ") <= 3
    # and the fix works
    subprocess.run(repair.split(), cwd=folder, check=True)
    subprocess.run([sys.executable, "src/tcc/source_links.py"], cwd=folder, check=True)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ((), "the folder {0}/src/tcc/backends is missing: install tcc again"),
        (
            ("pyproject.toml",),
            "the folder {0}/backends is missing: unpack the archive or clone again",
        ),
    ],
)
def test_missing_package_folders_are_reported_differently(tmp_path, files, expected):
    for name in files:
        (tmp_path / name).touch()
    (tmp_path / "src/tcc").mkdir(parents=True)
    program = shutil.copy(ROOT / "src/tcc/source_links.py", tmp_path / "src/tcc")
    completed = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, check=False
    )
    assert (completed.returncode, completed.stderr) == (1, expected.format(tmp_path) + "\n")


def test_an_old_python_is_refused_with_the_needed_version(monkeypatch):
    make = runpy.run_path(str(ROOT / "tools/make_environment.py"))["main"]
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    assert make("nowhere") == (
        "tcc needs Python 3.11 or newer, but this is 3.9; run make PYTHON=python3.11"
    )


def find_distributions(*folders, but=()):
    """Return the distributions that provide the imports of the code in these folders."""
    modules = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            if any(path.is_relative_to(ROOT / excluded) for excluded in but):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    modules |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    modules.add(str(node.module).partition(".")[0])
    distribution_names = packages_distributions()
    outside = modules - sys.stdlib_module_names - {"tcc"}
    # a namespace such as `ruamel` has several distributions; use the shortest name
    return {
        normalize_name(min(distribution_names.get(module, [module]), key=len)) for module in outside
    }


def normalize_name(requirement):
    """Return the name of a requirement in the normal form of the package index."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def test_declared_dependencies_match_the_imports():
    extras = PROJECT["optional-dependencies"]
    optional = {
        normalize_name(r) for extra in ("import", "plot", "sign", "train") for r in extras[extra]
    }
    elsewhere = "backends/pulsar/device"  # runs on boards, from built packages
    base = find_distributions(
        "compiler", "backends", but=("backends/arm", "backends/tflite", elsewhere)
    )
    assert base - optional == {normalize_name(r) for r in PROJECT["dependencies"]}
    assert base - optional == {normalize_name(name) for name in doctor.BASE}
    arm = find_distributions("backends/arm") - base
    assert arm - {normalize_name(r) for r in extras["arm"]} == set()
    lite = find_distributions("backends/tflite") - base
    assert lite - {normalize_name(r) for r in extras["tflite"]} == set()


def test_every_dependency_has_a_lower_bound_and_a_constraint():
    extras = PROJECT["optional-dependencies"]
    requirements = [*PROJECT["dependencies"], *(r for group in extras.values() for r in group)]
    requirements = [r for r in requirements if not r.startswith("tcc-compiler")]
    assert [r for r in requirements if not re.search(r"[>=]=\d", r)] == []
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {normalize_name(line) for line in lines if re.fullmatch(r"[\w.-]+==[\w.]+", line)}
    assert len(pinned) == len([line for line in lines if line and not line.startswith("#")])
    assert {normalize_name(r) for r in requirements} - pinned == set()
