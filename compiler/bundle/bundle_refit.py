"""A bundle with other operating points: written again, whole, and without its signature."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from tcc.compiler.bundle import bundle_files, bundle_folder, local_builds, manifest
from tcc.compiler.bundle.bundle_folder import MODEL, Bundle
from tcc.compiler.bundle.manifest import BundleFile
from tcc.compiler.ir.operating_point import OperatingPoint
from tcc.compiler.support import atomic_files, user_folders
from tcc.compiler.support.diagnostics import UserError


def refit(
    found: Bundle,
    points: Sequence[OperatingPoint],
    beside: Mapping[str, bytes],
    dropped: Collection[str] = (),
) -> Bundle:
    """Write a bundle again with other operating points, whole; all else of it keeps its bytes.

    Args:
        found: The bundle as it was read.
        points: How its outputs are to be read.
        beside: Files of the artifact that change with them, by name.
        dropped: Files of the artifact that no longer hold, by name.

    Returns:
        The bundle as it is now.

    Raises:
        UserError: The folder cannot be written, or another bundle took its place (E0622).
    """
    about, old = found.manifest, {f"{MODEL}/{name}" for name in (*beside, *dropped)}
    kept = tuple(file for file in about.files if file.path not in old)
    files = {file.path: bundle_files.content(found.folder / file.path) for file in kept}
    added = {f"{MODEL}/{name}": data for name, data in beside.items()}
    programs = frozenset(file.path for file in about.files if file.executable)
    listed = bundle_folder.listed(added, programs & added.keys())
    known = {file.path: file for file in (*kept, *listed)}
    # A fresh seal must not be set on files that somebody changed since, nor on what was made of
    # them.
    if changed := [d for file in about.files if (d := bundle_folder.problem(found.folder, file))]:
        raise UserError(tuple(changed))
    fresh = manifest.sealed(
        replace(
            about,
            operating_points=tuple(points),
            files=tuple(known[path] for path in sorted(known)),
        )
    )
    everything = {**files, **added, manifest.NAME: manifest.encode(fresh)}
    executable = frozenset(file.path for file in known.values() if file.executable)
    atomic_files.write_tree(found.folder, everything, executable, bundle_folder.replaceable)
    _keep_known(about.files, known)
    local_builds.note(about.model.name, hashlib.sha256(everything[manifest.NAME]).hexdigest())
    return Bundle(found.folder, fresh, bundle_folder.identity(found.folder), found.trusted)


def _keep_known(old_files: Iterable[BundleFile], new_files: Mapping[str, BundleFile]) -> None:
    """Let a program run that a known one became by what was fitted alone."""
    changed = [file for file in old_files if new_files.get(file.path, file) != file]
    if changed:
        user_folders.KNOWN_PROGRAMS.add(
            new_files[file.path].sha256
            for file in changed
            if user_folders.KNOWN_PROGRAMS.has(file.sha256)
        )
