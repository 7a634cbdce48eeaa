"""Fixtures of the compiler's tests."""

import errno
import os
from contextlib import contextmanager

import pytest


@pytest.fixture
def full_disk(monkeypatch):
    """Make the disk full: `with full_disk(after=n)` lets n files be synced."""

    @contextmanager
    def fill_disk(after: int = 0):
        synced = []
        original = os.fsync

        def fsync(descriptor):
            synced.append(descriptor)
            if len(synced) > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            original(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fsync)
            yield

    return fill_disk
