"""How a long step tells how far it has come."""

from typing import Protocol


class Progress(Protocol):
    """Told how far a long step is; a stage begins with 0 done."""

    def __call__(self, stage: str, completed: int, total: int, /) -> None:
        """Hear that `completed` of `total` parts of the stage `stage` are finished."""
        ...


def silent(stage: str, completed: int, total: int, /) -> None:
    """Tell nobody."""
