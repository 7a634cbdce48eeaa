"""Levels of image files, of which those that were read already are kept as far as there is room."""

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from tcc.compiler.data import confined_images, image_files
from tcc.compiler.ir.preprocess import Preprocess

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROOM = 32 << 20
"""Bytes of all: some 200 images of 224 x 224 pixels, which is more than judge candidates."""


def levels_of_file(
    path: Path, contract: Preprocess, size: tuple[int, int, int]
) -> "NDArray[np.uint8]":
    """Return what a contract makes of an image file before it divides, as `images.levels`.

    Raises:
        UserError: The image is damaged, or of a size that the network does not take.
    """
    return confined_images.levels(image_files.contents(path), str(path), contract, size)


class ReadImages:
    """Levels uint8 (height, width, channels) by the digest of an image, for one network's input.

    What is kept is the first that came. Threads may share it.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._room, self._kept, self._lock = room, dict[str, "NDArray[np.uint8]"](), Lock()

    def get(self, digest: str) -> "NDArray[np.uint8] | None":
        """Return the levels of an image, if they are kept."""
        return self._kept.get(digest)

    def keep(self, digest: str, levels: "NDArray[np.uint8]") -> None:
        """Keep a copy of the levels of an image, if there is room."""
        with self._lock:
            if digest not in self._kept and levels.nbytes <= self._room:
                self._room -= levels.nbytes
                # A copy: what was cut out of a large image would keep all of it.
                self._kept[digest] = levels.copy()
                self._kept[digest].flags.writeable = False
