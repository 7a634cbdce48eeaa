"""Versions of what is installed, by the folders that say so.

`importlib.metadata` parses each package's description, and loads a reader of mail for that: a tenth
of the time of a build out of the cache.
"""

import os
import re
import sys
from collections.abc import Mapping
from functools import lru_cache

_SEPARATORS = re.compile("[-_.]+")
_SUFFIX = ".dist-info"


def version(name: str) -> str | None:
    """Return the version of a package; None where it is not installed."""
    wanted = _normalised(name)
    for place in sys.path:
        if found := _installed(place or os.curdir).get(wanted):
            return found
    # What is installed in another way: as an archive, or without a folder of that name.
    from importlib import metadata

    try:
        return metadata.version(name)
    except (metadata.PackageNotFoundError, FileNotFoundError):
        # The latter of a folder without metadata, where a newer importlib_metadata was loaded: it
        # looks for what the standard library asks.
        return None


@lru_cache(maxsize=64)
def _installed(place: str) -> Mapping[str, str]:
    """Return the versions of a folder's packages by their names."""
    try:
        entries = os.listdir(place)
    except OSError:
        return {}
    # As the standard for such folders has it, neither name nor version holds a hyphen.
    listed = (each.removesuffix(_SUFFIX).split("-") for each in entries if each.endswith(_SUFFIX))
    return {_normalised(about[0]): about[1] for about in listed if len(about) == 2}


def _normalised(name: str) -> str:
    return _SEPARATORS.sub("-", name).lower()
