"""Every command with each extra installed separately in a bare environment.

A command succeeds if its packages are installed. Otherwise it exits with 3 and prints the install
command. It never exits with 1.
"""

import re
import shutil
import tomllib
from pathlib import Path

import pytest
from bare_environments import create
from command_session import copy_session, make_environment
from command_uses import USES
from test_network import session  # noqa: F401 - a fixture
from test_packaging import built  # noqa: F401 - a fixture

from tcc.compiler.support.external_tools import EXTRAS, PROGRAMS
from tcc.compiler.version import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SETS = {
    extra for extra, requirements in PROJECT["optional-dependencies"].items() if extra in EXTRAS
}
UNSIGNED = "error[E1351]"
"""The error for a rebuilt bundle without a signing tool."""
RUNS = [use for use in USES if not use.serves]
"""Uses that end without a signal."""


def test_every_extra_is_tested():
    extras = set(PROJECT["optional-dependencies"]) - {"all", "bench", "dev", "docs"}
    assert extras == SETS == {extra for use in USES for extra in use.needs}


def test_the_readme_names_the_commands_of_each_extra():
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE)
    readme_commands = {extra: set(re.findall(r"`(\w+)[^`]*`", cell)) - {"cosines", "host", "pdf", "tflite"}
             for extra, cell in rows}  # fmt: skip
    commands = {
        extra: {str(use).split()[0] for use in USES if extra in use.needs} for extra in SETS
    }
    assert readme_commands == commands
    assert max(len(use.needs) for use in USES) == 2


@pytest.mark.slow
def test_an_environment_contains_only_its_extra(built, tmp_path):  # noqa: F811
    (wheel,) = built.glob("*.whl")
    bare = create(tmp_path / "bare", wheel, "import")
    (site,) = (tmp_path / "bare").glob("lib/python*/site-packages")
    names = {path.name for path in site.iterdir()}
    assert {"tcc", "numpy", "onnxsim", "onnx_graphsurgeon"} <= names
    assert not names & {"torch", "tvm", "matplotlib", "pytest", "ai_edge_litert"}
    assert (site / "tcc").resolve().is_relative_to(tmp_path)
    (version, unknown) = bare.run_all(
        [["--version"], ["nope"]], tmp_path, make_environment(tmp_path)
    )
    assert (version.code, version.text) == (0, f"tcc {__version__}\n")
    assert unknown.code == 2


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["", *sorted(SETS)])
def test_every_command_runs_or_names_the_missing_package(session, built, tmp_path, extra):  # noqa: F811
    (wheel,) = built.glob("*.whl")
    # In a copy: commands write files, and other tests read those of the session.
    copy = copy_session(session, tmp_path)
    bare = create(tmp_path / "bare", wheel, extra)
    outcomes = bare.run_all(
        [use.repeat_arguments for use in RUNS], copy.folder, make_environment(copy.home)
    )
    assert len(outcomes) == len(RUNS)
    failures = [
        f"{use}\n    ends with {end.code}: {end.text[-600:]}"
        for use, end in zip(RUNS, outcomes, strict=True)
        if not is_expected_end(end, use.needs - {extra}, use.programs)
    ]
    assert failures == [], "\n".join(failures)


def is_expected_end(end, missing, programs):
    """Whether a command ended as expected without these extras."""
    absent = {name for name in programs if shutil.which(name) is None}
    if end.code == 0 or not (missing or absent):
        # also if another extra installs the package: scikit-learn needs scipy
        return end.code == 0
    installed = set(re.findall(r"pip install 'tcc-compiler\[(\w+)\]'", end.text))
    installed |= {
        name for name, package in PROGRAMS.items() if f"apt-get install {package}" in end.text
    }
    if end.code == 2 and UNSIGNED in end.text:
        return "sign" in missing
    return end.code == 3 and bool(installed) and installed <= missing | absent
