"""Limits of image sizes, the same on every target; the C code has the same messages.

They bound memory and time: a file of 4 KB can unpack to gigabytes.
"""

from tcc.compiler.support.diagnostics import UserError, fail, make_file_span

MAX_SIDE = 1 << 16
"""Largest height or width of an image, in pixels."""
MAX_PIXELS = 1 << 26
"""Most pixels of an image: 8192 x 8192."""
MAX_ROWS_BYTES = 1 << 28
"""Bytes of the rows that a resize keeps between its two passes: (source rows that are read) x
(columns of the result that are kept) x channels. No other memory of preprocessing grows with the
image."""
TOO_LARGE = "the image is too large: at most 65536 pixels a side and 64 Mi in all are read"
TOO_COSTLY = "the image is too large for this resize: its rows would take more than 256 MiB"


def check(height: int, width: int, name: str) -> None:
    """Refuse an image that is too large, before memory is allocated.

    Args:
        height: In pixels.
        width: In pixels.
        name: The image's name in the error.

    Raises:
        UserError: It is too large (E0704).
    """
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise make_size_error(name, f"it is {width}x{height} pixels")


def check_rows(rows: int, columns: int, channels: int, name: str) -> None:
    """Refuse an image whose resize needs too much memory.

    Args:
        rows: Source rows that are read.
        columns: Columns of the result that are kept.
        channels: Channels of a pixel.
        name: The image's name in the error.

    Raises:
        UserError: It needs too much (E0704).
    """
    # One byte each: rows are kept as 8-bit values between the two passes, as in Pillow.
    buffer_bytes = rows * columns * channels
    if buffer_bytes > MAX_ROWS_BYTES:
        label = f"{rows} rows of {columns} pixels: {buffer_bytes >> 20} MiB"
        help = "cut it into tiles, or scale it down first"
        raise fail("E0704", TOO_COSTLY, make_file_span(name), label=label, help=help)


def make_size_error(name: str, label: str = "") -> UserError:
    """Return the error of an image that is too large; `label` has its size."""
    return fail("E0704", TOO_LARGE, make_file_span(name), label=label, help="cut it into tiles")
