"""Returning freed memory to the system."""

import ctypes

from tcc.compiler.support import memory_limit


def test_systems_without_malloc_trim_are_supported(monkeypatch):
    memory_limit.release_freed_memory()

    class FakeLibrary:
        def __init__(self, name):
            self.name = name

    calls = []
    for library in (FakeLibrary, lambda _: calls.append(1) or (_ for _ in ()).throw(OSError())):
        memory_limit._find_trim.cache_clear()
        monkeypatch.setattr(ctypes, "CDLL", library)
        memory_limit.release_freed_memory()
    assert calls
    memory_limit._find_trim.cache_clear()
