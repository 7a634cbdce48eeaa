"""Images onto three sides by a seed, so that what belongs together stays together.

Which side an image gets depends on the seed, on what the images are and on their groups, not on
the names of files or their order. Each class is split by the shares, as nearly as groups allow.
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
"""What each image belongs to, by the image's name."""


@dataclass(frozen=True, slots=True)
class SplitShares:
    """How much of each class is to learn from, to choose by and to be judged by."""

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
    """Return the shares that an option such as `70,15,15` or `0.8,0.2,0` writes.

    Raises:
        UserError: They are no three numbers, or leave nothing to learn from or to choose by
            (E1212).
    """
    try:
        train, val, test = (parse_float(part.strip()) for part in text.split(","))
    except ValueError:
        train = val = test = -1.0
    fits = all(0 <= share <= 1e6 for share in (train, val, test))
    if not fits or min(train, val) == 0:
        help = "write the shares of train, val and test, such as 70,15,15; only test may be 0"
        raise fail("E1212", f"`{text[:80]}` is no split into three", at, help=help)
    return SplitShares(train, val, test)


def group_units(items_by_name: Mapping[str, Item], groups: Mapping[str, str]) -> Units:
    """Return the unit of each image: its group, joined with others that hold the same file."""
    parents: dict[str, str] = {}

    def find_root(key: str) -> str:
        while (parent := parents.setdefault(key, key)) != key:
            parents[key] = parents[parent]
            key = parent
        return key

    # In the order of contents, and the smaller root leads: neither names nor their order have a say
    # in what a unit is called, by which it is shuffled.
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
    """Yield the classes with too few images, or groups, to be on every side (E1206).

    Args:
        labels: The class of each image by its name.
        units: What each image belongs to.
        shares: How much of each class each side is to get.
        at: The place of the images in errors.
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
                subject += f", of which {len(class_units)} differ{'s' * (len(class_units) == 1)}"
            message = f"class `{label}` has {subject}: too few for a split into {split_count}"
            help = "add images, leave the class out, or split by hand into train, val and test"
            yield Diagnostic("E1206", message, at, help=help)


def merge_rare_labels(
    labels: Mapping[str, str], units: Units, shares: SplitShares
) -> Mapping[str, str]:
    """Return labels of which those too rare for every side are one; it may be too rare as well.

    Of many decisions most combinations are rare, and it is no mistake that one is on no side.
    """
    split_count = len(shares.by_split)
    by_label: dict[str, set[str]] = defaultdict(set)
    for name, label in labels.items():
        by_label[label].add(units[name])
    rare = {label for label, label_units in by_label.items() if len(label_units) < split_count}
    pool = {unit for label in rare for unit in by_label[label]}
    if len(pool) < split_count:  # beside the most frequent
        rare |= {max(sorted(by_label), key=lambda label: len(by_label[label]))}
    pooled_label = min(rare)
    return {name: pooled_label if label in rare else label for name, label in labels.items()}


def split_images(
    labels: Mapping[str, str], units: Units, shares: SplitShares, seed: int
) -> Mapping[str, str]:
    """Return the side of each image by its name.

    Units come in an order that the seed shuffles, those of many images first; each goes where
    its classes lack most. A class gets onto every side before any gets more than its share.

    Args:
        labels: The class of each image by its name.
        units: What each image belongs to, as `group_units` says.
        shares: How much of each class each side gets.
        seed: What the order of units follows from.
    """
    share_by_split = shares.by_split
    members: dict[str, Counter[str]] = defaultdict(Counter)
    for name, label in labels.items():
        members[units[name]][label] += 1
    totals = Counter(labels.values())
    assigned_counts = {split_name: Counter[str]() for split_name in share_by_split}
    split_by_unit: dict[str, str] = {}
    # Large units first: a patient of many images fits nowhere once the shares are nearly full,
    # single images fill the gaps that are left.
    for unit in sorted(members, key=lambda unit: (-members[unit].total(), _hash_unit(unit, seed))):

        def compute_shortfall(
            split_name: str, counts: Counter[str] = members[unit]
        ) -> tuple[float, float]:
            share = share_by_split[split_name]
            missing = sum(
                # Missing as a share of what the side is to get, or the largest side would take all
                # at first.
                count * (share - assigned_counts[split_name][label] / totals[label]) / share
                for label, count in counts.items()
            )
            return missing, share

        split_by_unit[unit] = max(share_by_split, key=compute_shortfall)
        assigned_counts[split_by_unit[unit]].update(members[unit])
    return {name: split_by_unit[units[name]] for name in labels}


def _hash_unit(unit: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed} {unit}".encode()).digest()
