"""Convolutions by Winograd's method."""

from dataclasses import dataclass
from typing import ClassVar

from tcc.backends.arm.kernels.base import Space
from tcc.backends.arm.kernels.epilogue import Epilogue
from tcc.backends.arm.kernels.micro import MicroConvolution
from tcc.backends.arm.micro.records import QUAD
from tcc.backends.arm.micro.window import MicroWindow
from tcc.backends.arm.micro.winograd import LevelWinograd, Winograd, WinogradTiles
from tcc.compiler.ir.types import Pair


class WinogradConvolution(MicroConvolution):
    """A convolution of one group, some tiles after others."""

    record: WinogradTiles
    epilogue: Epilogue
    """What is done to results, which are read again."""
    numbers: ClassVar[str]
    """The type of tiles' points."""

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
        return -(-(self.band + self.record.lanes - 1) // QUAD) * QUAD

    @property
    def transformed(self) -> Space:
        """The memory of a band's points."""
        return Space(self.record.rows(self.window) * self.pitch, self.numbers)


@dataclass(frozen=True, slots=True)
class MicroWinograd(WinogradConvolution):
    """Of floats.

    `least` and `most` are what the results are bounded by first. Arguments: map, weights, biases,
    the window's table, the bounds, the epilogue's operands, the tiles' points, result.
    """

    word: ClassVar[str] = "winograd"
    numbers: ClassVar[str] = "float32"
    record: Winograd
    window: MicroWindow
    filters: int
    least: bool
    most: bool
    epilogue: Epilogue

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


@dataclass(frozen=True, slots=True)
class MicroLevelWinograd(WinogradConvolution):
    """Of levels, which become levels between two bounds.

    `part` is how many channels are summed at once. Arguments: map, weights, biases, factors, the
    window's table, the tiles' points, the epilogue's operands, result.
    """

    word: ClassVar[str] = "level_winograd"
    numbers: ClassVar[str] = "int16"
    record: LevelWinograd
    window: MicroWindow
    filters: int
    part: int
    dtype: str
    bounds: Pair
    epilogue: Epilogue

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The memory of the arguments."""
        w = self.window
        return (
            Space(w.channels * w.size[0] * w.size[1], w.levels),
            Space(self.padded * w.taps, "int8"),
            Space(self.padded, "int32"),
            Space(self.padded),
            Space(len(w.table()), "int32"),
            self.transformed,
            *self.epilogue.spaces,
            self.epilogue.written(self.result),
        )
