"""Folders of images: which files are taken, and which look like images but are not."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tcc.compiler.support.diagnostics import Diagnostic, whole_file

TAKEN = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm", ".webp",
})  # fmt: skip
"""Endings of files whose formats are read."""
OTHERS = frozenset({
    ".gif", ".jp2", ".j2k", ".jpf", ".jpx", ".jxl", ".heic", ".heif", ".avif", ".dcm",
    ".dicom", ".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".bif", ".czi", ".nii", ".mha", ".nrrd",
    ".tga", ".pcx", ".ico", ".psd", ".svg", ".exr", ".hdr", ".pfm", ".apng", ".mng",
})  # fmt: skip
"""Endings of images in formats that are not."""
HEADS = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"), (0, b"\xff\xd8\xff", "JPEG"), (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"), (0, b"II+\0", "TIFF"), (0, b"GIF87a", "GIF"), (0, b"GIF89a", "GIF"),
    (8, b"WEBP", "WEBP"), (128, b"DICM", "DICOM"), (4, b"jP  \r\n\x87\n", "JPEG 2000"),
    (4, b"ftypheic", "HEIC"), (4, b"ftypmif1", "HEIC"), (4, b"ftypavif", "AVIF"),
    (0, b"\xff\x0a", "JPEG XL"), (4, b"JXL \r\n\x87\n", "JPEG XL"), (0, b"8BPS", "Photoshop"),
)  # fmt: skip
"""What files of a format begin with, and where."""
TABLE = "index.csv"
"""The table of a data set's images, in its folder, which training reads."""
MOST_NAMED = 10
"""Files that a warning names."""
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "PPM", "WEBP")
"""Formats that are read, by the names that Pillow has for them."""
READ = f"formats that are read: {', '.join(FORMATS)}"


@dataclass(frozen=True, slots=True)
class Listing:
    """The images in a folder and below it, sorted, and all else that lies there.

    `skipped` are files that look like images, and links; `others` are files of other kinds, and
    folders that are hidden, which are not entered.
    """

    images: tuple[Path, ...]
    skipped: tuple[Path, ...]
    others: tuple[Path, ...] = ()

    def warnings(self) -> Iterator[Diagnostic]:
        """Yield what must be known of what is not taken."""
        if self.skipped:
            count = len(self.skipped)
            what = "1 file that looks like an image is skipped"
            if count > 1:
                what = f"{count:,} files that look like images are skipped"
            yield warning("E0717", what, _reasons(self.skipped), READ)
        if self.others:
            count = len(self.others)
            what = "1 file that is no image is left out"
            if count > 1:
                what = f"{count:,} files that are no images are left out"
            found = warning("E0719", what, _reasons(self.others))
            yield replace(found, severity="note")

    def nothing(self, code: str, folder: Path) -> Diagnostic:
        """Return the error of a folder in which no image is, with what looks like one."""
        message, where = "no image in this folder", whole_file(str(folder))
        named = [f"{name}: {why}" for name, why in _reasons(self.skipped[:MOST_NAMED])]
        return Diagnostic(code, message, where, notes=tuple(named), help=READ if named else "")


def listing(folder: Path) -> Listing:
    """Return the images of a folder; links to other folders are not followed, but named.

    What systems and editors hide is not taken, whatever it is called: thumbnails, and the twins
    that macOS makes of files.
    """
    taken: list[Path] = []
    skipped: list[Path] = []
    others: list[Path] = []
    # os.walk follows no links, which may lead in circles.
    walk = os.walk(folder, onerror=lambda error: skipped.append(Path(str(error.filename))))
    for place, below, names in walk:
        others += [Path(place, name) for name in below if _hidden(name)]
        # In place: `os.walk` enters what is left of this list.
        below[:] = [name for name in below if not _hidden(name)]
        skipped += [Path(place, name) for name in below if os.path.islink(Path(place, name))]
        for path in (Path(place, name) for name in names):
            if path == folder / TABLE:
                continue
            if not _looks_like_one(path):
                others.append(path)
            elif path.suffix.lower() in TAKEN and path.is_file() and not _hidden(path.name):
                taken.append(path)
            else:
                skipped.append(path)
    return Listing(tuple(sorted(taken)), tuple(sorted(skipped)), tuple(sorted(others)))


def _hidden(name: str) -> bool:
    """Whether a file or folder is a system's or an editor's, not the user's."""
    return name.startswith(".") or name == "__MACOSX"


def warning(
    code: str, message: str, named: Sequence[tuple[str, str]], help: str = ""
) -> Diagnostic:
    """Return a warning about files and what each is; the first is its place, notes name others."""
    (first, why), *others = named
    notes = [f"{name}: {what}" if what else name for name, what in others[: MOST_NAMED - 1]]
    if len(others) > len(notes):
        notes.append(f"and {len(others) - len(notes):,} more")
    return Diagnostic(code, message, whole_file(first), why, tuple(notes), help, "warning")


def _reasons(paths: Iterable[Path]) -> list[tuple[str, str]]:
    return [(str(path), _why(path)) for path in paths]


def remarks(found: Iterable[tuple[str, Sequence[str]]]) -> Iterator[Diagnostic]:
    """Yield one warning for each remark on images, given the remarks on each file by name."""
    files: dict[str, list[tuple[str, str]]] = {}
    for name, said in found:
        for remark in said:
            files.setdefault(remark, []).append((name, ""))
    for remark, named in files.items():
        yield warning("E0718", remark, named)


def kind(head: bytes) -> str:
    """Return the format that the first bytes of a file are of, if that is known."""
    return next((name for at, magic, name in HEADS if head[at:].startswith(magic)), "")


def _looks_like_one(path: Path) -> bool:
    return path.suffix.lower() in TAKEN | OTHERS or bool(kind(_head(path)))


def _why(path: Path) -> str:
    """Return in a few words why a path is passed over; nothing where its name says it."""
    if _hidden(path.name):
        return "a hidden folder, which is not entered" if path.is_dir() else "it is hidden"
    if path.is_dir():
        return (
            "a link to a folder, which is not followed"
            if path.is_symlink()
            else "it cannot be read"
        )
    if not path.is_file():
        return "there is no file behind this link" if path.is_symlink() else "it is no file"
    found = kind(_head(path))
    if found in FORMATS:
        return f"it is {found}, but is not called so"
    if found:
        return f"{found} is not read"
    return f"{path.suffix} is not read" if path.suffix.lower() in OTHERS else ""


def _head(path: Path) -> bytes:
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            # The farthest of `HEADS` stands at 128.
            return file.read(256)
    except OSError:
        return b""
