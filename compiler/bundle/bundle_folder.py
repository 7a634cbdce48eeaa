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
    manifest,
    manifest_checks,
    mistaken_paths,
    signature_check,
    signed_files,
)
from tcc.compiler.bundle.manifest import BundleFile, Manifest
from tcc.compiler.bundle.manifest_checks import Known
from tcc.compiler.bundle.signature_check import SignaturePolicy, Signer
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.operating_point import OperatingPoint
from tcc.compiler.ir.types import DType, TensorType
from tcc.compiler.support import atomic_files, regular_files, user_folders
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail, whole_file
from tcc.compiler.support.value_views import ValueView

MODEL = "model"
"""The folder of the target's files."""
GRAPH = "graph"
"""The folder of the graph's printed forms: `float.txt`, `fused.txt`."""


@dataclass(frozen=True, slots=True)
class BundleContents:
    """A bundle that is not on a disk yet: bytes by path, and what its manifest says.

    `layers` is what computes each layer, and `uncompiled` why no tool compiled a package, as an
    artifact has them; `code` are the paths of files that running it here executes. `beside` are
    files with images of the user's: they lie beside the folder, and no manifest lists them.
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    layers: Mapping[str, str] = field(default_factory=dict)
    uncompiled: str = ""
    code: tuple[str, ...] = ()
    beside: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The folder's name."""
        about = self.manifest
        return name(about.model.name, about.target, about.precision)


@dataclass(frozen=True, slots=True, repr=False)
class Bundle(ValueView):
    """A bundle whose every file was found to be what its manifest says."""

    folder: Path
    manifest: Manifest
    seen: tuple[int, ...] | None = None
    """What tells it from a bundle that takes its place while it is in use."""
    trusted: bool = False
    """Whether its program may run though nobody knows it: it is just built, or vouched for."""
    signer: Signer | None = None
    """Who signed it by a key that is trusted, where somebody did."""

    def _summary(self) -> Iterator[str]:
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


def name(model: str, target: str, precision: str) -> str:
    """Return what a bundle's folder is called."""
    return f"{model}-{target}-{precision}"


def beside(folder: Path, end: str) -> Path:
    """Return the place of a file that lies beside a bundle."""
    return folder.with_name(f"{folder.name}.{end}")


def listed(contents: Mapping[str, bytes], executable: frozenset[str]) -> tuple[BundleFile, ...]:
    """Return the manifest's list of files."""
    return tuple(
        BundleFile(path, len(data), hashlib.sha256(data).hexdigest(), path in executable)
        for path, data in sorted(contents.items())
    )


def write(
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
    about = contents.manifest

    def check(fresh: Path) -> None:
        if accept:
            accept(Bundle(fresh, about, trusted=True))

    for end, data in contents.beside.items():
        atomic_files.write_file(beside(folder, end), data)
    atomic_files.write_tree(folder, all_files, executable, replaceable, check)
    user_folders.KNOWN_PROGRAMS.add(
        file.sha256 for file in about.files if file.path in contents.code
    )
    signature_check.note_build(
        about.model.name, hashlib.sha256(all_files[manifest.NAME]).hexdigest()
    )
    return folder


def replaceable(folder: Path) -> str | None:
    """Say why a path is not a bundle with nothing added, which a new one may replace."""
    if not folder.is_dir():
        return "it is not a folder"
    if not any(folder.iterdir()):
        return None
    if not (folder / manifest.NAME).is_file():
        return "it is not a bundle"
    try:
        listed_files = _listed_files(folder)
    except UserError as error:
        return f"{error.diagnostics[0].message}: {error.diagnostics[0].label}"
    known = {*listed_files, manifest.NAME, signed_files.NAME}
    extra = sorted(regular_files.walk_files(folder) - known)
    return f"it holds a file that is not the bundle's: {extra[0]}" if extra else None


def read(folder: Path, known: Known, policy: SignaturePolicy | None) -> Bundle:
    """Return the bundle in a folder, after checking its signature and every file.

    Args:
        folder: The bundle.
        known: Says what the precisions of targets are.
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
        before = identity(folder)
        try:
            return _read(folder, before, known, policy)
        except UserError:
            atomic_files.recover(folder)  # it waits for whoever replaces the folder
            if identity(folder) == before:
                raise


def identity(folder: Path) -> tuple[int, ...] | None:
    """Return what tells a bundle from one that takes its place; None where there is none."""
    with suppress(OSError, ValueError):
        found = os.stat(folder / manifest.NAME)
        # A bundle is put in its place by a rename, so that its manifest is another file.
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
    return None


def _read(
    folder: Path, seen: tuple[int, ...] | None, known: Known, policy: SignaturePolicy | None
) -> Bundle:
    if not os.path.isfile(folder / manifest.NAME):
        raise mistaken_paths.no_bundle(folder)
    # Read once: what is signed has to be what is understood.
    data = _manifest_bytes(folder)
    about = manifest.decode(data, str(folder / manifest.NAME))
    # First of all, before any file that it lists is touched: does a path lead elsewhere?
    if wrong := tuple(_outside(folder, about)):
        raise UserError(wrong)
    manifest_checks.check(about, str(folder / manifest.NAME), known)
    wrong = tuple(d for file in about.files if (d := problem(folder, file)))
    if wrong := (*wrong, *unlisted(folder, about)):
        raise UserError(wrong)
    digest = hashlib.sha256(data).hexdigest()
    signer = signature_check.check(folder, about, digest, policy) if policy else None
    return Bundle(folder, about, seen, signer=signer)


def stated(folder: Path) -> Manifest:
    """Return the manifest in a folder, or raise what is wrong with it by itself."""
    return manifest.decode(_manifest_bytes(folder), str(folder / manifest.NAME))


def _manifest_bytes(folder: Path) -> bytes:
    path = folder / manifest.NAME
    data = regular_files.read_file(path, "read this", manifest.MAX_BYTES + 1)
    if len(data) > manifest.MAX_BYTES:
        raise fail("E0621", "the manifest is too large", whole_file(str(path)))
    return data


def _listed_files(folder: Path) -> Iterable[str]:
    """Return the paths that a bundle's manifest lists, to tell what is of it and what is not."""
    data = _manifest_bytes(folder)
    # To be replaced, it need not be understood: that it is whole shows in its seal, and who checks
    # more of it loads what reads schemas.
    paths = manifest.sealed_paths(data)
    if paths is not None:
        return paths
    return [file.path for file in manifest.decode(data, str(folder / manifest.NAME)).files]


def problem(folder: Path, file: BundleFile) -> Diagnostic | None:
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
    return Diagnostic("E0622", message, whole_file(str(path)), label=label, help=help)


def _outside(folder: Path, about: Manifest) -> Iterator[Diagnostic]:
    """Yield the listed paths that leave the folder."""
    for file in about.files:
        if not _inside(folder, file.path):
            where, message = whole_file(str(folder / file.path)), "a bundle's file must be in it"
            yield Diagnostic("E0623", message, where, label=file.path, help="build it again")


def unlisted(folder: Path, about: Manifest) -> Iterator[Diagnostic]:
    """Yield what lies beside the target's files, and might be taken for one of them."""
    listed = {file.path for file in about.files}
    for path in sorted(f"{MODEL}/{name}" for name in regular_files.walk_files(folder / MODEL)):
        if path not in listed:
            where = whole_file(str(folder / path))
            yield Diagnostic("E0622", "this file is not the bundle's", where, help="remove it")


def _inside(folder: Path, name: str) -> bool:
    """Whether a listed path is a plain one below the folder, through no link."""
    pure = PurePosixPath(name)
    plain = not pure.is_absolute() and ".." not in pure.parts
    # A link out of the folder would have us run, or show, a file that no hash of the maker's is of.
    return plain and Path(os.path.realpath(folder / name)) == folder.resolve() / pure


T = TypeVar("T")
TRIES = 10
"""How often something is done with a bundle that others replace with the same one meanwhile."""


def undisturbed(bundle: Bundle, work: Callable[[Bundle], T]) -> T:
    """Return what is found out of a bundle that nobody replaced meanwhile.

    Args:
        bundle: A bundle that was read; one that is not in its place yet is nobody else's.
        work: What is done with it: more than once, where the same bundle took its place meanwhile.

    Returns:
        What `work` gives.

    Raises:
        UserError: Another bundle took its place (E0622), or the same one `TRIES` times; and what
            `work` raises of a bundle that stood still.
    """
    for _ in range(TRIES):
        bundle = bundle if _stands(bundle) else _again(bundle)
        try:
            found = work(bundle)
        except (UserError, OSError):
            # A file may have been looked for in the moment between the two folders.
            if _stands(bundle):
                raise
        else:
            if _stands(bundle):
                return found
    raise _taken(bundle)


def _stands(bundle: Bundle) -> bool:
    return bundle.seen is None or bundle.seen == identity(bundle.folder)


def _again(bundle: Bundle) -> Bundle:
    """Return the bundle that took its place, where it is the same to the byte."""
    atomic_files.recover(bundle.folder)  # it waits for whoever replaces the folder
    seen = identity(bundle.folder)
    with suppress(UserError):
        if seen and not any(_changes(bundle)):
            return replace(bundle, seen=seen)
    raise _taken(bundle)


def _changes(bundle: Bundle) -> Iterator[object]:
    """Yield what is not, to the byte, what the bundle was when it was read."""
    folder, about = bundle.folder, bundle.manifest
    yield stated(folder) != about
    yield from (problem(folder, file) for file in about.files)
    yield from unlisted(folder, about)


def _taken(bundle: Bundle) -> UserError:
    message = "another bundle took this one's place while it was in use"
    return fail("E0622", message, whole_file(str(bundle.folder)), help="run the command again")


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
    files = {file.path: regular_files.read_file(found.folder / file.path) for file in kept}
    added = {f"{MODEL}/{name}": data for name, data in beside.items()}
    programs = frozenset(file.path for file in about.files if file.executable)
    added_files = listed(added, programs & added.keys())
    known = {file.path: file for file in (*kept, *added_files)}
    # A fresh seal must not be set on files that somebody changed since, nor on what was made of
    # them.
    if changed := [d for file in about.files if (d := problem(found.folder, file))]:
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
    atomic_files.write_tree(found.folder, everything, executable, replaceable)
    _keep_known(about.files, known)
    signature_check.note_build(
        about.model.name, hashlib.sha256(everything[manifest.NAME]).hexdigest()
    )
    return Bundle(found.folder, fresh, identity(found.folder), found.trusted)


def _keep_known(old_files: Iterable[BundleFile], new_files: Mapping[str, BundleFile]) -> None:
    """Let a program run that a known one became by what was fitted alone."""
    changed = [file for file in old_files if new_files.get(file.path, file) != file]
    if changed:
        user_folders.KNOWN_PROGRAMS.add(
            new_files[file.path].sha256
            for file in changed
            if user_folders.KNOWN_PROGRAMS.has(file.sha256)
        )
