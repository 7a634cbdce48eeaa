"""Fuzz images and `.npz` files, valid, damaged and bombs, through `run`, `calibrate` and `eval`.

The network of `run` returns its input unchanged. So the values of an accepted image are compared
with Pillow's decoding and the preprocessing in NumPy, value by value, on ONNX Runtime and in C.
"""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from random import Random

from case import Case, Front, Outcome
from pictures import decode_pixels, inject_damage, make_image

from tcc.compiler.ir.preprocess import PixelResize, Preprocess, apply

CONTRACTS: Mapping[str, tuple[str, Preprocess, tuple[int, int, int]]] = {
    "stretch": (
        "{resize: {size: [9, 11]}, mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3]}",
        Preprocess("rgb", PixelResize((9, 11)), None, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)),
        (3, 9, 11),
    ),
    "cover": (
        "{color: gray, resize: {size: [12, 10], mode: cover}, crop: [14, 8], scale: max}",
        Preprocess("gray", PixelResize((12, 10), "cover"), (14, 8), scale="max"),
        (1, 14, 8),
    ),
    "fixed": (
        "{color: bgr, scale: max, mean: [0.5]}",
        Preprocess("bgr", mean=(0.5,), scale="max"),
        (3, 20, 30),
    ),
    "costly": (
        "{color: gray, resize: {size: [1, 8192]}}",
        Preprocess("gray", PixelResize((1, 8192))),
        (1, 1, 8192),
    ),
}
"""The preprocessing contracts: as text in a spec, as objects, and with the input's shape."""
TARGETS = ("onnxruntime", "host")
NET = """\
tcc: 1
name: {name}
input:
  image:
    shape: {shape}
    preprocess: {contract}
graph:
{graph}
output:
  logits: {{labels: {labels}}}
"""
IDENTITY_GRAPH = "  - flatten"
CLASSES = "  - conv: {filters: 2, kernel: 1}\n  - global_avg_pool\n  - flatten"


def _format_spec(name: str, graph: str, labels: str) -> str:
    contract, _, shape = CONTRACTS[name]
    return NET.format(name=name, shape=list(shape), contract=contract, graph=graph, labels=labels)


@cache
def _build_bundles() -> Path:
    """Build the bundles of the `run` cases once."""
    folder = Path(tempfile.mkdtemp(prefix="tcc-fuzz-"))
    atexit.register(shutil.rmtree, folder)
    for name in CONTRACTS:
        (folder / f"{name}.yaml").write_text(_format_spec(name, IDENTITY_GRAPH, "[]"))
        arguments = ("build", f"{name}.yaml", "--target", ",".join(TARGETS), "-q")
        program = "import sys; from tcc.compiler.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", program, *arguments]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "build"


def _make_value_check(name: str, contract: str) -> Callable[[Outcome, Path], str]:
    """Return a check of an accepted image's values against the definition."""

    def check(outcome: Outcome, folder: Path) -> str:
        if outcome.code:
            return "" if name in outcome.err else "the message does not name the file"
        (image,) = json.loads(outcome.out)["images"]
        _, pre, shape = CONTRACTS[contract]
        expected = apply(pre, decode_pixels((folder / name).read_bytes()), shape).reshape(-1)
        computed = image["outputs"]["logits"]["raw"]
        return (
            ""
            if computed == expected.tolist()
            else "the values differ from the definition of the preprocessing"
        )

    return check


def _make_run_case(numbers: Random) -> Case:
    contract = numbers.choice(list(CONTRACTS))
    bundle = _build_bundles() / f"{contract}-{numbers.choice(TARGETS)}-fp32"
    name, content = make_image(numbers)
    if numbers.random() < 0.35:
        content = inject_damage(numbers, content)
    check = _make_value_check(name, contract)
    return Case(("run", str(bundle), name, "--json"), {name: content}, check=check)


def _make_special_case(numbers: Random) -> Case:
    """Return a run on something that is not a regular file, or on a folder of several things."""

    def prepare(folder: Path) -> None:
        match kind:
            case "pipe":
                os.mkfifo(folder / "x.png")
            case "device":
                (folder / "x.png").symlink_to("/dev/zero")
            case "link":
                (folder / "x.png").symlink_to("x.png")
            case _:
                (folder / "x.png").mkdir()

    kind = numbers.choice(("pipe", "device", "link", "folder"))
    arguments = numbers.choice((("run", str(_build_bundles() / "stretch-host-fp32"), "x.png"),
                            ("eval", "net.yaml", "--data", "."),
                            ("calibrate", "net.yaml", "--data", ".")))  # fmt: skip
    net = _format_spec("stretch", CLASSES, "[a, b]").encode()
    return Case(arguments, {"net.yaml": net}, prepare, _check_refused)


def _check_refused(outcome: Outcome, _: Path) -> str:
    return "" if outcome.code == 2 else "tcc accepted it"


def _make_folder_case(numbers: Random) -> Case:
    """Return an evaluation or a calibration with class folders of valid and damaged images."""
    files = {"net.yaml": _format_spec("stretch", CLASSES, "[a, b]").encode()}
    damage = numbers.random() < 0.5
    for number in range(numbers.randint(1, 4)):
        name, content = make_image(numbers, huge=False)
        if damage and numbers.random() < 0.5:
            content = inject_damage(numbers, content)
        files[f"set/{numbers.choice('ab')}/{number}-{name}"] = content
    return Case((*_choose_command(numbers), "--data", "set"), files)


def _make_array_case(numbers: Random) -> Case:
    from arrays import make_npz

    files = {
        "net.yaml": _format_spec("stretch", CLASSES, "[a, b]").encode(),
        "set.npz": make_npz(numbers),
    }
    return Case((*_choose_command(numbers), "--data", "set.npz"), files)


def _choose_command(numbers: Random) -> tuple[str, ...]:
    if numbers.random() < 0.5:
        return ("eval", "net.yaml")
    return ("calibrate", "net.yaml", "--method", "minmax", "-q")


def _make_case(numbers: Random) -> Case:
    makers = numbers.choices(
        (_make_run_case, _make_folder_case, _make_array_case, _make_special_case), (12, 3, 4, 1)
    )
    return makers[0](numbers)


def _prepare() -> None:
    import onnxruntime  # noqa: F401

    import tcc.compiler.cli
    import tcc.compiler.driver.evaluation
    import tcc.compiler.driver.pipeline  # noqa: F401

    _build_bundles()


IMAGES = Front("images", 500, _make_case, _prepare)
