"""Python's collector of cycles, put off while a large value without any is built."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Look for no cycles meanwhile.

    Millions of containers of one value are walked again and again otherwise: of reading a large
    spec it takes a fifth, and of a pickle more in a process that holds much else.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
