"""Install commands for missing tools are the same in every place."""

import re
import tomllib

import pytest

from tcc.compiler.cli import doctor
from tcc.compiler.support.external_tools import (
    EXTRAS,
    NPM_VERSIONS,
    PROGRAMS,
    Tool,
    describe_install,
)
from tcc.compiler.targets import devices


@pytest.fixture
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


def parse_names(requirements):
    return {re.match(r"[\w.-]+", requirement)[0] for requirement in requirements}


def test_extras_match_the_project_file(project):
    extras = project["optional-dependencies"]
    assert {extra: parse_names(extras[extra]) for extra in EXTRAS} == {
        extra: set(packages) for extra, packages in EXTRAS.items()
    }


def test_every_tool_has_an_install_command(project):
    known_packages = parse_names(project["dependencies"]) | {
        name for group in EXTRAS.values() for name in group
    }
    tools = {tool.name for device in devices.list_devices() for tool in device.tools}
    assert tools
    assert tools <= known_packages | PROGRAMS.keys() | NPM_VERSIONS.keys()
    assert set(doctor.BASE) <= known_packages


def test_doctor_lists_the_packages_of_each_extra(tcc):
    document = tcc("doctor", "--json").document
    shown_names = {package["name"] for package in (*document["packages"], *document["tools"])}
    assert {name for group in EXTRAS.values() for name in group} <= shown_names


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("numpy", "pip install numpy"),
        ("torch", "pip install 'tcc-compiler[train]'"),
        ("onnxsim", "pip install 'tcc-compiler[import]'"),
        ("ziglang", "pip install 'tcc-compiler[arm]'"),
        ("flatbuffers", "pip install 'tcc-compiler[tflite]'"),
        ("qemu-aarch64", "apt-get install qemu-user"),
    ],
)
def test_install_commands(name, command):
    assert describe_install(name) == Tool(name, "do this", None).install == command


def test_doctor_has_the_same_install_commands(tcc, monkeypatch):
    from importlib import metadata

    def raise_not_found(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", raise_not_found)
    monkeypatch.setattr("tcc.compiler.support.external_tools.installed_version", lambda name: None)
    packages = tcc("doctor", "--json").document["packages"]
    assert {"torch", "onnxsim", "onnx-graphsurgeon", "numpy"} <= {
        package["name"] for package in packages
    }
    assert {package["name"]: package["install"] for package in packages} == {
        package["name"]: describe_install(package["name"]) for package in packages
    }
