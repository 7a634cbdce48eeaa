"""Backends that fetch what they build with: a protocol beside those of `backend`."""

from typing import Protocol, runtime_checkable

from tcc.compiler.ir.target import Target


@runtime_checkable
class Fetcher(Protocol):
    """A backend that takes files from a package registry, once."""

    def fetch(self, target: Target) -> None:
        """Have here what building for a target takes from elsewhere.

        Args:
            target: One of the backend's.

        Raises:
            MissingTool: It cannot be fetched.
        """
        ...
