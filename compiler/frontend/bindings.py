"""Names and what they stand for, in layers: a step that binds one copies no table of all."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")
SMALL = 128
"""Most names of a layer that is copied when another name is bound.

One table for all would be copied by every `let`, in time that grows with the square of their
number; one layer a name would be searched as long. So small layers are copied, large ones stacked.
"""


class Bindings(Mapping[str, T]):
    """Names in scope; it never changes, `plus` returns another with more names."""

    __slots__ = ("layers",)

    def __init__(self, *layers: Mapping[str, T]) -> None:
        self.layers = layers

    def plus(self, more: Mapping[str, T]) -> "Bindings[T]":
        """Return these with more names, which hide older ones."""
        # Only the newest layer grows: older ones are shared by every scope that was made of them.
        if self.layers and len(self.layers[0]) + len(more) <= SMALL:
            return Bindings({**self.layers[0], **more}, *self.layers[1:])
        return Bindings(more, *self.layers)

    def __getitem__(self, name: str) -> T:
        """What a name stands for."""
        for layer in self.layers:
            if name in layer:
                return layer[name]
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        """Whether a name is bound."""
        for layer in self.layers:  # noqa: SIM110 - of very many layers, `any` takes twice as long
            if name in layer:
                return True
        return False

    def __iter__(self) -> Iterator[str]:
        """Every name once."""
        # Newest first, so that a name that hides another one is met once, in its own place.
        return iter(dict.fromkeys(name for layer in self.layers for name in layer))

    def __len__(self) -> int:
        """How many names there are."""
        return sum(1 for _ in self)
