"""What a data set shows, whatever number of files show it."""

from collections.abc import Collection
from dataclasses import replace

from tcc.compiler.data.dataset import DataSet


def pictures(data: DataSet, repeats: Collection[str]) -> DataSet:
    """Return the items that show something new: one of each contents.

    Args:
        data: The items, some of which may be there twice.
        repeats: Digests of those that show what another does, as files of other contents.
    """
    kept = {item.digest: item for item in reversed(data.items) if item.digest not in repeats}
    # In the order that they have: what is equal lies side by side.
    return replace(data, items=tuple(reversed(kept.values())))
