"""Memory given back."""

import ctypes

from tcc.compiler.support import memory_limit


def test_a_system_without_it_is_left_alone(monkeypatch):
    memory_limit.release_freed_memory()

    class Other:
        def __init__(self, name):
            self.name = name

    calls = []
    for library in (Other, lambda _: calls.append(1) or (_ for _ in ()).throw(OSError())):
        memory_limit._find_trim.cache_clear()
        monkeypatch.setattr(ctypes, "CDLL", library)
        memory_limit.release_freed_memory()
    assert calls
    memory_limit._find_trim.cache_clear()
