"""The artifact bundle: a folder that says what it holds, and proves it.

`manifest.json` lists every file with its size and SHA-256; `model/` holds the target's files,
`graph/` the graph as text, `goldens/` images with what they must give. The same build writes
the same bytes.
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
"""The folder of the target's files."""
GRAPH = "graph"
"""The folder of the graph's printed forms: `float.txt`, `fused.txt`."""


@dataclass(frozen=True, slots=True)
class BundleContents:
    """A bundle that is not on a disk yet: bytes by path, and what its manifest says.

    `layers` is what computes each layer, and `uncompiled` why no tool compiled a package, as an
    artifact has them; `code` are the paths of files that running it here executes. `sidecar_files`
    are files with images of the user's: they lie beside the folder, and no manifest lists them.
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
    """A bundle whose every file was found to be what its manifest says."""

    folder: Path
    manifest: Manifest
    file_identity: tuple[int, ...] | None = None
    """What tells it from a bundle that takes its place while it is in use."""
    trusted: bool = False
    """Whether its program may run though nobody knows it: it is just built, or vouched for."""
    signer: Signer | None = None
    """Who signed it by a key that is trusted, where somebody did."""

    def _summarize(self) -> Iterator[str]:
        yield f"Bundle {self.folder}"
        yield from self.manifest.describe()

    @property
    def model(self) -> Path:
        """The folder of the target's files."""
        return self.folder / MODEL

    @property
    def input(self) -> Input:
        """The input contract, as the backends take it."""
        source = self.manifest.input
        kind = TensorType(source.shape, DType(source.dtype))
        return Input(source.name, kind, source.preprocess)


def build_bundle_name(model: str, target: str, precision: str) -> str:
    """Return what a bundle's folder is called."""
    return f"{model}-{target}-{precision}"


def locate_sidecar(folder: Path, suffix: str) -> Path:
    """Return the place of a file that lies beside a bundle."""
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
    """Write a bundle into the folder `out`, whole, in place of an older one; return its folder.

    Its program, if it is one, may run from then on.

    Args:
        contents: The bundle.
        out: The folder around it.
        accept: Given the bundle before it takes its place; what it raises keeps it away.

    Raises:
        UserError: The path cannot be written, or holds something else than a bundle.
        MachineError: The disk is full or broken.
    """
    folder = out / contents.name
    executable = frozenset(f.path for f in contents.manifest.files if f.executable)
    # The manifest is one file among the others, and written with them: there is no folder without
    # it.
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
    """Say why a path is not a bundle with nothing added, which a new one may replace."""
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
    return f"it holds a file that is not the bundle's: {extra[0]}" if extra else None


def read_bundle(
    folder: Path, lookup_precision: PrecisionLookup, policy: SignaturePolicy | None
) -> Bundle:
    """Return the bundle in a folder, after checking its signature and every file.

    Args:
        folder: The bundle.
        lookup_precision: Says what the precisions of targets are.
        policy: Which signatures are taken; None for who built it just now, or signs it again.

    Raises:
        MissingTool: What verifies its signature is not installed.
        UserError: As for `signature_check.check`. There is no bundle (E0620), its manifest is
            damaged (E0621), or files are missing, changed, not listed (E0622) or outside the folder
            (E0623); all of these are listed. A manifest that does not hold together is damaged too
            (E0621).
    """
    # Whoever builds into this folder meanwhile replaces it whole: what is wrong then may be of two
    # bundles, and is looked at again in the one that is there now.
    while True:
        file_identity = get_identity(folder)
        try:
            return _read_bundle(folder, file_identity, lookup_precision, policy)
        except UserError:
            atomic_files.restore_folder(folder)  # it waits for whoever replaces the folder
            if get_identity(folder) == file_identity:
                raise


def get_identity(folder: Path) -> tuple[int, ...] | None:
    """Return what tells a bundle from one that takes its place; None where there is none."""
    with suppress(OSError, ValueError):
        file_state = os.stat(folder / manifest.NAME)
        # A bundle is put in its place by a rename, so that its manifest is another file.
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
    # Read once: what is signed has to be what is understood.
    content = _read_manifest_bytes(folder)
    bundle_manifest = manifest.decode(content, str(folder / manifest.NAME))
    # First of all, before any file that it lists is touched: does a path lead elsewhere?
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
    """Return the manifest in a folder, or raise what is wrong with it by itself."""
    return manifest.decode(_read_manifest_bytes(folder), str(folder / manifest.NAME))


def _read_manifest_bytes(folder: Path) -> bytes:
    path = folder / manifest.NAME
    content = regular_files.read_file(path, "read this", manifest.MAX_BYTES + 1)
    if len(content) > manifest.MAX_BYTES:
        raise fail("E0621", "the manifest is too large", make_file_span(str(path)))
    return content


def _read_listed_paths(folder: Path) -> Iterable[str]:
    """Return the paths that a bundle's manifest lists, to tell what is of it and what is not."""
    content = _read_manifest_bytes(folder)
    # To be replaced, it need not be understood: that it is whole shows in its seal, and who checks
    # more of it loads what reads schemas.
    paths = manifest.read_sealed_paths(content)
    if paths is not None:
        return paths
    return [file.path for file in manifest.decode(content, str(folder / manifest.NAME)).files]


def find_file_problem(folder: Path, file: BundleFile) -> Diagnostic | None:
    """Return what is wrong with a listed file, if anything."""
    path = folder / file.path
    if not path.is_file():
        message, label = "a file of the bundle is missing", ""
    elif (size := path.stat().st_size) != file.bytes:
        message = "a file of the bundle was changed"
        label = f"it has {size:,} bytes, the manifest says {file.bytes:,}"
    elif regular_files.hash_file(path) != file.sha256:
        message, label = "a file of the bundle was changed", "its SHA-256 is not the manifest's"
    else:
        return None
    help = "build the bundle again"
    return Diagnostic("E0622", message, make_file_span(str(path)), label=label, help=help)


def _find_outside_paths(folder: Path, bundle_manifest: Manifest) -> Iterator[Diagnostic]:
    """Yield the listed paths that leave the folder."""
    for file in bundle_manifest.files:
        if not _is_inside(folder, file.path):
            source, message = (
                make_file_span(str(folder / file.path)),
                "a bundle's file must be in it",
            )
            yield Diagnostic("E0623", message, source, label=file.path, help="build it again")


def find_unlisted_files(folder: Path, bundle_manifest: Manifest) -> Iterator[Diagnostic]:
    """Yield what lies beside the target's files, and might be taken for one of them."""
    listed_paths = {file.path for file in bundle_manifest.files}
    for path in sorted(f"{MODEL}/{name}" for name in regular_files.walk_files(folder / MODEL)):
        if path not in listed_paths:
            source = make_file_span(str(folder / path))
            yield Diagnostic("E0622", "this file is not the bundle's", source, help="remove it")


def _is_inside(folder: Path, name: str) -> bool:
    """Whether a listed path is a plain one below the folder, through no link."""
    relative_path = PurePosixPath(name)
    is_relative = not relative_path.is_absolute() and ".." not in relative_path.parts
    # A link out of the folder would have us run, or show, a file that no hash of the maker's is of.
    return is_relative and Path(os.path.realpath(folder / name)) == folder.resolve() / relative_path


T = TypeVar("T")
MAX_TRIES = 10
"""How often something is done with a bundle that others replace with the same one meanwhile."""


def run_undisturbed(bundle: Bundle, work: Callable[[Bundle], T]) -> T:
    """Return what is found out of a bundle that nobody replaced meanwhile.

    Args:
        bundle: A bundle that was read; one that is not in its place yet is nobody else's.
        work: What is done with it: more than once, where the same bundle took its place meanwhile.

    Returns:
        What `work` gives.

    Raises:
        UserError: Another bundle took its place (E0622), or the same one `MAX_TRIES` times; and
            what `work` raises of a bundle that stood still.
    """
    for _ in range(MAX_TRIES):
        bundle = bundle if _is_unchanged(bundle) else _find_replacement(bundle)
        try:
            answer = work(bundle)
        except (UserError, OSError):
            # A file may have been looked for in the moment between the two folders.
            if _is_unchanged(bundle):
                raise
        else:
            if _is_unchanged(bundle):
                return answer
    raise _build_replaced_error(bundle)


def _is_unchanged(bundle: Bundle) -> bool:
    return bundle.file_identity is None or bundle.file_identity == get_identity(bundle.folder)


def _find_replacement(bundle: Bundle) -> Bundle:
    """Return the bundle that took its place, where it is the same to the byte."""
    atomic_files.restore_folder(bundle.folder)  # it waits for whoever replaces the folder
    file_identity = get_identity(bundle.folder)
    with suppress(UserError):
        if file_identity and not any(_find_changes(bundle)):
            return replace(bundle, file_identity=file_identity)
    raise _build_replaced_error(bundle)


def _find_changes(bundle: Bundle) -> Iterator[object]:
    """Yield what is not, to the byte, what the bundle was when it was read."""
    folder, bundle_manifest = bundle.folder, bundle.manifest
    yield read_manifest(folder) != bundle_manifest
    yield from (find_file_problem(folder, file) for file in bundle_manifest.files)
    yield from find_unlisted_files(folder, bundle_manifest)


def _build_replaced_error(bundle: Bundle) -> UserError:
    message = "another bundle took this one's place while it was in use"
    return fail("E0622", message, make_file_span(str(bundle.folder)), help="run the command again")


def rewrite_bundle(
    bundle: Bundle,
    operating_points: Sequence[OperatingPoint],
    changed_files: Mapping[str, bytes],
    dropped_names: Collection[str] = (),
) -> Bundle:
    """Write a bundle again with other operating points, whole; all else of it keeps its bytes.

    Args:
        bundle: The bundle as it was read.
        operating_points: How its outputs are to be read.
        changed_files: Files of the artifact that change with them, by name.
        dropped_names: Files of the artifact that no longer hold, by name.

    Returns:
        The bundle as it is now.

    Raises:
        UserError: The folder cannot be written, or another bundle took its place (E0622).
    """
    bundle_manifest, old_paths = (
        bundle.manifest,
        {f"{MODEL}/{name}" for name in (*changed_files, *dropped_names)},
    )
    kept_files = tuple(file for file in bundle_manifest.files if file.path not in old_paths)
    files = {file.path: regular_files.read_file(bundle.folder / file.path) for file in kept_files}
    added = {f"{MODEL}/{name}": content for name, content in changed_files.items()}
    programs = frozenset(file.path for file in bundle_manifest.files if file.executable)
    added_files = list_files(added, programs & added.keys())
    files_by_path = {file.path: file for file in (*kept_files, *added_files)}
    # A fresh seal must not be set on files that somebody changed since, nor on what was made of
    # them.
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
    """Let a program run that a known one became by what was fitted alone."""
    changed = [file for file in old_files if new_files.get(file.path, file) != file]
    if changed:
        user_folders.KNOWN_PROGRAMS.add(
            new_files[file.path].sha256
            for file in changed
            if user_folders.KNOWN_PROGRAMS.contains(file.sha256)
        )
