"""The environment that a build's bytes depend on, in addition to its inputs."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

from tcc.compiler.support import cpu, stage_cache


@pytest.fixture
def tcc_copy(tmp_path, monkeypatch):
    """The digest function of a small copy of tcc, and the folder of that copy."""
    target = tmp_path / "tcc/compiler/support"
    target.mkdir(parents=True)
    shutil.copy(stage_cache.__file__, target / "stage_cache.py")
    (tmp_path / "tcc/backends/arm").mkdir(parents=True)
    (tmp_path / "tcc/backends/arm/kernel.c").write_text("int f;")
    (tmp_path / "site").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), str(tmp_path / "nowhere")])
    import_spec = importlib.util.spec_from_file_location("copied", target / "stage_cache.py")
    module = importlib.util.module_from_spec(import_spec)
    import_spec.loader.exec_module(module)
    return module.digest_environment.__wrapped__, tmp_path


CHANGES = {
    "a file changes": lambda at: (at / "tcc/backends/arm/kernel.c").write_text("int g;"),
    "a file is renamed": lambda at: (at / "tcc/backends/arm/kernel.c").rename(
        at / "tcc/backends/k.c"
    ),
    "a file comes": lambda at: (at / "tcc/compiler/more.py").write_text(""),
    "a package comes": lambda at: (at / "site/numpy-2.1.dist-info").mkdir(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_source_changes_change_the_digest(change, tcc_copy):
    digest, at = tcc_copy
    previous_digest = digest()
    CHANGES[change](at)
    assert digest() != previous_digest


def test_package_version_changes_the_digest(tcc_copy):
    digest, at = tcc_copy
    (at / "site/numpy-2.1.dist-info").mkdir()
    previous_digest = digest()
    (at / "site/numpy-2.1.dist-info").rename(at / "site/numpy-2.2.dist-info")
    assert digest() != previous_digest


@pytest.mark.parametrize("name", ["ORT_THREADS", "NPY_DISABLE_CPU_FEATURES", "LD_PRELOAD"])
def test_variables_that_select_code_change_the_digest(name, tcc_copy, monkeypatch):
    digest, _ = tcc_copy
    previous_digest = digest()
    monkeypatch.setenv(name, "1")
    assert digest() != previous_digest


def test_processor_changes_the_digest(tcc_copy, monkeypatch):
    digest, _ = tcc_copy
    previous_digest = digest()
    monkeypatch.setattr(cpu, "read_identity", lambda: ("flags : none",))
    assert digest() != previous_digest


def test_unrelated_changes_keep_the_digest(tcc_copy, monkeypatch):
    digest, at = tcc_copy
    previous_digest = digest()
    monkeypatch.setenv("LANG", "C")
    (at / "tcc/compiler/__pycache__").mkdir()
    (at / "tcc/compiler/__pycache__/more.pyc").write_bytes(b"compiled")
    (at / "tcc/docs").mkdir()
    (at / "tcc/docs/page.md").write_text("")
    (at / "site/notes.txt").write_text("")
    assert digest() == previous_digest


def test_broken_link_among_the_sources_is_ignored(tcc_copy):
    """Editors create such links for files that are being edited."""
    digest, at = tcc_copy
    (at / "tcc/compiler/.#more.py").symlink_to("nobody@nowhere")
    assert digest()


def test_all_sources_are_in_the_digest():
    sources = set(stage_cache.list_sources())
    assert {"compiler/cli/app.py", "spec/ddsnet.yaml", "backends/arm/backend.py"} < sources
    assert any(name.startswith("backends/arm/micro/c/") for name in sources)
    assert any(name.startswith("zoo/samples/") for name in sources)
    assert not any("__pycache__" in name for name in sources)


def test_processor_identity_ignores_the_clock_rate(tmp_path):
    text = "processor : 0\nmodel name\t: A\ncpu MHz\t: {}\nflags\t\t: fma avx2\n\nprocessor : 1\n"
    (tmp_path / "cpuinfo").write_text(text.format(1000))
    assert cpu.read_identity(tmp_path / "cpuinfo") == ("model name : A", "flags : fma avx2")
    identity = cpu.read_identity(tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(text.format(2000))
    assert cpu.read_identity(tmp_path / "cpuinfo") == identity
    assert cpu.read_identity(tmp_path / "none") == ()
    assert cpu.read_identity() or not Path("/proc/cpuinfo").exists()
