"""The page around a network: plain files, the same for all."""

from collections.abc import Mapping
from pathlib import Path

SITE = Path(__file__).resolve().parent / "site"


def files() -> Mapping[str, bytes]:
    """Return the files of the page by their names."""
    return {path.name: path.read_bytes() for path in sorted(SITE.iterdir()) if path.is_file()}
