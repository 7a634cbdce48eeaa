"""What is said of files that are no images that are read."""

from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.support.image_folders import FORMATS, kind


def unknown(data: bytes, name: str) -> UserError:
    """Return the error of a file that no decoder takes: of no known format, or damaged."""
    found = kind(data[:256])
    if found in FORMATS:
        label = f"it begins as {found} does, and what follows cannot be read"
        help = "it may have been cut short: copy or export it again"
        return fail("E0703", "the image is damaged", whole_file(name), label=label, help=help)
    known = ", ".join(FORMATS)
    return fail(
        "E0702",
        "not an image of a known format",
        whole_file(name),
        label=f"it begins as {found} does" if found else "the file is empty" if not data else "",
        help=f"convert it to one of {known}" if found else f"known formats: {known}",
    )


def animated(name: str) -> UserError:
    """Return the error of an animation, or of several pages."""
    message = (
        "this file is an animation or has several pages, and which picture is meant is not known"
    )
    return fail(
        "E0707", message, whole_file(name), help="save the one that is meant as a file of its own"
    )


def unfit(mode: str, name: str) -> UserError:
    """Return the error of pixels of a mode that is not read."""
    if mode in ("LAB", "HSV"):
        message, help = f"colours of mode {mode} are not read", "convert the image to RGB"
    else:
        message = f"pixels of mode {mode} are not 8 bits a sample"
        help = "convert the image to 8 bits, choosing which values are black and white"
    return fail("E0705", message, whole_file(name), help=help)


def reason(error: Exception) -> str:
    """Return what went wrong in a few words, without a path or a memory address."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:160] or type(error).__name__
