"""After `tcc eval --fit`, all ways to run a bundle decide the same: commands, C code and the page."""

import ctypes
import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from web_node import NODE, run_node

pytest.importorskip("tvm", reason="needs the extra `arm`")
CC = shutil.which("cc") or shutil.which("gcc")
READ_DECISIONS = """
import { readFileSync } from 'node:fs';
import { reading } from 'site/outputs.js';
const { outputs: [output], operating_points: [point] } = JSON.parse(readFileSync(process.argv[2]));
const rows = JSON.parse(readFileSync(process.argv[3]));
console.log(JSON.stringify(rows.map((raw) => reading(output, Float32Array.from(raw), point))));
"""


def draw(folder, seed):
    random = np.random.default_rng(seed)
    for label in ("cat", "dog", "owl"):
        (folder / label).mkdir(parents=True)
        for number in range(8):
            pixels = random.integers(0, random.integers(40, 256), (8, 8, 3), np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


@pytest.fixture
def fitted(tcc, home):
    """A host bundle with its threshold at the median, so half of the images are positive."""
    draw(home / "set/val", 0)
    draw(home / "set/test", 1)
    assert tcc("build", "tiny.yaml", "--target", "host", "-q").code == 0
    bundle = home / "build/tiny-host-fp32"
    fit = ("--fit", "--positive", "owl", "--sensitivity", "0.5")
    outcome = tcc("eval", bundle, "--data", "set", *fit, "--json")
    assert outcome.code == 0, outcome.err
    assert "libraries and program contain the fitted values" in outcome.err
    return bundle, outcome.document


def run_library(bundle, paths):
    """Return the shared library's probabilities and decisions for images."""
    library = ctypes.CDLL(str(bundle / "model/libtiny.so"))
    header = (bundle / "model/tiny.h").read_text()
    size = int(header.partition("_ARENA_SIZE ")[2].split()[0])
    arena = ctypes.create_string_buffer(size)
    library.tiny_create.restype = ctypes.c_void_p
    instance = ctypes.c_void_p(library.tiny_create(arena, ctypes.c_size_t(size)))
    for path in paths:
        values, decided = (ctypes.c_float * 3)(), (ctypes.c_ubyte * 3)()
        pixels = np.asarray(Image.open(path)).tobytes()
        assert library.tiny_predict(instance, pixels, 8, 8, values, decided) == 0
        class_values = (ctypes.c_float * 3)()
        assert library.tiny_classify(instance, pixels, 8, 8, class_values) == 0
        assert list(class_values) == list(values)
        yield list(values), [i for i, flag in enumerate(decided) if flag]


@pytest.mark.slow
def test_commands_program_library_and_page_decide_the_same(tcc, home, fitted):
    bundle, evaluated = fitted
    paths = sorted((home / "set/test").rglob("*.png"))
    predictions = tcc("run", bundle, *paths, "--json").document["images"]
    outputs = [image["outputs"]["logits"] for image in predictions]
    decisions = [[class_row["index"] for class_row in member["decision"]] for member in outputs]
    assert {2 in member for member in decisions} == {True, False}
    sums = np.bincount([member[0] for member in decisions], minlength=3).tolist()
    assert sums == [class_row["predicted"] for class_row in evaluated["classes"]]
    for output, decision, (values, by_c) in zip(
        outputs, decisions, run_library(bundle, paths), strict=True
    ):
        assert by_c == decision
        value_by_class = {class_row["index"]: class_row["value"] for class_row in output["classes"]}
        assert values == pytest.approx([value_by_class[i] for i in range(3)], rel=1e-6)
    for path in paths:
        Image.open(path).save(path.with_suffix(".ppm"))
    command = [bundle / "model/tiny-run", *(path.with_suffix(".ppm") for path in paths)]
    completed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    class_names = [
        line.split(": ")[1] for line in completed.stdout.splitlines() if "decision" in line
    ]
    assert class_names == [("cat", "dog", "owl")[member[0]] for member in decisions]
    if NODE:
        (home / "rows.json").write_text(json.dumps([output["raw"] for output in outputs]))
        page_decisions = run_node(
            READ_DECISIONS, home, bundle / "manifest.json", home / "rows.json"
        )
        assert [member["decision"] for member in page_decisions] == [
            [class_name] for class_name in class_names
        ]


@pytest.mark.slow
def test_fitted_program_is_trusted_and_verifies(tcc, home, fitted):
    bundle, _ = fitted
    assert tcc("verify", bundle).code == 0
    program = bundle / "model/tiny-run"
    assert program.stat().st_mode & 0o111
    second_outcome = tcc("eval", bundle, "--data", "set", "--json")
    assert second_outcome.document["confusion"] == fitted[1]["confusion"]


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"temperature": 2.5}, {"thresholds": [0.125]}, None])
def test_manifest_that_differs_from_its_libraries_is_refused(tcc, home, fitted, change):
    from tcc.compiler.support.json_records import seal

    path = fitted[0] / "manifest.json"
    manifest_json = json.loads(path.read_text())
    points = manifest_json["operating_points"]
    manifest_json["operating_points"] = [points[0] | change] if change else []
    manifest_json["seal"] = seal(manifest_json)
    path.write_text(json.dumps(manifest_json))
    outcome = tcc("verify", fitted[0])
    assert outcome.code == 2
    for name in ("libtiny.a", "libtiny.so", "tiny-run"):
        assert f"model/{name}" in outcome.err
    message = "the temperature or thresholds in this file differ from the manifest"
    assert f"error[E0622]: {message}" in outcome.err


@pytest.mark.slow
@pytest.mark.skipif(not CC, reason="needs a C compiler")
def test_program_linked_as_in_the_readme_uses_the_fitted_values(tcc, home, fitted):
    bundle, _ = fitted
    folder = bundle / "model"
    lines = [line[4:] for line in (folder / "README.txt").read_text().splitlines()
             if line.startswith("    ") or not line]  # fmt: skip
    code = "\n".join(lines).strip().split("\n\n")[0]
    path = next((home / "set/test/owl").glob("*.png"))
    pixels = ", ".join(map(str, np.asarray(Image.open(path)).ravel()))
    code = code.replace("rgb[8 * 8 * 3];", f"rgb[8 * 8 * 3] = {{{pixels}}};")
    (home / "main.c").write_text(code)
    command = [CC, f"-I{folder}", "main.c", folder / "libtiny.a", "-lpthread", "-lm", "-o", "main"]
    subprocess.run(command, cwd=home, check=True)
    stdout_text = subprocess.run([home / "main"], capture_output=True, text=True, check=True).stdout
    (image,) = tcc("run", bundle, path, "--json").document["images"]
    (decided_class,) = image["outputs"]["logits"]["decision"]
    values = {e["label"]: e["value"] for e in image["outputs"]["logits"]["classes"]}
    class_name, value = stdout_text.splitlines()[1].split()
    assert (stdout_text.splitlines()[0], class_name) == ("logits: done", decided_class["label"])
    assert float(value) == pytest.approx(values[class_name], abs=1e-6)
