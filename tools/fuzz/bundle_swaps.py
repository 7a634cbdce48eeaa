"""Parts of one bundle in the place of another's, and bundles of older forms."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from bundle_changes import Bundle


def _other_bundle(bundle: Bundle, numbers: Random) -> Path:
    """Return the folder of another bundle, which was built as this one was."""
    return numbers.choice(sorted(path.parent for path in bundle.others.glob("*/manifest.json")))


def _graft(bundle: Bundle, numbers: Random) -> None:
    """Put files of another bundle in the place of those of the same path: one, or all of a kind."""
    donor = _other_bundle(bundle, numbers)
    common = [path for path in bundle.kept if (donor / path).is_file()]
    kind = numbers.choice(("one", "model/", "goldens/", "graph/", ""))
    paths = [path for path in common if path.startswith(kind)]
    if kind == "one" and common:
        paths = [numbers.choice(common)]
    for path in paths:
        (bundle.folder / path).write_bytes((donor / path).read_bytes())


def _mix(bundle: Bundle, numbers: Random) -> None:
    """Take a part of the manifest from another bundle, or all of it."""
    with suppress(KeyError, TypeError, AttributeError):
        theirs = json.loads((_other_bundle(bundle, numbers) / "manifest.json").read_bytes())
        if numbers.random() < 0.1:
            bundle.about = theirs
            return
        key = numbers.choice(sorted(theirs))
        bundle.about[key] = theirs[key]


def _downgrade(bundle: Bundle, numbers: Random) -> None:
    """Make it one of an older or a newer form, or take away what proves what it is."""
    with suppress(KeyError, TypeError, AttributeError):
        match numbers.choice(("form", "seal", "proof", "precision", "tools")):
            case "form":
                bundle.about["tcc_bundle"] = numbers.choice((0, 1, 1, 3, 99, "1", 1.0, -1))
            case "seal":
                bundle.about["seal"] = numbers.choice(("", "0" * 64, None))
            case "proof":
                bundle.about[numbers.choice(("calibration", "made_with"))] = None
                bundle.about.pop("operating_points", None)
            case "precision":
                bundle.about["precision"] = numbers.choice(("fp32", "int8", "fp16", "dynamic"))
            case "tools":
                bundle.about["made_with"] = dict.fromkeys(bundle.about["made_with"], "0.0.1")


SWAPS: tuple[tuple[Callable[[Bundle, Random], None], int], ...] = (
    (_graft, 6), (_mix, 4), (_downgrade, 4),
)  # fmt: skip
