"""ONNX Runtime for browsers: cached after the download, and checked before use."""

import io
import tarfile
from pathlib import Path

import pytest

from tcc.backends.web.backend import RUNTIME_PACKAGE, Web
from tcc.compiler.support.external_tools import MissingTool

(TARGET,) = Web().targets
NAMES = [Path(path).name for path in RUNTIME_PACKAGE.hashes]


def make_archive(files):
    """Return an archive in the format of npm."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as opened:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            opened.addfile(member, io.BytesIO(content))
    return file.getvalue()


@pytest.fixture
def runtime_folder(tmp_path, monkeypatch):
    """The empty cache folder of the runtime. npm is not available."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "cache/tcc/onnxruntime-web").mkdir(parents=True)
    return tmp_path / "cache/tcc/onnxruntime-web"


def write_npm(cache_folder, text):
    program = cache_folder.parents[2] / "bin/npm"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


def catch_missing():
    with pytest.raises(MissingTool) as caught:
        RUNTIME_PACKAGE.load_files()
    return caught.value


def test_missing_npm_is_reported(runtime_folder):
    assert RUNTIME_PACKAGE.find_tool().version is None
    assert catch_missing().reason == "npm, which can fetch it, is not installed"
    install_hint = f"`npm pack onnxruntime-web@{RUNTIME_PACKAGE.version}` into ~/.cache/tcc/"
    assert install_hint in catch_missing().tool.install


def test_a_failed_download_is_reported(runtime_folder):
    write_npm(
        runtime_folder,
        "echo 'npm error code ENOTFOUND' >&2; echo 'npm error network failed' >&2; exit 1",
    )
    assert RUNTIME_PACKAGE.find_tool().version == RUNTIME_PACKAGE.version
    assert (
        catch_missing().reason
        == "npm cannot fetch it: npm error code ENOTFOUND; npm error network failed"
    )
    write_npm(runtime_folder, "exit 7")
    assert catch_missing().reason == "npm cannot fetch it: npm exits with 7"


@pytest.mark.parametrize(
    "data",
    [b"", b"no archive", make_archive({}), make_archive(dict.fromkeys(NAMES, b"x"))],
    ids=["empty", "no archive", "without files", "other files"],
)
def test_a_wrong_archive_is_refused(runtime_folder, data):
    (runtime_folder / RUNTIME_PACKAGE.archive).write_bytes(data)
    assert catch_missing().reason == "npm, which can fetch it, is not installed"
    (runtime_folder / "other.tgz").write_bytes(data)
    write_npm(runtime_folder, f"/bin/cp {runtime_folder}/other.tgz {RUNTIME_PACKAGE.archive}")
    assert catch_missing().reason == "the package that npm fetched has unexpected content"
    assert not (runtime_folder / RUNTIME_PACKAGE.version).exists()


def test_a_local_archive_is_used_and_cached_files_are_checked(runtime_folder, runtime, monkeypatch):
    (runtime_folder / RUNTIME_PACKAGE.archive).write_bytes(make_archive(runtime))
    assert RUNTIME_PACKAGE.load_files() == runtime
    write_npm(runtime_folder, f"/bin/cp {runtime_folder}/moved.tgz {RUNTIME_PACKAGE.archive}")
    (runtime_folder / RUNTIME_PACKAGE.archive).rename(runtime_folder / "moved.tgz")
    assert RUNTIME_PACKAGE.load_files() == runtime
    (runtime_folder / "moved.tgz").unlink()
    assert RUNTIME_PACKAGE.load_files() == runtime  # from the cache
    name = min(runtime)
    (runtime_folder / RUNTIME_PACKAGE.version / name).write_bytes(b"changed")
    assert catch_missing().reason.startswith("npm cannot fetch it")
