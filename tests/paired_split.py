"""The split of a run whose groups are pairs of images."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tcc.compiler.data import dataset, split_file


def write_split(
    home: Path, is_test: Callable[[str, int], bool], *, joins_classes: bool = False
) -> None:
    """Write `run/split.csv` for the images `photos/LABEL/NUMBER.png` in a folder.

    Images n and n + 1 of a class, n even, are one group, or with `joins_classes` those of all
    classes. `is_test` decides by label and number.
    """
    images = dataset.read_dataset(home / "photos")
    numbers = {item.name: int(item.path.stem) for item in images.items}
    datasets = {
        split: replace(
            images,
            items=tuple(
                item
                for item in images.items
                if is_test(str(item.label), numbers[item.name]) == is_held_out
            ),
        )
        for split, is_held_out in (("val", False), ("test", True))
    }
    groups = {
        item.name: f"{'' if joins_classes else item.label} {numbers[item.name] // 2}"
        for item in images.items
    }
    (home / "run").mkdir(exist_ok=True)
    split_file.write(home / "run/split.csv", home / "photos", datasets, groups)
