"""Packages for AXERA's tools: what is in them, odd inputs, and the tools' stand-in at work."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import npu_tool
import numpy as np
import prototxt
import pytest
from PIL import Image

from tcc.compiler.data import images as decoder
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir import preprocess

TARGETS = ("ax620", "ax650")
SPEC = """\
tcc: 1
name: odd
input:
  {input}
graph:
  {steps}
output:
  {output}
"""
STEPS = "- conv: {filters: 4, kernel: 3, padding: 1}\n  - relu\n  - {global_avg_pool: {}, as: pooled}\n  - flatten\n  - linear: {units: 3}"
IMAGE = "image: {{shape: [{shape}], preprocess: {{resize: {{size: [{size}]}}, {more}}}}}"
LABELS = 'logits: {activation: softmax, labels: ["日本 \\"x\\"", "café\\\\n", "العربية"]}'
ODD = {
    "grey": (IMAGE.format(shape="1, 8, 12", size="8, 12", more="color: gray, mean: [0.4], std: [0.2]"), LABELS),
    "bgr": (IMAGE.format(shape="3, 6, 9", size="6, 9", more="color: bgr, mean: [0.4, 0.5, 0.6], std: [0.2, 0.3, 0.4]"), LABELS),
    "maximum": (IMAGE.format(shape="3, 8, 8", size="8, 8", more="scale: max"), LABELS),
    "cropped": (IMAGE.format(shape="3, 8, 8", size="6, 7", more="crop: [8, 8]"), LABELS),
    "two": (IMAGE.format(shape="3, 8, 8", size="8, 8", more="mean: [0.5], std: [0.5]"), LABELS + "\n  mean: {from: pooled}"),
}  # fmt: skip


@pytest.fixture
def odd(home):
    """Write a spec of one of the odd kinds."""

    def write(name):
        source, output = ODD[name]
        text = SPEC.format(input=source, steps=STEPS, output=output)
        (home / "odd.yaml").write_text(text)
        return load(home / "odd.yaml", {})

    return write


@pytest.fixture
def tool(home, monkeypatch):
    """Put the stand-in of docker before all else."""
    program = home / "bin" / "docker"
    program.parent.mkdir()
    where = f"PYTHONPATH={Path(npu_tool.__file__).parent}"
    program.write_text(f'#!/bin/sh\n{where} exec {sys.executable} {npu_tool.__file__} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return monkeypatch


@pytest.fixture
def lone(monkeypatch, home):
    """Hide any docker that this machine has."""
    folder = home / "nothing"
    folder.mkdir()
    for name in ("sh", "c++"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(folder))


def members(path):
    with tarfile.open(path) as tar:
        return [(each, tar.extractfile(each).read()) for each in tar.getmembers()]


def build(tcc, target, images, *more):
    return tcc("build", "odd.yaml", "--target", target, "--data", images, "--min-cosine", "0",
               "--min-correlation", "0", *more)  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ODD)
def test_a_package_is_built_of_odd_networks(tcc, home, odd, images, lone, target, name):
    spec = odd(name)
    found = build(tcc, target, images)
    assert found.code == 0, found.err
    assert "model/calibration.tar holds images of the calibration: they leave with" in found.out
    bundle = home / f"build/odd-{target}-int8"
    assert f"    sh build/odd-{target}-int8/model/build.sh" in found.out.splitlines()
    (source,) = spec.graph.inputs
    archive = members(bundle / "model/calibration.tar")
    assert [each.name[:4] for each, _ in archive] == [f"{n:04d}" for n in range(1, 8)]
    assert {(each.mtime, each.uid, each.gid, each.uname, each.mode) for each, _ in archive} == {
        (0, 0, 0, "", 0o644)
    }
    assert seen(archive, source) == {trained(path, source) for path in learnt(images, found)}
    labels = json.loads((bundle / "model/labels.json").read_text())
    assert labels == {"logits": list(spec.graph.outputs[0].labels)}


def trained(path, source):
    """What the network reads of an image, up to the order of its numbers."""
    return preprocess.apply(source.preprocess, decoder.read(path), source.type.shape).tobytes()


def learnt(images, found):
    """The images that were not held out: one in four is, by digest."""
    from tcc.compiler.data.dataset import read

    learn, _ = read(images).split()
    return [item.path for item in learn.items]


def seen(archive, source):
    """What the files of an archive become by the contract's numbers alone."""
    return {made(each.name, data, source).tobytes() for each, data in archive}


def made(name, data, source):
    pre = source.preprocess
    if name.endswith(".npy"):
        return np.load(io.BytesIO(data))
    if name.endswith(".bin"):
        return np.frombuffer(data, "<f4")
    image = Image.open(io.BytesIO(data))
    assert image.mode == ("L" if pre.color == "gray" else "RGB")
    assert image.info == {}
    pixels = np.asarray(image).reshape(*image.size[::-1], -1)
    return preprocess.normalized(pre, pixels[:, :, ::-1] if pre.color == "bgr" else pixels)


def test_a_package_has_the_same_bytes_again(tcc, home, odd, images, lone):
    odd("two")
    for _ in range(2):
        assert build(tcc, "ax620", images, "-o", "first").code == 0
    first = (home / "first/odd-ax620-int8/manifest.json").read_bytes()
    assert build(tcc, "ax620", images, "-o", "second").code == 0
    assert (home / "second/odd-ax620-int8/manifest.json").read_bytes() == first


def test_numbers_that_are_no_image_come_as_numbers(tcc, home, lone):
    (home / "odd.yaml").write_text(
        SPEC.format(input="x: {shape: [2, 4, 4]}", steps=STEPS, output="logits: {}")
    )
    rng = np.random.default_rng(3)
    np.savez(home / "data.npz", tensors=rng.standard_normal((8, 2, 4, 4)).astype(np.float32))
    for target, suffix in (("ax620", ".bin"), ("ax650", ".npy")):
        found = build(tcc, target, "data.npz")
        assert found.code == 0, found.err
        archive = members(home / f"build/odd-{target}-int8/model/calibration.tar")
        assert {Path(each.name).suffix for each, _ in archive} == {suffix}
        sizes = {len(data) - (128 if suffix == ".npy" else 0) for _, data in archive}
        assert sizes == {4 * 2 * 4 * 4}


def test_without_images_there_is_no_package(tcc, home, odd, images, lone):
    odd("two")
    assert (
        tcc("calibrate", "odd.yaml", "--target", "ax620", "--data", images, "-o", "c.json").code
        == 0
    )
    found = tcc("build", "odd.yaml", "--target", "ax620", "--calibration", "c.json", "--min-cosine",
                "0", "--max-drop", "1")  # fmt: skip
    assert found.code == 2
    assert "error[E0670]: a package for ax620 holds images to calibrate with" in found.err
    assert not (home / "build/odd-ax620-int8").exists()


def test_nothing_here_runs_a_package(tcc, home, odd, images, picture, lone):
    odd("two")
    assert build(tcc, "ax620", images, "-q").code == 0
    for words in (("run", picture), ("verify",)):
        found = tcc(words[0], "build/odd-ax620-int8", *words[1:])
        assert found.code == 2
        assert "error[E0657]: nothing here runs what is built for ax620" in found.err
    assert "build.sh` where docker is, and give its log with --logs" in found.err


@pytest.mark.parametrize("target", ["ax620", "ax620e", "ax650"])
@pytest.mark.parametrize("name", ["grey", "bgr", "maximum", "two"])
def test_the_tool_compiles_where_it_is(tcc, home, odd, images, tool, target, name):
    odd(name)
    found = build(tcc, target, images)
    assert found.code == 0, found.err + found.out
    version = "Pulsar 0.6.1.14" if target == "ax620" else "Pulsar2 6.0-lite"
    assert f"  compiled by {version}" in found.out.splitlines()
    bundle = f"build/odd-{target}-int8"
    about = json.loads((home / bundle / "manifest.json").read_text())["compiled"]
    names = {"logits", "mean"} if name == "two" else {"logits"}
    assert {each["name"] for each in about["outputs"]} == names
    assert {each["where"] for each in about["parts"]} == {"NPU"}
    checked = tcc("verify", bundle, "--json")
    assert checked.code == 0, checked.out + checked.err
    (one,) = checked.document["bundles"]
    assert [each["golden"] for each in one["tool"]["goldens"]] == ["1", "2"] * len(names)
    assert all(each["cosine"] > 0.999 for each in one["tool"]["goldens"])


def test_a_log_is_brought_back(tcc, home, odd, images, tool):
    odd("two")
    assert build(tcc, "ax620", images, "--no-tool").code == 0
    bundle = home / "build/odd-ax620-int8"
    assert not (bundle / "model/compiled").exists()
    subprocess.run(["sh", bundle / "model/build.sh"], check=True, capture_output=True)
    out = home / "build/odd-ax620-int8.out"
    found = tcc("verify", bundle, "--logs", out / "log.txt")
    assert found.code == 0, found.err
    assert "0.998900" in found.out
    assert "part_0.neu  NPU" in found.out
    assert (
        tcc("build", "odd.yaml", "--target", "ax620", "--data", images, "--no-tool", "-q").code == 0
    )
    other = out / "log.txt"
    other.write_text(other.read_text().replace("Layer: mean", "Layer: else"))
    found = tcc("verify", bundle, "--logs", other)
    assert (
        found.code,
        "error[E0671]: the log says nothing of the network's output `mean`" in found.err,
    ) == (2, True)
    other.write_text("all is well\n")
    found = tcc("verify", bundle, "--logs", other)
    assert (found.code, "no line of Pulsar that compares layers" in found.err) == (2, True)
    found = tcc("verify", bundle, "--logs", "none.txt")
    assert (found.code, "error[E0671]: cannot read the log" in found.err) == (2, True)


def test_what_the_npu_did_not_take_is_said(tcc, home, odd, images, tool):
    odd("two")
    tool.setenv("NPU_TOOL", "cpu")
    found = build(tcc, "ax620", images)
    assert found.code == 0
    assert "the NPU did not take part_1.axe: this runs on the processor, slowly" in found.err


def test_outputs_that_are_stuck_disagree(tcc, home, odd, images, tool):
    odd("two")
    tool.setenv("NPU_TOOL", "stuck")
    assert build(tcc, "ax620", images).code == 0
    found = tcc("verify", "build/odd-ax620-int8")
    assert found.code == 4
    assert "STUCK" in found.out
    assert "the NPU does not give its goldens" in found.err


def test_a_tool_that_fails_leaves_no_bundle(tcc, home, odd, images, tool):
    odd("two")
    tool.setenv("NPU_TOOL", "fail")
    found = build(tcc, "ax620", images)
    assert found.code == 2
    assert "error[E0672]: Pulsar did not compile the package" in found.err
    assert "neuwizard killed by SIGKILL" in found.err
    assert not (home / "build/odd-ax620-int8").exists()


def test_only_packages_have_logs(tcc, built):
    found = tcc("verify", built, "--logs", "log.txt")
    assert (found.code, "error[E0673]" in found.err) == (2, True)


def test_rounded_weights_have_255_levels_a_filter(tcc, home, odd, images, lone):
    import onnx
    from onnx import numpy_helper

    odd("two")
    assert build(tcc, "ax620", images, "--precision", "int8-rounded").code == 0
    model = onnx.load(home / "build/odd-ax620-int8-rounded/model/model.onnx")
    read = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    weights = [numpy_helper.to_array(t) for t in model.graph.initializer if t.name in read]
    assert weights
    for weight in weights:
        for one in weight.reshape(len(weight), -1).astype(np.float64):
            steps = one / (np.abs(one).max() / 127)
            assert np.abs(steps - np.rint(steps)).max() < 1e-4


def test_a_project_of_floats_builds_packages_as_typed(tcc, home, odd, images, lone):
    odd("two")
    (home / "tcc.toml").write_text(f'spec = "odd.yaml"\ndata = "{images}"\nprecision = "fp32"\n')
    found = tcc("build", "odd.yaml", "--target", "ax620", "-q")
    assert (found.code, found.out.split()) == (0, ["build/odd-ax620-int8"])
    found = tcc("build", "odd.yaml", "--target", "ax620", "--precision", "fp32")
    assert (found.code, "error[E0606]: ax620 does not build at precision `fp32`" in found.err) == (
        2,
        True,
    )


def test_the_configuration_says_what_the_spec_says(tcc, home, odd, images, lone):
    spec = odd("bgr")
    assert build(tcc, "ax620", images, "-q").code == 0
    config = prototxt.read((home / "build/odd-ax620-int8/model/config.prototxt").read_text())
    assert {each["color_space"] for each in config["dst_input_tensors"]} == {
        "TENSOR_COLOR_SPACE_BGR"
    }
    data = (home / "build/odd-ax620-int8/goldens/1/input.bin").read_bytes()
    png = (home / "build/odd-ax620-int8/model/goldens/1.png").read_bytes()
    found = npu_tool.preprocessed(config, png)
    np.testing.assert_allclose(found.reshape(-1), np.frombuffer(data, "<f4"), rtol=0, atol=1e-6)
    assert spec.graph.inputs[0].preprocess.color == "bgr"


@pytest.mark.parametrize("target", TARGETS)
def test_calibrating_writes_the_images_and_the_cosines(tcc, home, odd, images, lone, target):
    odd("two")
    found = tcc("calibrate", "odd.yaml", "--target", target, "--data", images, "--json")
    assert found.code == 0, found.err
    package = found.document["package"]
    files = [home / package["archive"], home / package["picture"], home / found.document["path"]]
    names = [f"odd-{target}.calibration.{end}" for end in ("images.tar", "cosine.png", "json")]
    assert [(path.parent.name, path.name) for path in files] == [("build", name) for name in names]
    assert package["threshold"] == 0.98
    assert package["cosines"].keys() == {"odd, set, logits", "odd, set, mean"}
    assert package["layers"]
    assert all(0.9 < layer["cosine"] <= 1 for layer in package["layers"])
    with Image.open(files[1]) as picture:
        assert picture.format == "PNG"
    assert build(tcc, target, images, "-q").code == 0
    archive = (home / f"build/odd-{target}-int8/model/calibration.tar").read_bytes()
    assert files[0].read_bytes() == archive
    text = tcc("calibrate", "odd.yaml", "--target", target, "--data", images).out
    assert re.search(r"^  odd, set, logits  #+ +[01]\.[0-9]{6}$", text, re.MULTILINE)
    assert "the layers' cosines, the least first" in text
