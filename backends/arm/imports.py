"""Importing TVM without what it takes along."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(name: str) -> Iterator[None]:
    """Have a package look as if it were not installed, unless it is imported already.

    TVM imports PyTorch where that is installed, to exchange tensors with it: 3 s of 8 for a build.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment] # what Python itself takes for "not here"
    try:
        yield
    finally:
        del sys.modules[name]
