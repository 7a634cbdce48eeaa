"""Sampling plan: which parts of which values to keep from which images.

Hashes of the image's content and the value's name decide, before the first image is read. The plan
does not depend on the order of the images or on the number of threads.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isqrt

from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.ir.types import Pair, TensorType
from tcc.compiler.ops import Concat, Conv
from tcc.compiler.quant.scale_groups import list_unfused_values

POSITIONS = 2048
"""Number of sampled positions per value, or outputs per convolution."""
MIN_POSITIONS = 64
"""Minimum number of sampled positions, for large networks."""
RUN_LENGTH = 8
"""Consecutive columns in a sample, and minimum side of a window in outputs."""
MAX_SAMPLED_IMAGES = 128
"""Maximum sampled images: others only give extremes, in half of the time."""
MAX_NUMBERS = 1 << 25
"""Maximum numbers in all samples, and in all windows: 128 MiB of float32 each."""


@dataclass(frozen=True, slots=True)
class SampledPart:
    """The sampled part of one value: `size` (rows, columns) positions, every `step`-th one.

    `images` are the indices of the sampled images, in order. `corner` is the largest start (row,
    column). A window can begin before a map and end after it, by up to `padding` rows and columns.
    """

    value_name: str
    images: tuple[int, ...]
    size: Pair
    step: Pair
    corner: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)

    def compute_origin(self, digest: str) -> Pair:
        """Return the first row and column of an image's part, from the image's digest."""
        row, column = _hash_text(f"{digest} {self.value_name}")
        row_stride, column_stride = self.stride
        return (
            row % (self.corner[0] + 1) * row_stride - self.padding[0],
            column % (self.corner[1] + 1) * column_stride - self.padding[1],
        )


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """Samples by value and windows by convolution.

    `concat_offsets[value]` is the concat whose sample contains the value, and its first channel
    there.
    """

    samples: Mapping[str, SampledPart]
    windows: Mapping[str, SampledPart]
    concat_offsets: Mapping[str, tuple[str, int]]

    def select_images(self, images: Sequence[int]) -> "SamplingPlan":
        """Return the plan for some images, by index; the images are renumbered from 0."""
        return self._map_images({image: index for index, image in enumerate(images)})

    def scatter_images(self, indices: Sequence[int]) -> "SamplingPlan":
        """Return the plan with the images renumbered to `indices` of a larger set."""
        return self._map_images(dict(enumerate(indices)))

    def _map_images(self, index_by_image: Mapping[int, int]) -> "SamplingPlan":
        samples, windows = (
            {
                name: replace(
                    part,
                    images=tuple(index_by_image[i] for i in part.images if i in index_by_image),
                )
                for name, part in parts.items()
            }
            for parts in (self.samples, self.windows)
        )
        return SamplingPlan(samples, windows, self.concat_offsets)

    @property
    def images(self) -> frozenset[int]:
        """Indices of all sampled images."""
        parts = (*self.samples.values(), *self.windows.values())
        return frozenset(image for part in parts for image in part.images)


def build_sampling_plan(
    graph: Graph, digests: Sequence[str], positions: int = POSITIONS
) -> SamplingPlan:
    """Return the sampling plan for a set of images.

    Args:
        graph: The graph of a lowered model.
        digests: The SHA-256 of each image, in order.
        positions: Approximate number of sampled positions per value, over all images; 0 for none.
    """
    sampled_indices = _select_images("", digests, MAX_SAMPLED_IMAGES)
    return _build_plan(
        graph, [digests[index] for index in sampled_indices], positions
    ).scatter_images(sampled_indices)


def _build_plan(graph: Graph, digests: Sequence[str], positions: int) -> SamplingPlan:
    """Return the sampling plan; any of the images can be chosen."""
    concat_offsets = find_concat_offsets(graph)
    if not positions:
        return SamplingPlan({}, {}, concat_offsets)
    names = [name for name in list_unfused_values(graph) if name not in concat_offsets]
    convolutions = [n for n in graph.nodes if isinstance(n.op, Conv) and n.op.kernel != (1, 1)]
    channels = sum(graph.types[name].shape[0] for name in names)
    positions_per_value = min(positions, max(MIN_POSITIONS, MAX_NUMBERS // channels))
    samples = {
        name: _plan_sample(name, graph.types[name], digests, positions_per_value) for name in names
    }
    windows = {n.name: _plan_window(n, digests, positions) for n in convolutions}
    # The size of windows depends on strides and padding: count first, then reduce in proportion.
    number_count = sum(_count_numbers(graph, choice) for choice in windows.values())
    if number_count > MAX_NUMBERS:
        reduced_positions = positions * MAX_NUMBERS // number_count
        windows = {
            n.name: _plan_window(n, digests, max(MIN_POSITIONS, reduced_positions))
            for n in convolutions
        }
    return SamplingPlan(samples, windows, concat_offsets)


def find_concat_offsets(graph: Graph) -> Mapping[str, tuple[str, int]]:
    """Return the outermost concat of each concatenated value, and its first channel there."""
    # Backwards: an inner concat gets its offset before its inputs do.
    offsets: dict[str, tuple[str, int]] = {}
    for node in reversed(graph.nodes):
        if isinstance(node.op, Concat):
            outer, offset = offsets.get(node.name, (node.name, 0))
            for input_name in node.inputs:
                offsets.setdefault(input_name, (outer, offset))
                offset += graph.types[input_name].shape[0]
    return offsets


def _plan_sample(
    value_name: str, tensor_type: TensorType, digests: Sequence[str], positions: int
) -> SampledPart:
    """Return runs of columns in rows that are evenly spaced over the height."""
    height, width = tensor_type.shape[1:] if len(tensor_type.shape) == 3 else (1, 1)
    # At least four runs per image.
    count = min(len(digests), max(1, positions // (4 * RUN_LENGTH)))
    positions_per_image = max(1, positions // count)
    columns = min(width, max(RUN_LENGTH, isqrt(positions_per_image)))
    rows = min(height, max(1, positions_per_image // columns))
    step = height // rows
    corner = (height - (rows - 1) * step - 1, width - columns)
    return SampledPart(
        value_name, _select_images(value_name, digests, count), (rows, columns), (step, 1), corner
    )


def _plan_window(node: Node, digests: Sequence[str], positions: int) -> SampledPart:
    """Return the input window of neighbouring outputs of a convolution, including padding."""
    op = node.op
    assert isinstance(op, Conv)
    _, *out = node.type.shape
    # At least a square of `RUN_LENGTH` outputs per image.
    count = min(len(digests), max(1, positions // RUN_LENGTH**2))
    side = max(RUN_LENGTH, isqrt(positions // count))
    rows, columns = (min(side, n) for n in out)
    (row_stride, column_stride), (tall, wide), (pad_top, pad_left, *_) = (
        op.stride,
        op.window,
        op.pads,
    )
    size = ((rows - 1) * row_stride + tall, (columns - 1) * column_stride + wide)
    corner = (out[0] - rows, out[1] - columns)
    images = _select_images(node.name, digests, count)
    return SampledPart(node.inputs[0], images, size, (1, 1), corner, op.stride, (pad_top, pad_left))


def _count_numbers(graph: Graph, choice: SampledPart) -> int:
    rows, columns = choice.size
    return len(choice.images) * rows * columns * graph.types[choice.value_name].shape[0]


def _select_images(key: str, digests: Sequence[str], count: int) -> tuple[int, ...]:
    """Return the indices of the images with the smallest hashes with a key, in order."""
    if count >= len(digests):
        return tuple(range(len(digests)))
    # Equal images have equal hashes; the index breaks ties.
    order = sorted(range(len(digests)), key=lambda i: (_hash_text(f"{digests[i]} {key}"), i))
    return tuple(sorted(order[:count]))


def _hash_text(text: str) -> Pair:
    # 48 bits per number: the modulo bias between positions of a map is below 1 in 2**30.
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:6], "little"), int.from_bytes(digest[6:12], "little")
