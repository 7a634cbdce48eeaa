"""Forged bundles: complete and sealed, but not built by tcc."""

from dataclasses import replace
from pathlib import Path

from tcc.compiler.bundle import bundle_folder, manifest


def forge_bundle(folder: Path, target: str) -> Path:
    """Seal the files of a folder as a bundle of another target."""
    path = folder / manifest.NAME
    original = manifest.decode(path.read_bytes(), "manifest")
    bundle_files = (p for p in folder.rglob("*") if p.is_file() and p != path)
    contents = {p.relative_to(folder).as_posix(): p.read_bytes() for p in bundle_files}
    files = bundle_folder.list_files(contents, frozenset({"model/tiny-run"}))
    path.write_bytes(manifest.encode(replace(original, target=target, files=files)))
    return folder
