"""Package versions equal those of `importlib.metadata`, without its import time."""

import subprocess
import sys
from importlib import metadata

import pytest

from tcc.compiler.support import external_tools


def test_versions_match_the_package_metadata():
    versions = {
        distribution.name: distribution.version for distribution in metadata.distributions()
    }
    assert len(versions) > 20
    # Of two packages with one name, Python loads the first that it finds.
    assert {name: external_tools.installed_version(name) for name in versions} == {
        name: metadata.version(name) for name in versions
    }


def test_name_spellings_and_missing_packages():
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


def test_first_folder_wins_and_other_forms_use_importlib(tmp_path, monkeypatch):
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


def test_folder_without_metadata_is_ignored_by_newer_finders(tmp_path):
    """dask loads such a finder, which then also finds packages for the standard library."""
    (tmp_path / "strange.dist-info").mkdir()
    program = (
        "import importlib_metadata, sys; from tcc.compiler.support import external_tools\n"
        f"sys.path.append({str(tmp_path)!r}); assert external_tools.installed_version('strange') is None"
    )
    pytest.importorskip("importlib_metadata")
    subprocess.run([sys.executable, "-c", program], check=True)


def test_importlib_metadata_is_not_loaded():
    program = (
        "import sys; from tcc.compiler.support import external_tools\n"
        "assert external_tools.installed_version('numpy'); assert 'importlib.metadata' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
