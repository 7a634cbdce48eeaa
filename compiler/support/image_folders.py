"""Folders of images: which files are read, and which look like images but are skipped."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tcc.compiler.support.diagnostics import Diagnostic, make_file_span

READ_SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm", ".webp",
})  # fmt: skip
"""Suffixes of image formats that are read."""
UNREAD_SUFFIXES = frozenset({
    ".gif", ".jp2", ".j2k", ".jpf", ".jpx", ".jxl", ".heic", ".heif", ".avif", ".dcm",
    ".dicom", ".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".bif", ".czi", ".nii", ".mha", ".nrrd",
    ".tga", ".pcx", ".ico", ".psd", ".svg", ".exr", ".hdr", ".pfm", ".apng", ".mng",
})  # fmt: skip
"""Suffixes of image formats that are not read."""
SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", "PNG"), (0, b"\xff\xd8\xff", "JPEG"), (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"), (0, b"II+\0", "TIFF"), (0, b"GIF87a", "GIF"), (0, b"GIF89a", "GIF"),
    (8, b"WEBP", "WEBP"), (128, b"DICM", "DICOM"), (4, b"jP  \r\n\x87\n", "JPEG 2000"),
    (4, b"ftypheic", "HEIC"), (4, b"ftypmif1", "HEIC"), (4, b"ftypavif", "AVIF"),
    (0, b"\xff\x0a", "JPEG XL"), (4, b"JXL \r\n\x87\n", "JPEG XL"), (0, b"8BPS", "Photoshop"),
)  # fmt: skip
"""Offset and bytes that identify a file format."""
TABLE = "index.csv"
"""The table of a dataset's images in its folder, which training reads."""
MAX_NAMED = 10
"""Files that a warning lists."""
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "PPM", "WEBP")
"""Formats that are read, by their names in Pillow."""
FORMATS_HELP = f"supported formats: {', '.join(FORMATS)}"


@dataclass(frozen=True, slots=True)
class ImageListing:
    """The images in a folder and below it, sorted, and everything else in it.

    `skipped` are files that look like images, and links; `other_files` are files of other kinds
    and hidden folders, which are not searched.
    """

    images: tuple[Path, ...]
    skipped: tuple[Path, ...]
    other_files: tuple[Path, ...] = ()

    def collect_warnings(self) -> Iterator[Diagnostic]:
        """Yield a warning about files that look like images, and a note about other files."""
        if self.skipped:
            count = len(self.skipped)
            message = "1 file that looks like an image is skipped"
            if count > 1:
                message = f"{count:,} files that look like images are skipped"
            yield make_warning("E0717", message, _explain_skipped(self.skipped), FORMATS_HELP)
        if self.other_files:
            count = len(self.other_files)
            message = "1 file is not an image and is ignored"
            if count > 1:
                message = f"{count:,} files are not images and are ignored"
            diagnostic = make_warning("E0719", message, _explain_skipped(self.other_files))
            yield replace(diagnostic, severity="note")

    def make_empty_error(self, code: str, folder: Path) -> Diagnostic:
        """Return the error of a folder without images, with the files that look like images."""
        message, at = "no image in this folder", make_file_span(str(folder))
        notes = [f"{name}: {reason}" for name, reason in _explain_skipped(self.skipped[:MAX_NAMED])]
        return Diagnostic(code, message, at, notes=tuple(notes), help=FORMATS_HELP if notes else "")


def list_images(folder: Path) -> ImageListing:
    """Return the images of a folder; links to folders are listed but not followed.

    Hidden files and folders are skipped, such as thumbnails and the copies that macOS makes.
    """
    images: list[Path] = []
    skipped: list[Path] = []
    other_files: list[Path] = []
    # os.walk does not follow links, which may form a cycle.
    walk = os.walk(folder, onerror=lambda error: skipped.append(Path(str(error.filename))))
    for parent, folders, names in walk:
        other_files += [Path(parent, name) for name in folders if _is_hidden(name)]
        # In place: `os.walk` enters the folders that are left in this list.
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
    """Whether a file or folder belongs to the system or an editor, not to the user."""
    return name.startswith(".") or name == "__MACOSX"


def make_warning(
    code: str, message: str, files: Sequence[tuple[str, str]], help: str = ""
) -> Diagnostic:
    """Return a warning about files, each with a reason; it points at the first, notes list more."""
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
    """Yield one warning per remark on images, given the remarks on each file by name."""
    files: dict[str, list[tuple[str, str]]] = {}
    for name, remarks in remarks_by_file:
        for remark in remarks:
            files.setdefault(remark, []).append((name, ""))
    for remark, labels in files.items():
        yield make_warning("E0718", remark, labels)


def detect_format(head: bytes) -> str:
    """Return the format that a file's first bytes show; empty if unknown."""
    return next((name for at, magic, name in SIGNATURES if head[at:].startswith(magic)), "")


def _is_image_like(path: Path) -> bool:
    return path.suffix.lower() in READ_SUFFIXES | UNREAD_SUFFIXES or bool(
        detect_format(_read_head(path))
    )


def _explain_path(path: Path) -> str:
    """Return briefly why a path is skipped; empty if its name shows it."""
    if _is_hidden(path.name):
        return "a hidden folder, which is not searched" if path.is_dir() else "it is hidden"
    if path.is_dir():
        return (
            "a link to a folder, which is not followed"
            if path.is_symlink()
            else "it cannot be read"
        )
    if not path.is_file():
        return "this link points to no file" if path.is_symlink() else "it is not a file"
    format_name = detect_format(_read_head(path))
    if format_name in FORMATS:
        return f"it is a {format_name} file, but its name lacks the suffix"
    if format_name:
        return f"{format_name} is not supported"
    return f"{path.suffix} is not supported" if path.suffix.lower() in UNREAD_SUFFIXES else ""


def _read_head(path: Path) -> bytes:
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            # The largest offset in `SIGNATURES` is 128.
            return file.read(256)
    except OSError:
        return b""
