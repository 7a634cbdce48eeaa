"""How a long step tells how far it has come."""

from typing import Protocol


class Progress(Protocol):
    """Told how far a long step is; a stage begins with 0 done."""

    def __call__(self, what: str, done: int, total: int, /) -> None:
        """Hear that `done` of `total` parts of the stage `what` are finished."""
        ...


def silent(what: str, done: int, total: int, /) -> None:
    """Tell nobody."""
