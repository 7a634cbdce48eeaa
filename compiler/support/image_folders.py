"""Folders of images: which files are taken, and which look like images but are not."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tcc.compiler.support.diagnostics import Diagnostic, make_file_span

READ_SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm", ".webp",
})  # fmt: skip
"""Endings of files whose formats are read."""
UNREAD_SUFFIXES = frozenset({
    ".gif", ".jp2", ".j2k", ".jpf", ".jpx", ".jxl", ".heic", ".heif", ".avif", ".dcm",
    ".dicom", ".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".bif", ".czi", ".nii", ".mha", ".nrrd",
    ".tga", ".pcx", ".ico", ".psd", ".svg", ".exr", ".hdr", ".pfm", ".apng", ".mng",
})  # fmt: skip
"""Endings of images in formats that are not."""
SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"), (0, b"\xff\xd8\xff", "JPEG"), (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"), (0, b"II+\0", "TIFF"), (0, b"GIF87a", "GIF"), (0, b"GIF89a", "GIF"),
    (8, b"WEBP", "WEBP"), (128, b"DICM", "DICOM"), (4, b"jP  \r\n\x87\n", "JPEG 2000"),
    (4, b"ftypheic", "HEIC"), (4, b"ftypmif1", "HEIC"), (4, b"ftypavif", "AVIF"),
    (0, b"\xff\x0a", "JPEG XL"), (4, b"JXL \r\n\x87\n", "JPEG XL"), (0, b"8BPS", "Photoshop"),
)  # fmt: skip
"""What files of a format begin with, and where."""
TABLE = "index.csv"
"""The table of a data set's images, in its folder, which training reads."""
MAX_NAMED = 10
"""Files that a warning names."""
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "PPM", "WEBP")
"""Formats that are read, by the names that Pillow has for them."""
FORMATS_HELP = f"formats that are read: {', '.join(FORMATS)}"


@dataclass(frozen=True, slots=True)
class ImageListing:
    """The images in a folder and below it, sorted, and all else that lies there.

    `skipped` are files that look like images, and links; `other_files` are files of other kinds,
    and folders that are hidden, which are not entered.
    """

    images: tuple[Path, ...]
    skipped: tuple[Path, ...]
    other_files: tuple[Path, ...] = ()

    def collect_warnings(self) -> Iterator[Diagnostic]:
        """Yield what must be known of what is not taken."""
        if self.skipped:
            count = len(self.skipped)
            message = "1 file that looks like an image is skipped"
            if count > 1:
                message = f"{count:,} files that look like images are skipped"
            yield make_warning("E0717", message, _explain_skipped(self.skipped), FORMATS_HELP)
        if self.other_files:
            count = len(self.other_files)
            message = "1 file that is no image is left out"
            if count > 1:
                message = f"{count:,} files that are no images are left out"
            diagnostic = make_warning("E0719", message, _explain_skipped(self.other_files))
            yield replace(diagnostic, severity="note")

    def make_empty_error(self, code: str, folder: Path) -> Diagnostic:
        """Return the error of a folder in which no image is, with what looks like one."""
        message, at = "no image in this folder", make_file_span(str(folder))
        notes = [f"{name}: {reason}" for name, reason in _explain_skipped(self.skipped[:MAX_NAMED])]
        return Diagnostic(code, message, at, notes=tuple(notes), help=FORMATS_HELP if notes else "")


def list_images(folder: Path) -> ImageListing:
    """Return the images of a folder; links to other folders are not followed, but named.

    What systems and editors hide is not taken, whatever it is called: thumbnails, and the twins
    that macOS makes of files.
    """
    images: list[Path] = []
    skipped: list[Path] = []
    other_files: list[Path] = []
    # os.walk follows no links, which may lead in circles.
    walk = os.walk(folder, onerror=lambda error: skipped.append(Path(str(error.filename))))
    for parent, folders, names in walk:
        other_files += [Path(parent, name) for name in folders if _is_hidden(name)]
        # In place: `os.walk` enters what is left of this list.
        folders[:] = [name for name in folders if not _is_hidden(name)]
        skipped += [Path(parent, name) for name in folders if os.path.islink(Path(parent, name))]
        for path in (Path(parent, name) for name in names):
            if path == folder / TABLE:
                continue
            if not _is_image_like(path):
                other_files.append(path)
            elif (
                path.suffix.lower() in READ_SUFFIXES
                and path.is_file()
                and not _is_hidden(path.name)
            ):
                images.append(path)
            else:
                skipped.append(path)
    return ImageListing(tuple(sorted(images)), tuple(sorted(skipped)), tuple(sorted(other_files)))


def _is_hidden(name: str) -> bool:
    """Whether a file or folder is a system's or an editor's, not the user's."""
    return name.startswith(".") or name == "__MACOSX"


def make_warning(
    code: str, message: str, files: Sequence[tuple[str, str]], help: str = ""
) -> Diagnostic:
    """Return a warning about files and what each is; the first is its place, notes name others."""
    (first_name, reason), *other_paths = files
    notes = [f"{name}: {label}" if label else name for name, label in other_paths[: MAX_NAMED - 1]]
    if len(other_paths) > len(notes):
        notes.append(f"and {len(other_paths) - len(notes):,} more")
    return Diagnostic(
        code, message, make_file_span(first_name), reason, tuple(notes), help, "warning"
    )


def _explain_skipped(paths: Iterable[Path]) -> list[tuple[str, str]]:
    return [(str(path), _explain_path(path)) for path in paths]


def group_remarks(remarks_by_file: Iterable[tuple[str, Sequence[str]]]) -> Iterator[Diagnostic]:
    """Yield one warning for each remark on images, given the remarks on each file by name."""
    files: dict[str, list[tuple[str, str]]] = {}
    for name, remarks in remarks_by_file:
        for remark in remarks:
            files.setdefault(remark, []).append((name, ""))
    for remark, labels in files.items():
        yield make_warning("E0718", remark, labels)


def detect_format(head: bytes) -> str:
    """Return the format that the first bytes of a file are of, if that is known."""
    return next((name for at, magic, name in SIGNATURES if head[at:].startswith(magic)), "")


def _is_image_like(path: Path) -> bool:
    return path.suffix.lower() in READ_SUFFIXES | UNREAD_SUFFIXES or bool(
        detect_format(_read_head(path))
    )


def _explain_path(path: Path) -> str:
    """Return in a few words why a path is passed over; nothing where its name says it."""
    if _is_hidden(path.name):
        return "a hidden folder, which is not entered" if path.is_dir() else "it is hidden"
    if path.is_dir():
        return (
            "a link to a folder, which is not followed"
            if path.is_symlink()
            else "it cannot be read"
        )
    if not path.is_file():
        return "there is no file behind this link" if path.is_symlink() else "it is no file"
    format_name = detect_format(_read_head(path))
    if format_name in FORMATS:
        return f"it is {format_name}, but is not called so"
    if format_name:
        return f"{format_name} is not read"
    return f"{path.suffix} is not read" if path.suffix.lower() in UNREAD_SUFFIXES else ""


def _read_head(path: Path) -> bytes:
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            # The farthest of `HEADS` stands at 128.
            return file.read(256)
    except OSError:
        return b""
