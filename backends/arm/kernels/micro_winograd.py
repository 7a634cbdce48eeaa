"""Convolutions of floats by Winograd's method."""

from dataclasses import dataclass
from typing import ClassVar

from tcc.backends.arm.kernels.base import Space
from tcc.backends.arm.kernels.epilogue import Epilogue
from tcc.backends.arm.kernels.micro import MicroConvolution
from tcc.backends.arm.micro.records import QUAD, Winograd
from tcc.backends.arm.micro.window import MicroWindow


@dataclass(frozen=True, slots=True)
class MicroWinograd(MicroConvolution):
    """A convolution of one group, some tiles after others.

    `least` and `most` are what the results are bounded by first. Arguments: map, weights, biases,
    the window's table, the bounds, the epilogue's operands, the tiles' points, result.
    """

    word: ClassVar[str] = "winograd"
    record: Winograd
    window: MicroWindow
    filters: int
    least: bool
    most: bool
    epilogue: Epilogue

    @property
    def padded(self) -> int:
        """Filters, filled up to whole blocks."""
        return -(-self.filters // self.record.filters) * self.record.filters

    @property
    def tiles(self) -> int:
        """Tiles of the output."""
        return self.record.tiles(self.window)

    @property
    def band(self) -> int:
        """Tiles that are computed at once."""
        return self.record.band(self.window)

    @property
    def pitch(self) -> int:
        """Numbers from one row of a band's points to the next: whole vectors begin at any tile."""
        return -(-(self.band + QUAD - 1) // QUAD) * QUAD

    @property
    def transformed(self) -> Space:
        """The memory of a band's points."""
        record = self.record
        return Space(record.points(self.window) * record.phases(self.window) * self.pitch)

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of the arguments."""
        w = self.window
        return (
            Space(w.channels * w.size[0] * w.size[1]),
            Space(self.padded * w.taps),
            Space(self.padded),
            Space(len(w.table()), "int32"),
            Space(2),
            *self.epilogue.spaces,
            self.transformed,
            self.epilogue.written(self.result),
        )
