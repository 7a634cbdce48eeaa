"""What is checked of an image file that Pillow does not check, or only when it is late."""

from tcc.compiler.data import image_errors, png_file
from tcc.compiler.data.png_errors import AnimatedPngError
from tcc.compiler.support.diagnostics import fail, whole_file
from tcc.compiler.support.image_folders import kind

MAX_SCANS = 100
"""Most scans of a JPEG file, each of which goes over all its pixels; encoders make some ten."""


def check_file(data: bytes, name: str) -> int:
    """Check an encoded image; most formats have nothing to check.

    Returns:
        How many colors the palette of a PNG file has; 0 where there is none.

    Raises:
        UserError: A JPEG file goes over its pixels too often, or a PNG file is too large (E0704),
            or it has parts of an animation (E0707).
        PngError: A PNG file is damaged.
    """
    match kind(data[:256]):
        case "PNG":
            try:
                return png_file.check(data, name)
            except AnimatedPngError:
                raise image_errors.animated(name) from None
        case "JPEG" if data.count(b"\xff\xda") > MAX_SCANS:  # as data, 0xff is never before this
            message = f"this JPEG file has more than {MAX_SCANS} scans, each over all its pixels"
            raise fail("E0704", message, whole_file(name), help="save it anew")
        case _:
            return 0
