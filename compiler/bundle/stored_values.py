"""Reads quantized values from the bytes in which artifacts show them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_INT8, MAX_UINT8 = 127, 255


def read_stored(codes: NDArray[Any], high: int) -> NDArray[np.int16]:
    """Return an artifact's quantized values from its bytes, as int16.

    The largest value of the layer's type, `high`, is the largest byte: int8 or uint8.
    """
    max_byte = MAX_INT8 if codes.dtype == np.int8 else MAX_UINT8
    return codes.astype(np.int16) + np.int16(high - max_byte)
