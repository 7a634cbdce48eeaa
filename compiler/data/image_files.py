"""Bytes of image files, and what may be said of them; no decoder is loaded here."""

from pathlib import Path

from tcc.compiler.data import image_errors
from tcc.compiler.ir import image_limits
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import fail, whole_file

MAX_BYTES = 1 << 28
"""Largest image file, in bytes."""
PICTURES = "of several pictures in a JPEG file, the first is taken"
DEPTH = "of samples of more than 8 bits, 8 are kept"
ALPHA = "transparency is dropped: transparent pixels get the colour that is stored under them"
CMYK = "CMYK becomes RGB by a plain formula, without its colour profile"


def contents(path: Path) -> bytes:
    """Return the bytes of an image file.

    Raises:
        UserError: The file cannot be read (E0701) or is too large (E0704).
    """
    where = whole_file(str(path))
    try:
        with regular_files.opened(path) as file:
            # A byte more than may be: of pipes, and of files that grow, no size is known before.
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise fail(
            "E0701", "cannot read the image", where, label=image_errors.reason(error)
        ) from None
    if len(data) > MAX_BYTES:
        raise image_limits.too_large(str(path), f"its file is larger than {MAX_BYTES >> 20} MiB")
    return data
