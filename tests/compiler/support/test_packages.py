"""Versions of packages, as `importlib.metadata` gives them, without what that loads."""

import subprocess
import sys
from importlib import metadata

import pytest

from tcc.compiler.support import external_tools


def test_every_installed_package_has_the_version_that_its_metadata_say():
    versions = {
        distribution.name: distribution.version for distribution in metadata.distributions()
    }
    assert len(versions) > 20
    # Of two of a name, the first that Python looks at is the one that it loads.
    assert {name: external_tools.installed_version(name) for name in versions} == {
        name: metadata.version(name) for name in versions
    }


def test_spellings_of_a_name_and_what_is_not_there():
    assert (
        external_tools.installed_version("ONNX_Runtime")
        is external_tools.installed_version("no-such-package")
        is None
    )
    assert (
        external_tools.installed_version("ml-dtypes")
        == external_tools.installed_version("ML.dtypes")
        == metadata.version("ml_dtypes")
    )


def test_the_first_place_counts_and_others_are_found_otherwise(tmp_path, monkeypatch):
    for folder, name in (("a", "it_is-1.2.dist-info"), ("b", "it_is-1.3.dist-info")):
        (tmp_path / folder / name).mkdir(parents=True)
    (tmp_path / "b/other-7-py3.11.egg-info").mkdir()
    (tmp_path / "b/other-7-py3.11.egg-info/PKG-INFO").write_text("Name: other\nVersion: 7.0\n")
    (tmp_path / "b/strange.dist-info").mkdir()
    monkeypatch.setattr(
        sys, "path", [str(tmp_path / folder_name) for folder_name in ("none", "a", "b")]
    )
    assert external_tools.installed_version("it-is") == "1.2"
    assert external_tools.installed_version("other") == "7.0"
    assert external_tools.installed_version("strange") is None


def test_a_folder_without_metadata_is_no_package_for_a_newer_finder_either(tmp_path):
    """Which dask loads, and which finds packages for the standard library from then on."""
    (tmp_path / "strange.dist-info").mkdir()
    program = (
        "import importlib_metadata, sys; from tcc.compiler.support import external_tools\n"
        f"sys.path.append({str(tmp_path)!r}); assert external_tools.installed_version('strange') is None"
    )
    pytest.importorskip("importlib_metadata")
    subprocess.run([sys.executable, "-c", program], check=True)


def test_it_loads_no_metadata():
    program = (
        "import sys; from tcc.compiler.support import external_tools\n"
        "assert external_tools.installed_version('numpy'); assert 'importlib.metadata' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
