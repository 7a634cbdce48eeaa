"""Read files, Pillow images and arrays as RGB pixels."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from tcc.compiler.ir.graph import Input
    from tcc.compiler.support.diagnostics import UserError

    ImageLike = str | PathLike[str] | Image | NDArray[Any]

ACCEPTED_FORM = "arrays of uint8 (height, width, 3), RGB from 0 to 255, or (height, width), grey"
"""The arrays that are accepted."""


def read_all(
    images: "ImageLike | Sequence[ImageLike]", network_input: "Input"
) -> "tuple[list[str], list[NDArray[np.uint8]]]":
    """Return the name of each image, and its pixels, uint8 (height, width, 3).

    Args:
        images: One image or several.
        network_input: The image input of the network.

    Raises:
        UserError: An image is damaged, the network does not take its size, or an array has another
            form (E1450).
    """
    import numpy as np

    from tcc.compiler.data.dataset import check_image
    from tcc.compiler.data.images import is_picture

    # One image has two or three axes; a batch has four.
    pixels_of_one = isinstance(images, np.ndarray) and images.ndim < 4
    is_single = pixels_of_one or isinstance(images, str | PathLike) or is_picture(images)
    image_list = cast("Sequence[ImageLike]", [images] if is_single else images)
    named_images = [(_name_image(image, index), image) for index, image in enumerate(image_list)]
    pixels = [
        check_image(_read_image(image, name), network_input, name) for name, image in named_images
    ]
    return [name for name, _ in named_images], pixels


def _name_image(image: object, index: int) -> str:
    if isinstance(image, str | PathLike):
        return str(image)
    return f"image {index} ({type(image).__name__})"


def _read_image(image: object, name: str) -> "NDArray[np.uint8]":
    import numpy as np

    from tcc.compiler.data import images

    match image:
        case str() | PathLike():
            return images.read_image(Path(image))
        case np.ndarray():
            return _read_array(image, name)
        case _ if images.is_picture(image):
            return images.convert_picture(image, name)
        case _:
            label = f"its type is {type(image).__module__}.{type(image).__qualname__}"
            raise _build_error(name, label, "give a path, a Pillow image or a numpy array")


def _read_array(array: "NDArray[Any]", name: str) -> "NDArray[np.uint8]":
    import numpy as np

    label = f"it is {array.dtype} {array.shape}"
    if array.dtype != np.uint8:
        help = (
            "if its values run from 0 to 1, give np.rint(255 * array).astype(np.uint8); "
            "if from 0 to 255, np.rint(array).astype(np.uint8)"
        )
        raise _build_error(name, label, help)
    if 0 in array.shape:
        raise _build_error(name, f"{label}, which is empty", "give an array with pixels")
    match array.shape:
        case (_, _):
            return np.repeat(array[:, :, None], 3, axis=2)
        case (1 | 3, _, 3):
            help = "give Image.fromarray(array) of Pillow if its rows are RGB pixels"
            raise _build_error(name, f"{label}: the channels may be first or last", help)
        case (_, _, 3):
            return np.ascontiguousarray(array)
        case (1 | 3, _, _):
            help = "put the channels last: array.transpose(1, 2, 0), or array[0] of one channel"
            raise _build_error(name, f"{label}: its channels seem to be first", help)
        case (_, _, 4):
            help = "leave out the fourth channel: array[:, :, :3], if the first three are RGB"
            raise _build_error(name, label, help)
        case _:
            raise _build_error(name, label, "give one image, or a list of them")


def _build_error(name: str, label: str, help: str) -> "UserError":
    from tcc.compiler.support.diagnostics import fail, make_file_span

    return fail(
        "E1450", f"`tcc.run` takes {ACCEPTED_FORM}", make_file_span(name), label=label, help=help
    )
