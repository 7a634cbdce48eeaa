"""Fuzz edited bundles: changed manifests, goldens and artifacts, most with a new seal.

A bundle that `tcc verify` accepts must have an allowed tolerance for its target. Its goldens must
be the original ones within that tolerance. `tcc run` of an unchanged artifact must give the
original outputs.
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
from bundle_changes import CHANGES, EditedBundle
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
"""The builds to edit, with relative frequencies. A web page is only built and killed (`kills`)."""
CALIBRATED = {"int8": ("--data", str(get_samples_folder()), "--floor", "min_cosine=0")}
"""Additional build arguments by precision."""
ALLOWED = {"fp32": 1e-4, "dynamic": 0.1, "fp16": 0.01}
PROGRAM = "import sys; from tcc.compiler.cli import main; sys.exit(main())"
IMAGE = "set/a/1.png"
TOOL_MISSING = 3


@cache
def build_templates() -> Path:
    """Build the bundles once, in other processes."""
    folder = Path(tempfile.mkdtemp(prefix="bundles-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "tiny.yaml").write_text(SPEC)
    for target, precision, _ in BUILDS:
        arguments = ["build", "tiny.yaml", "--target", target, "--precision", precision, "-q"]
        arguments += ["--out", "."]
        arguments += CALIBRATED.get(precision, ())
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *arguments]
        process = subprocess.run(command, cwd=folder, check=False, capture_output=True)
        if process.returncode not in (0, TOOL_MISSING):
            raise RuntimeError(process.stderr.decode())
    return folder


def _make_case(numbers: Random) -> Case:
    builds = [
        build for build in BUILDS if (build_templates() / f"tiny-{build[0]}-{build[1]}").is_dir()
    ]
    target, precision, _ = numbers.choices(builds, [weight for *_, weight in builds])[0]
    name = f"tiny-{target}-{precision}"
    seed = numbers.getrandbits(64)
    command = numbers.choice(["verify"] * 4 + ["run"] * 2 + ["eval", "show"])
    arguments = {
        "verify": ("verify", "b", "--json"),
        "run": ("run", "b", IMAGE, "--json"),
        "eval": ("eval", "b", "--data", "set"),
        "show": ("show", "b", "--stage", numbers.choice(["float", "fused", "int8"])),
    }[command]
    image = (get_samples_folder() / "TUM/1.png").read_bytes()
    # Without `--trust`, half of the changed bundles would be refused for an unknown program.
    arguments = (
        (*arguments, "--trust") if command != "show" and numbers.random() < 0.5 else arguments
    )
    check = {"verify": _check_verify, "run": _check_run}.get(command)
    return Case(
        arguments,
        {IMAGE: image},
        partial(_prepare_case, name, seed),
        check and partial(check, name),
    )


def _prepare_case(name: str, seed: int, folder: Path) -> None:
    shutil.copytree(build_templates() / name, folder / "b")
    numbers = Random(seed)
    bundle = EditedBundle(folder / "b", build_templates())
    for _ in range(numbers.choice((1, 1, 1, 2, 3))):
        changes, weights = zip(*CHANGES, *SWAPS, strict=True)
        change = numbers.choices(changes, weights)[0]
        change(bundle, numbers)
    bundle.finish(numbers)


def _check_verify(name: str, outcome: Outcome, folder: Path) -> str:
    """Return what is wrong with a bundle that `tcc verify` accepted."""
    if outcome.code:
        return ""
    manifest = json.loads((folder / "b/manifest.json").read_bytes())
    cases, files = manifest["goldens"]["cases"], {f["path"]: f for f in manifest["files"]}
    inputs = [files[case["image"] or case["tensor"]]["sha256"] for case in cases]
    if len(set(inputs)) < 2 or len(set(inputs)) < len(inputs):
        return f"{len(cases)} goldens have only {len(set(inputs))} distinct inputs"
    max_difference = ALLOWED.get(
        manifest["precision"], 0.1 if (manifest["calibration"] or {}).get("inexact") else 0
    )
    if not 0 <= manifest["goldens"]["tolerance"]["relative"] <= max_difference:
        return "the tolerance is outside the allowed range"
    for path, file in files.items():
        content = (folder / "b" / path).read_bytes()
        if (len(content), hashlib.sha256(content).hexdigest()) != (file["bytes"], file["sha256"]):
            return f"{path} differs from its hash in the manifest"
    return _check_goldens(name, manifest, folder / "b", max_difference)


def _check_goldens(name: str, manifest: dict[str, Any], folder: Path, max_difference: float) -> str:
    """Return the golden that differs from the original one for the same image, if any."""
    original_manifest = json.loads((build_templates() / name / "manifest.json").read_bytes())
    original_cases = {
        (build_templates() / name / c["image"]).read_bytes(): c
        for c in original_manifest["goldens"]["cases"]
    }
    for case in manifest["goldens"]["cases"]:
        original_case = original_cases.get((folder / case["image"]).read_bytes())
        if original_case is None or manifest["input"] != original_manifest["input"]:
            continue
        for output, path in original_case["outputs"].items():
            a = np.fromfile(build_templates() / name / path, "<f4").astype(np.float64)
            b = np.fromfile(folder / case["outputs"][output], "<f4").astype(np.float64)
            if not np.abs(a - b).max() <= 2 * max_difference * max(1.0, np.abs(a).max()):
                return f"golden {case['name']} differs from the original"
    return ""


def _check_run(name: str, outcome: Outcome, folder: Path) -> str:
    """Return a failure if an unchanged artifact and contract give another output."""
    if outcome.code:
        return ""
    template = build_templates() / name
    is_same_model = all(
        path.read_bytes() == (folder / "b" / path.relative_to(template)).read_bytes()
        for path in (template / "model").rglob("*")
        if path.is_file()
    )
    manifest, original_manifest = (
        json.loads((f / "manifest.json").read_bytes()) for f in (folder / "b", template)
    )
    if not is_same_model or manifest["input"] != original_manifest["input"]:
        return ""
    expected = _run_template(name, (folder / IMAGE).read_bytes())
    (image,) = json.loads(outcome.out)["images"]
    return (
        ""
        if image["outputs"]["logits"]["raw"] == expected
        else "the outputs differ from the original bundle's"
    )


@cache
def _run_template(name: str, image: bytes) -> list[float]:
    """Return the outputs of an unchanged bundle for an image."""
    image_path = build_templates() / "image.png"
    image_path.write_bytes(image)
    arguments = ["run", str(build_templates() / name), str(image_path), "--json"]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    printed = subprocess.run(command, capture_output=True, check=True).stdout
    logits: list[float] = json.loads(printed)["images"][0]["outputs"]["logits"]["raw"]
    return logits


def _prepare() -> None:

    build_templates()


BUNDLES = Front("bundles", 10000, _make_case, _prepare)
