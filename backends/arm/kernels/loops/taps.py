"""How a convolution's taps are walked through, and gathered so that one loop suffices."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tcc.backends.arm.kernels.conv import DirectConv
from tcc.backends.arm.kernels.loops import tir
from tcc.backends.arm.kernels.loops.tir import Buffer, Expr

UNROLLED = 32
"""Most taps of a kernel of one channel that are written out: 5x5, not 7x7. LLVM spills registers
where it sees longer sums at once."""


@dataclass(frozen=True, slots=True)
class PixelTile:
    """Some pixels in a row, `lanes` of them to a vector.

    `start` is where the first one's window begins in what is read.
    """

    y: Expr
    x: Expr
    count: int
    lanes: int
    start: Expr

    def moved(self, distance: Expr) -> "PixelTile":
        """Return the same pixels, read elsewhere."""
        return replace(self, start=self.start + distance)


@dataclass(frozen=True, slots=True)
class Panel:
    """Where taps lie at regular distances: tap k of the first pixel at start + k * step."""

    buffer: Buffer
    start: Expr
    step: int


Visit = Callable[[Buffer, Expr, Expr], None]
"""Told of one tap: what and where it reads for a tile's first pixel, and its number."""
Taps = Callable[[Visit], None]
"""Runs a visit for each tap of a tile."""


def in_a_row(kernel: DirectConv, panel: Panel) -> Taps:
    """Return a walk in one loop."""

    def walk(visit: Visit) -> None:
        with tir.loop(kernel.taps) as k:
            visit(panel.buffer, panel.start + k * panel.step, k)

    return walk


def nested(kernel: DirectConv, source: Buffer, pixels: PixelTile) -> Taps:
    """Return a walk over channels, rows and columns of the window, where they lie."""
    layout, (height, width) = kernel.layout, kernel.window.kernel

    def walk(visit: Visit) -> None:
        if kernel.depth == 1 and height * width <= UNROLLED:
            # Unrolled: the compiler sees constant distances, and loads overlap with sums.
            for i in range(height):
                for j in range(width):
                    at = pixels.start + i * layout.row + layout.column(j)
                    visit(source, at, i * width + j)
            return
        with tir.loop(kernel.depth) as c, tir.loop(height) as i, tir.loop(width) as j:
            at = pixels.start + c * layout.channel + i * layout.row + layout.column(j)
            visit(source, at, (c * height + i) * width + j)

    return walk


def gather(kernel: DirectConv, source: Buffer, c: Expr, pixels: PixelTile, panel: Panel) -> None:
    """Write what the taps of channel `c` of a group, which some pixels read, into a panel."""
    layout, (height, width) = kernel.layout, kernel.window.kernel
    with tir.loop(height) as i, tir.loop(width) as j:
        at = pixels.start + i * layout.row + layout.column(j)
        to = panel.start + ((c * height + i) * width + j) * panel.step
        for u in range(0, pixels.count, pixels.lanes):
            value = tir.load(source, at + u, pixels.lanes)
            tir.store(panel.buffer, to + u, value, pixels.lanes)
