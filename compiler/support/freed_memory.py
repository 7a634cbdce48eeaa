"""Memory that was freed, given back to the system."""

import ctypes
from functools import cache
from typing import Any


def give_back() -> None:
    """Give back what is free, where the C library can (`malloc_trim` of glibc).

    It keeps what each thread has freed for that thread, so that the peaks of several add up.
    """
    if trim := _trim():
        trim(0)


@cache
def _trim() -> Any:
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # another system
        return None
