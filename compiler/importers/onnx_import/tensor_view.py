"""Values of the graph in the form of ONNX tensors: reshaped, transposed or cut.

A value of the graph is a feature map (1, C, H, W) or a vector (1, n). Reshapes and transposes in
between are recorded as the position of each element in the value, whichever operators are used.
When the result is a map or vector again, the positions determine the op.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.types import Pair, Shape, TensorType
from tcc.compiler.ops import ChannelShuffle, Op, Slice

Positions = NDArray[np.int64]
MAX_ELEMENTS = 1 << 24
"""Maximum number of elements of a value with recorded positions."""


class TooLargeError(ValueError):
    """A tensor has too many elements to record their positions."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A batch of one of a value; `index` has the positions in it, or None if nothing moved.

    `name` is the name of the step that materializes the view.
    """

    value: str
    type: TensorType
    index: Positions | None = None
    name: str = ""

    @property
    def shape(self) -> Shape:
        """Shape of the ONNX tensor, with the batch axis first."""
        return (1, *self.type.shape) if self.index is None else self.index.shape

    @property
    def is_materialized(self) -> bool:
        """Whether the tensor equals the value, without rearrangement."""
        return self.index is None

    def compute_positions(self) -> Positions:
        """Return the position of each element in the value.

        Raises:
            TooLargeError: There are too many.
        """
        if self.index is not None:
            return self.index
        if self.type.elements > MAX_ELEMENTS:
            raise TooLargeError
        return np.arange(self.type.elements).reshape(self.shape)

    def transform(self, change: Callable[[Positions], Positions], name: str = "") -> "View":
        """Return the tensor after an operator that only moves or drops elements."""
        index = change(self.compute_positions())
        is_permutation = index.size == self.type.elements and index.shape == (1, *self.type.shape)
        # Transposed twice, or reshaped to its own shape: the view is the value again.
        if is_permutation and np.array_equal(index.ravel(), np.arange(index.size)):
            return View(self.value, self.type)
        return View(self.value, self.type, index, name)

    def is_complete(self) -> bool:
        """Whether the view has every element of the value exactly once."""
        if self.index is None:
            return True
        return bool(np.array_equal(np.sort(self.index, axis=None), np.arange(self.type.elements)))

    def replace_value(self, value: str, type: TensorType) -> "View":
        """Return the same view of another value with the same shape."""
        return View(value, type, self.index, self.name)

    def to_value_layout(self, tensor: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Return a tensor of the view's shape in the shape of the value; None if incomplete.

        The tensor is broadcast to the view's shape.
        """
        if not self.is_complete():
            return None
        spread = np.broadcast_to(tensor, self.shape)
        if self.index is None:
            return np.asarray(spread[0], np.float32)
        # Positions are applied in reverse: each constant goes to the element it belongs to.
        flat = np.empty(self.type.elements, np.float32)
        flat[self.index.ravel()] = spread.ravel()
        return flat.reshape(self.type.shape)


def find_channels(view: View) -> list[int] | None:
    """Return the map channels in a view's second axis, if pixels are in order; else None.

    The view may be a map, or the map as one vector.
    """
    channels, *size = view.type.shape
    pixels = int(np.prod(size, dtype=np.int64))
    index = view.compute_positions()
    if index.size % pixels or not index.size:
        return None
    rows = index.reshape(-1, pixels)
    channel_order = rows[:, 0] // pixels
    if not np.array_equal(rows, channel_order[:, None] * pixels + np.arange(pixels)):
        return None
    # Only complete channels with pixels in order are a selection of channels.
    return [int(c) for c in channel_order] if channels else None


def select_channel_op(channels: list[int], count: int) -> Op | bool | None:
    """Return the op that selects these of `count` channels: None for all, False if no op does."""
    if channels == list(range(count)):
        return None
    # The first two give the step: of a slice, or the group size of a shuffle.
    step = channels[1] - channels[0] if len(channels) > 1 else 1
    if step > 0 and channels == list(range(channels[0], channels[-1] + 1, step)):
        return Slice(channels[0], channels[-1] + 1, step)
    if len(channels) == count and step > 0 and count % step == 0:
        groups = count // step
        # ShuffleNet, section 3.1 (Zhang et al., 2018): reshape to (groups, n), transpose, flatten.
        shuffled = np.arange(count).reshape(groups, step).T.ravel()
        if channels == shuffled.tolist():
            return ChannelShuffle(groups)
    return False


def find_strided_size(view: View) -> Pair | None:
    """Return the height and width of a view with every n-th row and column of a map."""
    if len(view.type.shape) != 3 or len(view.shape) != 4 or view.shape[2:] == view.type.shape[1:]:
        return None
    _, *sizes = view.type.shape
    steps = [
        # Strided slices that keep every n-th row start with the first row, like nearest resampling
        # by an integer factor.
        n // out if out and n % out == 0 else n
        for n, out in zip(sizes, view.shape[2:], strict=True)
    ]
    all_positions = np.arange(view.type.elements).reshape(1, *view.type.shape)
    if not np.array_equal(all_positions[:, :, :: steps[0], :: steps[1]], view.compute_positions()):
        return None
    return view.shape[2], view.shape[3]


def find_channels_last_pixels(view: View) -> Positions | None:
    """Return the pixel of each row of a channels-last view; None for other views.

    The result has the view's shape without its last axis.
    """
    channels, *size = view.type.shape
    pixels = int(np.prod(size, dtype=np.int64))
    index = view.compute_positions()
    if index.ndim < 2 or index.shape[-1] != channels:
        return None
    row = index[..., 0]
    if row.size and (row.max() >= pixels or not view.is_complete()):
        return None
    expected = row[..., None] + np.arange(channels) * pixels
    return row if np.array_equal(index, expected) else None


def make_channels_last_view(value: str, type: TensorType, row: Positions) -> View:
    """Return the channels-last view of a map with the pixels `row`."""
    channels, *size = type.shape
    pixels = int(np.prod(size, dtype=np.int64))
    value_view = View(value, type)
    return value_view.transform(lambda _: row[..., None] + np.arange(channels) * pixels)
