"""Read the bytes of image files and describe their problems, without loading a decoder."""

from pathlib import Path

from tcc.compiler.ir import image_limits
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.image_folders import FORMATS, detect_format


def make_format_error(content: bytes, name: str) -> UserError:
    """Return the error of a file that no decoder accepts: an unknown format, or damaged."""
    file_format = detect_format(content[:256])
    if file_format in FORMATS:
        label = f"it starts like a {file_format} file, but the rest cannot be read"
        help = "the file may be truncated: copy or export it again"
        return fail("E0703", "the image is damaged", make_file_span(name), label=label, help=help)
    known_formats = ", ".join(FORMATS)
    return fail(
        "E0702",
        "not an image of a known format",
        make_file_span(name),
        label=f"it starts like a {file_format} file"
        if file_format
        else "the file is empty"
        if not content
        else "",
        help=f"convert it to one of {known_formats}"
        if file_format
        else f"known formats: {known_formats}",
    )


def make_animation_error(name: str) -> UserError:
    """Return the error of an animation or a file with several pages."""
    message = "this file is an animation or has several pages, so the image to use is ambiguous"
    return fail(
        "E0707",
        message,
        make_file_span(name),
        help="save the frame or page that you want to a file of its own",
    )


def make_mode_error(mode: str, name: str) -> UserError:
    """Return the error of an unsupported pixel mode."""
    if mode in ("LAB", "HSV"):
        message, help = f"colour mode {mode} is not supported", "convert the image to RGB"
    else:
        message = f"pixel mode {mode} does not have 8 bits per sample"
        help = "convert the image to 8 bits per sample and choose the black and white values"
    return fail("E0705", message, make_file_span(name), help=help)


def describe_error(error: Exception) -> str:
    """Return a short description of an error, without paths or memory addresses."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:160] or type(error).__name__


MAX_BYTES = 1 << 28
"""Maximum size of an image file in bytes."""
PICTURES = "the JPEG file contains several images; only the first is used"
DEPTH = "samples have more than 8 bits; only 8 are kept"
ALPHA = "transparency is dropped; transparent pixels get the colour that is stored for them"
CMYK = "CMYK is converted to RGB by a simple formula, without the colour profile"


def read_bytes(path: Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        UserError: The file cannot be read (E0701) or is too large (E0704).
    """
    span = make_file_span(str(path))
    try:
        with regular_files.open_file(path) as file:
            # One byte over the limit: pipes and growing files have no size known in advance.
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise fail("E0701", "cannot read the image", span, label=describe_error(error)) from None
    if len(content) > MAX_BYTES:
        raise image_limits.make_size_error(
            str(path), f"its file is larger than {MAX_BYTES >> 20} MiB"
        )
    return content
