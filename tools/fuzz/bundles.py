"""Bundles that somebody edited: manifests, goldens, artifacts, most of them sealed anew.

What `tcc verify` lets pass keeps to what its target is allowed, and its goldens are those that the
bundle was built with, within that; what `tcc run` gives of an untouched artifact is what it gave.
"""

import atexit
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from bundle_changes import CHANGES, Bundle
from bundle_swaps import SWAPS
from case import Case, Front, Outcome

from tcc.compiler.zoo.shipped import get_samples_folder

SPEC = """\
tcc: 1
name: tiny
input:
  image: {shape: [3, 12, 12], preprocess: {resize: {size: [12, 12], mode: stretch}}}
graph:
  - conv: {filters: 4, kernel: 3, padding: 1}
  - relu
  - global_avg_pool
  - flatten
  - linear: {units: 3}
output:
  logits: {activation: softmax, labels: [a, b, c]}
"""
BUILDS = (
    ("onnxruntime", "fp32", 4),
    ("onnxruntime", "int8", 2),
    ("tflite", "fp32", 2),
    ("tflite", "dynamic", 1),
    ("host", "fp32", 3),
    ("web", "fp32", 0),
)
"""What is edited, and how often of a dozen times; a page is only built, and killed (`kills`)."""
CALIBRATED = {"int8": ("--data", str(get_samples_folder()), "--floor", "min_cosine=0")}
"""What a build takes besides at a precision."""
ALLOWED = {"fp32": 1e-4, "dynamic": 0.1, "fp16": 0.01}
PROGRAM = "import sys; from tcc.compiler.cli import main; sys.exit(main())"
IMAGE = "set/a/1.png"
TOOL_MISSING = 3


@cache
def templates() -> Path:
    """Build the bundles, once, in a process that leaves this one as it is."""
    folder = Path(tempfile.mkdtemp(prefix="bundles-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "tiny.yaml").write_text(SPEC)
    for target, precision, _ in BUILDS:
        words = ["build", "tiny.yaml", "--target", target, "--precision", precision, "-q"]
        words += ["--out", "."]
        words += CALIBRATED.get(precision, ())
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *words]
        ended = subprocess.run(command, cwd=folder, check=False, capture_output=True)
        if ended.returncode not in (0, TOOL_MISSING):
            raise RuntimeError(ended.stderr.decode())
    return folder


def _edited(numbers: Random) -> Case:
    builds = [one for one in BUILDS if (templates() / f"tiny-{one[0]}-{one[1]}").is_dir()]
    target, precision, _ = numbers.choices(builds, [often for *_, often in builds])[0]
    name = f"tiny-{target}-{precision}"
    seed = numbers.getrandbits(64)
    command = numbers.choice(["verify"] * 4 + ["run"] * 2 + ["eval", "show"])
    words = {
        "verify": ("verify", "b", "--json"),
        "run": ("run", "b", IMAGE, "--json"),
        "eval": ("eval", "b", "--data", "set"),
        "show": ("show", "b", "--stage", numbers.choice(["float", "fused", "int8"])),
    }[command]
    image = (get_samples_folder() / "TUM/1.png").read_bytes()
    # Half of those that were changed would end at a program that nobody knows.
    words = (*words, "--trust") if command != "show" and numbers.random() < 0.5 else words
    check = {"verify": _verified, "run": _ran}.get(command)
    return Case(
        words,
        {IMAGE: image},
        partial(_prepared, name, seed),
        check and partial(check, name),
    )


def _prepared(name: str, seed: int, folder: Path) -> None:
    shutil.copytree(templates() / name, folder / "b")
    numbers = Random(seed)
    bundle = Bundle(folder / "b", templates())
    for _ in range(numbers.choice((1, 1, 1, 2, 3))):
        changes, weights = zip(*CHANGES, *SWAPS, strict=True)
        change = numbers.choices(changes, weights)[0]
        change(bundle, numbers)
    bundle.finish(numbers)


def _verified(name: str, outcome: Outcome, folder: Path) -> str:
    """Say what is wrong with a bundle that passed."""
    if outcome.code:
        return ""
    about = json.loads((folder / "b/manifest.json").read_bytes())
    cases, files = about["goldens"]["cases"], {f["path"]: f for f in about["files"]}
    inputs = [files[case["image"] or case["tensor"]]["sha256"] for case in cases]
    if len(set(inputs)) < 2 or len(set(inputs)) < len(inputs):
        return f"{len(cases)} goldens, {len(set(inputs))} inputs"
    most = ALLOWED.get(
        about["precision"], 0.1 if (about["calibration"] or {}).get("inexact") else 0
    )
    if not 0 <= about["goldens"]["tolerance"]["relative"] <= most:
        return "a tolerance that is not allowed"
    for path, file in files.items():
        data = (folder / "b" / path).read_bytes()
        if (len(data), hashlib.sha256(data).hexdigest()) != (file["bytes"], file["sha256"]):
            return f"{path} is another"
    return _goldens(name, about, folder / "b", most)


def _goldens(name: str, about: dict[str, Any], folder: Path, most: float) -> str:
    """Say which golden is not one that the bundle was built with, for its image."""
    first = json.loads((templates() / name / "manifest.json").read_bytes())
    kept = {(templates() / name / c["image"]).read_bytes(): c for c in first["goldens"]["cases"]}
    for case in about["goldens"]["cases"]:
        was = kept.get((folder / case["image"]).read_bytes())
        if was is None or about["input"] != first["input"]:
            continue
        for output, path in was["outputs"].items():
            a = np.fromfile(templates() / name / path, "<f4").astype(np.float64)
            b = np.fromfile(folder / case["outputs"][output], "<f4").astype(np.float64)
            if not np.abs(a - b).max() <= 2 * most * max(1.0, np.abs(a).max()):
                return f"golden {case['name']} is another"
    return ""


def _ran(name: str, outcome: Outcome, folder: Path) -> str:
    """Say where an untouched artifact with an untouched contract gives something else."""
    if outcome.code:
        return ""
    first = templates() / name
    same = all(
        path.read_bytes() == (folder / "b" / path.relative_to(first)).read_bytes()
        for path in (first / "model").rglob("*")
        if path.is_file()
    )
    about, was = (json.loads((f / "manifest.json").read_bytes()) for f in (folder / "b", first))
    if not same or about["input"] != was["input"]:
        return ""
    wanted = _given(name, (folder / IMAGE).read_bytes())
    (image,) = json.loads(outcome.out)["images"]
    return "" if image["outputs"]["logits"]["raw"] == wanted else "another answer"


@cache
def _given(name: str, image: bytes) -> list[float]:
    """Return what an untouched bundle gives for an image."""
    place = templates() / "image.png"
    place.write_bytes(image)
    words = ["run", str(templates() / name), str(place), "--json"]
    command = [sys.executable, "-c", PROGRAM, *words]
    said = subprocess.run(command, capture_output=True, check=True).stdout
    found: list[float] = json.loads(said)["images"][0]["outputs"]["logits"]["raw"]
    return found


def _warm() -> None:

    templates()


BUNDLES = Front("bundles", 10000, _edited, _warm)
