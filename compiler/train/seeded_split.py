"""Split images into train, val and test by a seed, and keep groups together.

The split depends on the seed, on the images' contents and on their groups, but not on file names or
their order. Each class is split by the shares, as closely as the groups allow.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tcc.compiler.data.dataset import Item
from tcc.compiler.data.split_file import SPLITS
from tcc.compiler.support.decimal_numbers import parse_float
from tcc.compiler.support.diagnostics import Diagnostic, Span, fail

Units = Mapping[str, str]
"""The unit that each image belongs to, by the image's name."""


@dataclass(frozen=True, slots=True)
class SplitShares:
    """The shares of each class for training, validation and test."""

    train: float = 0.7
    val: float = 0.15
    test: float = 0.15

    @property
    def by_split(self) -> Mapping[str, float]:
        """The shares that are not 0, which add up to 1."""
        share_by_split = dict(zip(SPLITS, (self.train, self.val, self.test), strict=True))
        total = sum(share_by_split.values())
        return {
            split_name: share / total for split_name, share in share_by_split.items() if share > 0
        }


def parse_shares(text: str, at: Span) -> SplitShares:
    """Return the shares of an option such as `70,15,15` or `0.8,0.2,0`.

    Raises:
        UserError: The text is not three numbers, or the share of train or val is 0 (E1212).
    """
    try:
        train, val, test = (parse_float(part.strip()) for part in text.split(","))
    except ValueError:
        train = val = test = -1.0
    fits = all(0 <= share <= 1e6 for share in (train, val, test))
    if not fits or min(train, val) == 0:
        help = "give the shares of train, val and test, such as 70,15,15; only test may be 0"
        raise fail("E1212", f"`{text[:80]}` is not a valid split", at, help=help)
    return SplitShares(train, val, test)


def group_units(items_by_name: Mapping[str, Item], groups: Mapping[str, str]) -> Units:
    """Return the unit of each image: its group, merged with other groups that share a file."""
    parents: dict[str, str] = {}

    def find_root(key: str) -> str:
        while (parent := parents.setdefault(key, key)) != key:
            parents[key] = parents[parent]
            key = parent
        return key

    # Units are shuffled by their names. Sorting by contents and taking the smaller root make these
    # independent of file names and their order.
    for name, item in sorted(items_by_name.items(), key=lambda pair: pair[1].digest):
        keys = [f"image {item.digest}"]
        if name in groups:
            keys.append(f"group {groups[name]}")
        main_root, *other_roots = sorted(map(find_root, keys))
        for other_root in other_roots:
            parents[other_root] = main_root
    return {name: find_root(f"image {item.digest}") for name, item in items_by_name.items()}


def find_shortages(
    labels: Mapping[str, str], units: Units, shares: SplitShares, at: Span
) -> Iterator[Diagnostic]:
    """Yield an error for each class with too few images or groups for every split (E1206).

    Args:
        labels: The class of each image by its name.
        units: The unit of each image.
        shares: The shares of the splits.
        at: The images' location in errors.
    """
    split_count = len(shares.by_split)
    by_class: dict[str, set[str]] = defaultdict(set)
    for name, label in labels.items():
        by_class[label].add(units[name])
    images = Counter(labels.values())
    for label, class_units in sorted(by_class.items()):
        if len(class_units) < split_count:
            count = images[label]
            subject = f"{count} image{'s' * (count != 1)}"
            if len(class_units) < count and any(unit.startswith("group ") for unit in class_units):
                subject += f" of {len(class_units)} group{'s' * (len(class_units) != 1)}"
            elif len(class_units) < count:
                subject += f", only {len(class_units)} of them distinct"
            message = f"class `{label}` has {subject}: too few for {split_count} splits"
            help = "add images, remove the class, or split by hand into train, val and test"
            yield Diagnostic("E1206", message, at, help=help)


def merge_rare_labels(
    labels: Mapping[str, str], units: Units, shares: SplitShares
) -> Mapping[str, str]:
    """Return labels with those too rare for every split merged into one, which may be rare too.

    With many decisions, most combinations are rare. It is no error if a split lacks one.
    """
    split_count = len(shares.by_split)
    by_label: dict[str, set[str]] = defaultdict(set)
    for name, label in labels.items():
        by_label[label].add(units[name])
    rare = {label for label, label_units in by_label.items() if len(label_units) < split_count}
    pool = {unit for label in rare for unit in by_label[label]}
    if len(pool) < split_count:  # also merge the most frequent label
        rare |= {max(sorted(by_label), key=lambda label: len(by_label[label]))}
    pooled_label = min(rare)
    return {name: pooled_label if label in rare else label for name, label in labels.items()}


def split_images(
    labels: Mapping[str, str], units: Units, shares: SplitShares, seed: int
) -> Mapping[str, str]:
    """Return the split of each image by its name.

    Units are processed by descending size, in random order among equal sizes. Each goes to the
    split with the largest shortfall of its classes. A class reaches every split before any split
    gets more than its share.

    Args:
        labels: The class of each image by its name.
        units: The unit of each image, from `group_units`.
        shares: The shares of the splits.
        seed: The seed of the units' order.
    """
    share_by_split = shares.by_split
    members: dict[str, Counter[str]] = defaultdict(Counter)
    for name, label in labels.items():
        members[units[name]][label] += 1
    totals = Counter(labels.values())
    assigned_counts = {split_name: Counter[str]() for split_name in share_by_split}
    split_by_unit: dict[str, str] = {}
    # Large units first: a patient with many images fits nowhere once the shares are nearly full.
    # Single images fill the remaining gaps.
    for unit in sorted(members, key=lambda unit: (-members[unit].total(), _hash_unit(unit, seed))):

        def compute_shortfall(
            split_name: str, counts: Counter[str] = members[unit]
        ) -> tuple[float, float]:
            share = share_by_split[split_name]
            missing = sum(
                # Relative to the split's share, because otherwise the largest split would get all
                # of the first units.
                count * (share - assigned_counts[split_name][label] / totals[label]) / share
                for label, count in counts.items()
            )
            return missing, share

        split_by_unit[unit] = max(share_by_split, key=compute_shortfall)
        assigned_counts[split_by_unit[unit]].update(members[unit])
    return {name: split_by_unit[units[name]] for name in labels}


def _hash_unit(unit: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {unit}".encode()).digest()
