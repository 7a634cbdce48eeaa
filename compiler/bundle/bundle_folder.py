"""The artifact bundle: a folder with a manifest, the target's files and test vectors.

`manifest.json` lists every file with its size and SHA-256. `model/` has the target's files,
`graph/` the graph as text, and `goldens/` input images with their expected outputs. The same build
writes the same bytes.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from tcc.compiler.bundle import (
    bundle_path_errors,
    manifest,
    manifest_checks,
    signature_check,
    signed_files,
)
from tcc.compiler.bundle.manifest import BundleFile, Manifest
from tcc.compiler.bundle.manifest_checks import PrecisionLookup
from tcc.compiler.bundle.signature_check import SignaturePolicy, Signer
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.operating_point import OperatingPoint
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.support import atomic_files, regular_files, user_folders
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, make_file_span
from tcc.compiler.support.value_views import ValueView

MODEL = "model"
"""Folder of the target's files."""
GRAPH = "graph"
"""Folder of the printed graphs: `float.txt`, `fused.txt`."""


@dataclass(frozen=True, slots=True)
class BundleContents:
    """A bundle in memory, before it is written: its manifest, and its files' bytes by path.

    `layers` maps each layer to what computes it. `uncompiled` is why no tool compiled a package.
    `code` has the paths of files that are executed when the bundle runs here. `sidecar_files` are
    files with images of the user's: written next to the folder, and in no manifest.
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    layers: Mapping[str, str] = field(default_factory=dict)
    uncompiled: str = ""
    code: tuple[str, ...] = ()
    sidecar_files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name."""
        bundle_manifest = self.manifest
        return build_bundle_name(
            bundle_manifest.model.name, bundle_manifest.target, bundle_manifest.precision
        )


@dataclass(frozen=True, slots=True, repr=False)
class Bundle(ValueView):
    """A bundle with every file checked against its manifest."""

    folder: Path
    manifest: Manifest
    file_identity: tuple[int, ...] | None = None
    """Identifies it, to detect that another bundle replaced it while in use."""
    trusted: bool = False
    """Whether its program may run although it is unknown: just built, or allowed by the user."""
    signer: Signer | None = None
    """Who signed it, if a trusted key did."""

    def _summarize(self) -> Iterator[str]:
        yield f"Bundle {self.folder}"
        yield from self.manifest.describe()

    @property
    def model(self) -> Path:
        """The folder of the target's files."""
        return self.folder / MODEL

    @property
    def input(self) -> Input:
        """The input contract, as the backends expect it."""
        input_contract = self.manifest.input
        kind = TensorType(input_contract.shape, DType(input_contract.dtype))
        return Input(input_contract.name, kind, input_contract.preprocess)


def build_bundle_name(model: str, target: str, precision: str) -> str:
    """Return the name of a bundle's folder."""
    return f"{model}-{target}-{precision}"


def locate_sidecar(folder: Path, suffix: str) -> Path:
    """Return the path of a file next to a bundle."""
    return folder.with_name(f"{folder.name}.{suffix}")


def list_files(contents: Mapping[str, bytes], executable: frozenset[str]) -> tuple[BundleFile, ...]:
    """Return the manifest's list of files."""
    return tuple(
        BundleFile(path, len(content), hashlib.sha256(content).hexdigest(), path in executable)
        for path, content in sorted(contents.items())
    )


def write_bundle(
    contents: BundleContents, out: Path, accept: Callable[[Bundle], None] | None = None
) -> Path:
    """Write a bundle below the folder `out`, atomically, over an older one; return its folder.

    If it is a program, it may run here from then on.

    Args:
        contents: The bundle.
        out: The parent folder.
        accept: Called with the bundle before it replaces the older one; an exception stops that.

    Raises:
        UserError: The path cannot be written, or has something else than a bundle.
        MachineError: The disk is full or broken.
    """
    folder = out / contents.name
    executable = frozenset(f.path for f in contents.manifest.files if f.executable)
    # The manifest is written together with the other files: no folder is ever without it.
    all_files = {**contents.files, manifest.NAME: manifest.encode(contents.manifest)}
    bundle_manifest = contents.manifest

    def check(new_folder: Path) -> None:
        if accept:
            accept(Bundle(new_folder, bundle_manifest, trusted=True))

    for suffix, content in contents.sidecar_files.items():
        atomic_files.write_file(locate_sidecar(folder, suffix), content)
    atomic_files.write_tree(folder, all_files, executable, check_overwrite, check)
    user_folders.KNOWN_PROGRAMS.add(
        file.sha256 for file in bundle_manifest.files if file.path in contents.code
    )
    signature_check.record_build(
        bundle_manifest.model.name, hashlib.sha256(all_files[manifest.NAME]).hexdigest()
    )
    return folder


def check_overwrite(folder: Path) -> str | None:
    """Return why a new bundle may not replace a path; None for a bundle with no other files."""
    if not folder.is_dir():
        return "it is not a folder"
    if not any(folder.iterdir()):
        return None
    if not (folder / manifest.NAME).is_file():
        return "it is not a bundle"
    try:
        listed_files = _read_listed_paths(folder)
    except UserError as error:
        return f"{error.diagnostics[0].message}: {error.diagnostics[0].label}"
    bundle_paths = {*listed_files, manifest.NAME, signed_files.NAME}
    extra = sorted(regular_files.walk_files(folder) - bundle_paths)
    return f"it has a file that does not belong to the bundle: {extra[0]}" if extra else None


def read_bundle(
    folder: Path, lookup_precision: PrecisionLookup, policy: SignaturePolicy | None
) -> Bundle:
    """Return the bundle in a folder, after checking its signature and every file.

    Args:
        folder: The bundle.
        lookup_precision: Returns the precision of a target by name.
        policy: Which signatures are accepted; None for a bundle just built or to be signed again.

    Raises:
        MissingTool: The package that verifies signatures is not installed.
        UserError: As for `signature_check.check`. There is no bundle (E0620), its manifest is
            damaged or inconsistent (E0621), or files are missing, changed, not listed (E0622) or
            outside the folder (E0623). All file problems are listed.
    """
    # Another process may replace the folder meanwhile. A problem may then come from a mix of two
    # bundles, so the new one is checked again.
    while True:
        file_identity = get_identity(folder)
        try:
            return _read_bundle(folder, file_identity, lookup_precision, policy)
        except UserError:
            atomic_files.restore_folder(folder)  # waits for a process that replaces the folder
            if get_identity(folder) == file_identity:
                raise


def get_identity(folder: Path) -> tuple[int, ...] | None:
    """Return what identifies the bundle in a folder, to detect a replacement; None if none."""
    with suppress(OSError, ValueError):
        file_state = os.stat(folder / manifest.NAME)
        # A rename puts a new bundle in its place, so its manifest is another file.
        return file_state.st_dev, file_state.st_ino, file_state.st_mtime_ns, file_state.st_size
    return None


def _read_bundle(
    folder: Path,
    file_identity: tuple[int, ...] | None,
    lookup_precision: PrecisionLookup,
    policy: SignaturePolicy | None,
) -> Bundle:
    if not os.path.isfile(folder / manifest.NAME):
        raise bundle_path_errors.build_missing_error(folder)
    # Read once: the bytes whose digest is verified must be the bytes that are parsed.
    content = _read_manifest_bytes(folder)
    bundle_manifest = manifest.decode(content, str(folder / manifest.NAME))
    # Before any listed file is touched: refuse paths that lead out of the folder.
    if problems := tuple(_find_outside_paths(folder, bundle_manifest)):
        raise UserError(problems)
    manifest_checks.check(bundle_manifest, str(folder / manifest.NAME), lookup_precision)
    problems = tuple(d for file in bundle_manifest.files if (d := find_file_problem(folder, file)))
    if problems := (*problems, *find_unlisted_files(folder, bundle_manifest)):
        raise UserError(problems)
    digest = hashlib.sha256(content).hexdigest()
    signer = signature_check.check(folder, bundle_manifest, digest, policy) if policy else None
    return Bundle(folder, bundle_manifest, file_identity, signer=signer)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest in a folder; raise if it is damaged."""
    return manifest.decode(_read_manifest_bytes(folder), str(folder / manifest.NAME))


def _read_manifest_bytes(folder: Path) -> bytes:
    path = folder / manifest.NAME
    content = regular_files.read_file(path, "read this", manifest.MAX_BYTES + 1)
    if len(content) > manifest.MAX_BYTES:
        message = f"the manifest is larger than {manifest.MAX_BYTES >> 20} MiB"
        help = "build the bundle again"
        raise fail("E0621", message, make_file_span(str(path)), help=help)
    return content


def _read_listed_paths(folder: Path) -> Iterable[str]:
    """Return the paths that a bundle's manifest lists."""
    content = _read_manifest_bytes(folder)
    # A bundle to be replaced need not be understood: the seal shows that its manifest is undamaged.
    # Further checks would load the schema reader.
    paths = manifest.read_sealed_paths(content)
    if paths is not None:
        return paths
    return [file.path for file in manifest.decode(content, str(folder / manifest.NAME)).files]


def find_file_problem(folder: Path, file: BundleFile) -> Diagnostic | None:
    """Return the problem of a listed file; None if it has none."""
    path = folder / file.path
    if not path.is_file():
        message, label = "a file of the bundle is missing", ""
    elif (size := path.stat().st_size) != file.bytes:
        message = "a file of the bundle was changed"
        label = f"it has {size:,} bytes; the manifest lists {file.bytes:,}"
    elif regular_files.hash_file(path) != file.sha256:
        message, label = "a file of the bundle was changed", "its SHA-256 differs from the manifest"
    else:
        return None
    help = "build the bundle again"
    return Diagnostic("E0622", message, make_file_span(str(path)), label=label, help=help)


def _find_outside_paths(folder: Path, bundle_manifest: Manifest) -> Iterator[Diagnostic]:
    """Yield a diagnostic for each listed path outside the folder."""
    for file in bundle_manifest.files:
        if not _is_inside(folder, file.path):
            source, message = (
                make_file_span(str(folder / file.path)),
                "the manifest lists a file outside the bundle",
            )
            help = "build the bundle again"
            yield Diagnostic("E0623", message, source, label=file.path, help=help)


def find_unlisted_files(folder: Path, bundle_manifest: Manifest) -> Iterator[Diagnostic]:
    """Yield a diagnostic for each unlisted file in `model/`, which could pass for a listed one."""
    listed_paths = {file.path for file in bundle_manifest.files}
    for path in sorted(f"{MODEL}/{name}" for name in regular_files.walk_files(folder / MODEL)):
        if path not in listed_paths:
            source = make_file_span(str(folder / path))
            message = "the manifest does not list this file"
            yield Diagnostic("E0622", message, source, help="remove it")


def _is_inside(folder: Path, name: str) -> bool:
    """Whether a listed path is below the folder and passes through no link."""
    relative_path = PurePosixPath(name)
    is_relative = not relative_path.is_absolute() and ".." not in relative_path.parts
    # Through a link we would run or show a file that no hash in the manifest covers.
    return is_relative and Path(os.path.realpath(folder / name)) == folder.resolve() / relative_path


T = TypeVar("T")
MAX_TRIES = 10
"""How often work on a bundle is repeated if the same bundle is written again meanwhile."""


def run_undisturbed(bundle: Bundle, work: Callable[[Bundle], T]) -> T:
    """Run work on a bundle, and repeat it if the bundle was replaced by an identical one.

    Args:
        bundle: A bundle that was read; one that is not in its place yet cannot be replaced.
        work: Called with the bundle, possibly several times.

    Returns:
        The result of `work`.

    Raises:
        UserError: Another bundle replaced it (E0622), or the same one did `MAX_TRIES` times. Errors
            of `work` on an unchanged bundle pass through.
    """
    for _ in range(MAX_TRIES):
        bundle = bundle if _is_unchanged(bundle) else _find_replacement(bundle)
        try:
            answer = work(bundle)
        except (UserError, OSError):
            # A file may have been missing between the removal of one folder and the next.
            if _is_unchanged(bundle):
                raise
        else:
            if _is_unchanged(bundle):
                return answer
    raise _build_replaced_error(bundle)


def _is_unchanged(bundle: Bundle) -> bool:
    return bundle.file_identity is None or bundle.file_identity == get_identity(bundle.folder)


def _find_replacement(bundle: Bundle) -> Bundle:
    """Return the bundle that replaced this one, if all bytes are the same."""
    atomic_files.restore_folder(bundle.folder)  # waits for a process that replaces the folder
    file_identity = get_identity(bundle.folder)
    with suppress(UserError):
        if file_identity and not any(_find_changes(bundle)):
            return replace(bundle, file_identity=file_identity)
    raise _build_replaced_error(bundle)


def _find_changes(bundle: Bundle) -> Iterator[object]:
    """Yield true values for what changed since the bundle was read."""
    folder, bundle_manifest = bundle.folder, bundle.manifest
    yield read_manifest(folder) != bundle_manifest
    yield from (find_file_problem(folder, file) for file in bundle_manifest.files)
    yield from find_unlisted_files(folder, bundle_manifest)


def _build_replaced_error(bundle: Bundle) -> UserError:
    message = "another bundle replaced this one while it was in use"
    return fail("E0622", message, make_file_span(str(bundle.folder)), help="run the command again")


def rewrite_bundle(
    bundle: Bundle,
    operating_points: Sequence[OperatingPoint],
    changed_files: Mapping[str, bytes],
    dropped_names: Collection[str] = (),
    documents: Mapping[str, bytes] | None = None,
) -> Bundle:
    """Write a bundle again with other fitted values, atomically; other files keep their bytes.

    Args:
        bundle: The bundle as it was read.
        operating_points: The new operating points of its outputs.
        changed_files: Files of the artifact that change with them, by name.
        dropped_names: Files of the artifact that are no longer valid, by name.
        documents: Other files of the bundle that change, by path.

    Returns:
        The new bundle.

    Raises:
        UserError: The folder cannot be written, or another bundle replaced it (E0622).
    """
    bundle_manifest, old_paths = (
        bundle.manifest,
        {f"{MODEL}/{name}" for name in (*changed_files, *dropped_names)} | {*(documents or ())},
    )
    kept_files = tuple(file for file in bundle_manifest.files if file.path not in old_paths)
    files = {file.path: regular_files.read_file(bundle.folder / file.path) for file in kept_files}
    added = {f"{MODEL}/{name}": content for name, content in changed_files.items()}
    added |= documents or {}
    programs = frozenset(file.path for file in bundle_manifest.files if file.executable)
    added_files = list_files(added, programs & added.keys())
    files_by_path = {file.path: file for file in (*kept_files, *added_files)}
    # Do not seal files that somebody changed since the bundle was read, nor files made from them.
    if problems := [
        d for file in bundle_manifest.files if (d := find_file_problem(bundle.folder, file))
    ]:
        raise UserError(tuple(problems))
    new_manifest = manifest.seal_manifest(
        replace(
            bundle_manifest,
            operating_points=tuple(operating_points),
            files=tuple(files_by_path[path] for path in sorted(files_by_path)),
        )
    )
    all_files = {**files, **added, manifest.NAME: manifest.encode(new_manifest)}
    executable = frozenset(file.path for file in files_by_path.values() if file.executable)
    atomic_files.write_tree(bundle.folder, all_files, executable, check_overwrite)
    _register_programs(bundle_manifest.files, files_by_path)
    signature_check.record_build(
        bundle_manifest.model.name, hashlib.sha256(all_files[manifest.NAME]).hexdigest()
    )
    return Bundle(bundle.folder, new_manifest, get_identity(bundle.folder), bundle.trusted)


def _register_programs(
    old_files: Iterable[BundleFile], new_files: Mapping[str, BundleFile]
) -> None:
    """Let a known program run after its operating points alone changed."""
    changed = [file for file in old_files if new_files.get(file.path, file) != file]
    if changed:
        user_folders.KNOWN_PROGRAMS.add(
            new_files[file.path].sha256
            for file in changed
            if user_folders.KNOWN_PROGRAMS.contains(file.sha256)
        )
