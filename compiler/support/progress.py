"""The callback by which a long step reports its progress."""

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of a long step; a stage begins with 0 completed."""

    def __call__(self, stage: str, completed: int, total: int, /) -> None:
        """Receive that `completed` of `total` parts of a stage are finished."""
        ...


def silent(stage: str, completed: int, total: int, /) -> None:
    """Ignore the progress."""
