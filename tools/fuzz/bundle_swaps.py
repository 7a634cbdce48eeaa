"""Replace parts of a bundle with those of another one, and generate bundles of older formats."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from bundle_changes import EditedBundle


def _choose_other_bundle(bundle: EditedBundle, numbers: Random) -> Path:
    """Return the folder of another bundle from the same builds."""
    return numbers.choice(
        sorted(path.parent for path in bundle.other_bundles.glob("*/manifest.json"))
    )


def _copy_files(bundle: EditedBundle, numbers: Random) -> None:
    """Replace files with another bundle's files of the same path: one, or all of a kind."""
    donor = _choose_other_bundle(bundle, numbers)
    common = [path for path in bundle.paths if (donor / path).is_file()]
    kind = numbers.choice(("one", "model/", "goldens/", "graph/", ""))
    paths = [path for path in common if path.startswith(kind)]
    if kind == "one" and common:
        paths = [numbers.choice(common)]
    for path in paths:
        (bundle.folder / path).write_bytes((donor / path).read_bytes())


def _replace_part(bundle: EditedBundle, numbers: Random) -> None:
    """Replace a part of the manifest, or all of it, with another bundle's."""
    with suppress(KeyError, TypeError, AttributeError):
        other_manifest = json.loads(
            (_choose_other_bundle(bundle, numbers) / "manifest.json").read_bytes()
        )
        if numbers.random() < 0.1:
            bundle.manifest = other_manifest
            return
        key = numbers.choice(sorted(other_manifest))
        bundle.manifest[key] = other_manifest[key]


def _replace_version(bundle: EditedBundle, numbers: Random) -> None:
    """Change the format version to an older or newer one, or remove the proof of origin."""
    with suppress(KeyError, TypeError, AttributeError):
        match numbers.choice(("form", "seal", "proof", "precision", "tools")):
            case "form":
                bundle.manifest["tcc_bundle"] = numbers.choice((0, 1, 1, 3, 99, "1", 1.0, -1))
            case "seal":
                bundle.manifest["seal"] = numbers.choice(("", "0" * 64, None))
            case "proof":
                bundle.manifest[numbers.choice(("calibration", "made_with"))] = None
                bundle.manifest.pop("operating_points", None)
            case "precision":
                bundle.manifest["precision"] = numbers.choice(("fp32", "int8", "fp16", "dynamic"))
            case "tools":
                bundle.manifest["made_with"] = dict.fromkeys(bundle.manifest["made_with"], "0.0.1")


SWAPS: tuple[tuple[Callable[[EditedBundle, Random], None], int], ...] = (
    (_copy_files, 6), (_replace_part, 4), (_replace_version, 4),
)  # fmt: skip
