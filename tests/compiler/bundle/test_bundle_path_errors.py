"""The error for a path that is not a bundle."""

import os

import pytest

from tcc.compiler.bundle import bundle_path_errors
from tcc.compiler.bundle.bundle_path_errors import build_missing_error

SPEC = "tcc: 1\nname: skin\n"


@pytest.fixture
def spec_folder(tmp_path, monkeypatch):
    """A folder with a spec and two bundles without contents."""
    monkeypatch.chdir(tmp_path)
    for name in ("skin-host-fp32", "skin-web-fp32"):
        (tmp_path / "build" / name / "model").mkdir(parents=True)
        (tmp_path / "build" / name / "manifest.json").write_text("{}")
    (tmp_path / "build/.partial").mkdir()
    (tmp_path / "build/.partial/manifest.json").write_text("{}")
    (tmp_path / "skin.yaml").write_text(SPEC)
    (tmp_path / "odd.json").write_text('{"tcc": 1}')
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "empty").mkdir()
    for name, file in {"specs": "a.yaml", "runs": "w.safetensors", "set": "1.png"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


BUNDLE_NAMES = "`build/skin-host-fp32`, `build/skin-web-fp32`"
CASES = {
    "skin.yaml": (
        "it is a spec, not a bundle",
        f"build it first: `tcc build skin.yaml`, or name what it wrote: {BUNDLE_NAMES}",
    ),
    "odd.json": ("it is a spec, not a bundle", "build it first: `tcc build odd.json`"),
    "build": ("this folder contains 2 bundles", f"name one: {BUNDLE_NAMES}"),
    ".": ("this folder contains 2 bundles", f"name one: {BUNDLE_NAMES}"),
    "empty": ("the folder is empty", "`tcc init` starts a project"),
    "specs": ("it has specs but no bundle", "build one first: `tcc build specs/a.yaml`"),
    "runs": ("it has weights but no bundle", "`tcc build SPEC --weights runs/w.safetensors`"),
    "set": ("it has images but no bundle", "and the images after it"),
    "x.png": ("it is an image, not a folder", f"name a bundle: {BUNDLE_NAMES}"),
    "build/skin-host-fp3": ("it does not exist", "did you mean `build/skin-host-fp32`?"),
    "build/skin-host-fp32/model": (
        "it is part of a bundle",
        "name the bundle's folder, `build/skin-host-fp32`",
    ),
    "build/skin-host-fp32/gone": ("it does not exist", "name the folder that `tcc build` wrote"),
    "ddsnet": ("it is the name of a known network, not a bundle", "`tcc build ddsnet`"),
    "pipe": ("it is not a folder", f"name a bundle: {BUNDLE_NAMES}"),
    "a\0b": ("it does not exist", f"name a bundle: {BUNDLE_NAMES}"),
}


@pytest.mark.parametrize("path", CASES)
def test_error_describes_the_path(spec_folder, path):
    (diagnostic,) = build_missing_error(type(spec_folder)(path)).diagnostics
    label, help = CASES[path]
    assert (diagnostic.code, diagnostic.label) == ("E0620", label)
    assert help in diagnostic.help


def test_search_in_large_folders_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_path_errors, "MAX_ENTRIES", 5)
    for number in range(20):
        (tmp_path / f"b{number}").mkdir()
        (tmp_path / f"b{number}/manifest.json").write_text("{}")
    assert len(bundle_path_errors.list_bundles(tmp_path)) == 5
