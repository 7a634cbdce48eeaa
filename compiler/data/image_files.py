"""Bytes of image files, and what may be said of them; no decoder is loaded here."""

from pathlib import Path

from tcc.compiler.ir import image_limits
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.image_folders import FORMATS, detect_format


def make_format_error(content: bytes, name: str) -> UserError:
    """Return the error of a file that no decoder takes: of no known format, or damaged."""
    file_format = detect_format(content[:256])
    if file_format in FORMATS:
        label = f"it begins as {file_format} does, and what follows cannot be read"
        help = "it may have been cut short: copy or export it again"
        return fail("E0703", "the image is damaged", make_file_span(name), label=label, help=help)
    known_formats = ", ".join(FORMATS)
    return fail(
        "E0702",
        "not an image of a known format",
        make_file_span(name),
        label=f"it begins as {file_format} does"
        if file_format
        else "the file is empty"
        if not content
        else "",
        help=f"convert it to one of {known_formats}"
        if file_format
        else f"known formats: {known_formats}",
    )


def make_animation_error(name: str) -> UserError:
    """Return the error of an animation, or of several pages."""
    message = (
        "this file is an animation or has several pages, and which picture is meant is not known"
    )
    return fail(
        "E0707",
        message,
        make_file_span(name),
        help="save the one that is meant as a file of its own",
    )


def make_mode_error(mode: str, name: str) -> UserError:
    """Return the error of pixels of a mode that is not read."""
    if mode in ("LAB", "HSV"):
        message, help = f"colours of mode {mode} are not read", "convert the image to RGB"
    else:
        message = f"pixels of mode {mode} are not 8 bits a sample"
        help = "convert the image to 8 bits, choosing which values are black and white"
    return fail("E0705", message, make_file_span(name), help=help)


def describe_error(error: Exception) -> str:
    """Return what went wrong in a few words, without a path or a memory address."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:160] or type(error).__name__


MAX_BYTES = 1 << 28
"""Largest image file, in bytes."""
PICTURES = "of several pictures in a JPEG file, the first is taken"
DEPTH = "of samples of more than 8 bits, 8 are kept"
ALPHA = "transparency is dropped: transparent pixels get the colour that is stored under them"
CMYK = "CMYK becomes RGB by a plain formula, without its colour profile"


def read_bytes(path: Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        UserError: The file cannot be read (E0701) or is too large (E0704).
    """
    span = make_file_span(str(path))
    try:
        with regular_files.open_file(path) as file:
            # A byte more than may be: of pipes, and of files that grow, no size is known before.
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise fail("E0701", "cannot read the image", span, label=describe_error(error)) from None
    if len(content) > MAX_BYTES:
        raise image_limits.make_size_error(
            str(path), f"its file is larger than {MAX_BYTES >> 20} MiB"
        )
    return content
