"""Packages for AXERA's toolchains: contents, unusual inputs, and compilation by a fake toolchain."""

import io
import json
import re
import tarfile
from pathlib import Path

import npu_tool
import numpy as np
import prototxt
import pytest
from npu_packages import ODD, SPEC, STEPS, build
from PIL import Image

from tcc.compiler.data import images as decoder
from tcc.compiler.ir import preprocess

TARGETS = ("ax620", "ax650")
ALL = ("ax620", "ax620e", "ax650")


def read_members(path):
    with tarfile.open(path) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar.getmembers()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_packages_of_unusual_networks_are_compiled(tcc, home, odd, images, docker, name):
    """All three targets: package contents, tool output and golden outputs."""
    spec = odd(name)
    outcome = build(tcc, ",".join(ALL), images)
    assert outcome.code == 0, outcome.err + outcome.out
    (source,) = spec.graph.inputs
    learn = {compute_input_bytes(path, source) for path in list_fit_images(images)}
    for target in ALL:
        bundle = home / f"build/odd-{target}-int8"
        archive = read_members(home / f"build/odd-{target}-int8.calibration.tar")
        assert [member.name[:4] for member, _ in archive] == [f"{n:04d}" for n in range(1, 19)]
        assert {
            (member.mtime, member.uid, member.gid, member.uname, member.mode)
            for member, _ in archive
        } == {(0, 0, 0, "", 0o644)}
        assert normalize_archive(archive, source) == learn
        labels = json.loads((bundle / "model/labels.json").read_text())
        assert labels == {"logits": list(spec.graph.outputs[0].labels)}
        manifest_json = json.loads((bundle / "manifest.json").read_text())
        names = {member.name for member in spec.graph.outputs}
        assert {member["name"] for member in manifest_json["compiled"]["outputs"]} == names
        assert {member["where"] for member in manifest_json["compiled"]["parts"]} == {"NPU"}
    versions = ["Pulsar 0.6.1.14", "Pulsar2 6.0-lite", "Pulsar2 6.0-lite"]
    version_lines = [line for line in outcome.out.splitlines() if line.startswith("  compiled by ")]
    assert version_lines == [f"  compiled by {member}" for member in versions]
    checked = tcc("verify", *(f"build/odd-{target}-int8" for target in ALL), "--json")
    assert checked.code == 0, checked.out + checked.err
    for bundle_report in checked.document["bundles"]:
        assert [member["golden"] for member in bundle_report["tool"]["goldens"]] == [
            "1",
            "2",
        ] * len(names)
        assert all(member["cosine"] > 0.999 for member in bundle_report["tool"]["goldens"])


def compute_input_bytes(path, source):
    """Return the network's input values for an image, except for their order."""
    return preprocess.apply(
        source.preprocess, decoder.read_image(path), source.type.shape
    ).tobytes()


def list_fit_images(images):
    """Return the images that are not held out. One in four is held out, by digest."""
    from tcc.compiler.data.dataset import read_dataset

    fit_set, _ = read_dataset(images).split()
    return [item.path for item in fit_set.items]


def normalize_archive(archive, source):
    """Return the normalized network inputs of the files of an archive."""
    return {normalize_member(member.name, data, source).tobytes() for member, data in archive}


def normalize_member(name, data, source):
    pre = source.preprocess
    if name.endswith(".npy"):
        return np.load(io.BytesIO(data))
    if name.endswith(".bin"):
        return np.frombuffer(data, "<f4")
    image = Image.open(io.BytesIO(data))
    assert image.mode == ("L" if pre.color == "gray" else "RGB")
    assert image.info == {}
    pixels = np.asarray(image).reshape(*image.size[::-1], -1)
    return preprocess.normalize(pre, pixels[:, :, ::-1] if pre.color == "bgr" else pixels)


def test_package_bytes_are_reproducible(tcc, home, odd, images, no_docker):
    odd("two")
    manifest_bytes = []
    for _ in range(2):
        assert build(tcc, "ax620,ax650", images, "-q").code == 0
        manifest_bytes.append(
            [(home / f"build/odd-{t}-int8/manifest.json").read_bytes() for t in TARGETS]
        )
    assert manifest_bytes[0] == manifest_bytes[1]


def test_tensor_inputs_are_packaged_as_arrays(tcc, home, no_docker):
    (home / "odd.yaml").write_text(
        SPEC.format(input="x: {shape: [2, 4, 4]}", steps=STEPS, output="logits: {}")
    )
    rng = np.random.default_rng(3)
    np.savez(home / "data.npz", tensors=rng.standard_normal((24, 2, 4, 4)).astype(np.float32))
    for target, suffix in (("ax620", ".bin"), ("ax650", ".npy")):
        outcome = build(tcc, target, "data.npz")
        assert outcome.code == 0, outcome.err
        archive = read_members(home / f"build/odd-{target}-int8.calibration.tar")
        assert {Path(member.name).suffix for member, _ in archive} == {suffix}
        sizes = {len(data) - (128 if suffix == ".npy" else 0) for _, data in archive}
        assert sizes == {4 * 2 * 4 * 4}


def test_package_without_images_is_refused(tcc, home, odd, images, no_docker):
    odd("two")
    assert (
        tcc("calibrate", "odd.yaml", "--target", "ax620", "--data", images, "-o", "c.json").code
        == 0
    )
    outcome = tcc("build", "odd.yaml", "--target", "ax620", "--calibration", "c.json", "--floor", "min_cosine=0", "--floor", "max_drop=1")  # fmt: skip
    assert outcome.code == 2
    assert "error[E0670]: a package for ax620 needs calibration images" in outcome.err
    assert not (home / "build/odd-ax620-int8").exists()


def test_package_cannot_run_on_this_machine(tcc, home, odd, images, picture, no_docker):
    odd("two")
    outcome = build(tcc, "ax620", images)
    assert outcome.code == 0
    message = "build/odd-ax620-int8.calibration.tar contains calibration images; it is not part of"
    assert message in outcome.out
    assert (
        "  not compiled: docker is not on PATH. To compile it, run this where docker has the"
        " toolchain's image:" in outcome.out
    )
    assert "    sh build/odd-ax620-int8/model/build.sh" in outcome.out.splitlines()
    for args in (("run", picture), ("verify",)):
        outcome = tcc(args[0], "build/odd-ax620-int8", *args[1:])
        assert outcome.code == 2
        assert "error[E0657]: this machine cannot run what is built for ax620" in outcome.err
    assert "build.sh` on a machine with docker, then give its log: --logs" in outcome.err


def test_logs_are_refused_for_other_bundles(tcc, built):
    outcome = tcc("verify", built, "--logs", "log.txt")
    assert (outcome.code, "error[E0673]" in outcome.err) == (2, True)


def test_rounded_weights_have_at_most_255_values_per_filter(tcc, home, odd, images, no_docker):
    import onnx
    from onnx import numpy_helper

    odd("two")
    assert build(tcc, "ax620", images, "--precision", "int8-rounded").code == 0
    model = onnx.load(home / "build/odd-ax620-int8-rounded/model/model.onnx")
    weight_names = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    weights = [numpy_helper.to_array(t) for t in model.graph.initializer if t.name in weight_names]
    assert weights
    for weight in weights:
        for filter_weights in weight.reshape(len(weight), -1).astype(np.float64):
            steps = filter_weights / (np.abs(filter_weights).max() / 127)
            assert np.abs(steps - np.rint(steps)).max() < 1e-4


def test_project_precision_does_not_apply_to_packages(tcc, home, odd, images, no_docker):
    odd("two")
    (home / "tcc.toml").write_text(f'spec = "odd.yaml"\ndata = "{images}"\nprecision = "fp32"\n')
    outcome = tcc("build", "odd.yaml", "--target", "ax620", "-q")
    assert (outcome.code, outcome.out.split()) == (0, ["build/odd-ax620-int8"])
    outcome = tcc("build", "odd.yaml", "--target", "ax620", "--precision", "fp32")
    assert (
        outcome.code,
        "error[E0606]: ax620 does not support precision `fp32`" in outcome.err,
    ) == (
        2,
        True,
    )


def test_configuration_follows_the_spec(tcc, home, odd, images, no_docker):
    spec = odd("bgr")
    assert build(tcc, "ax620", images, "-q").code == 0
    config = prototxt.read((home / "build/odd-ax620-int8/model/config.prototxt").read_text())
    assert {tensor_config["color_space"] for tensor_config in config["dst_input_tensors"]} == {
        "TENSOR_COLOR_SPACE_BGR"
    }
    data = (home / "build/odd-ax620-int8/goldens/1/input.bin").read_bytes()
    png = (home / "build/odd-ax620-int8/model/goldens/1.png").read_bytes()
    preprocessed = npu_tool.preprocess(config, png)
    np.testing.assert_allclose(
        preprocessed.reshape(-1), np.frombuffer(data, "<f4"), rtol=0, atol=1e-6
    )
    assert spec.graph.inputs[0].preprocess.color == "bgr"


@pytest.mark.parametrize("target", TARGETS)
def test_calibrate_writes_the_image_archive_and_the_cosine_plot(
    tcc, home, odd, images, no_docker, target
):
    odd("two")
    outcome = tcc("calibrate", "odd.yaml", "--target", target, "--data", images, "--json")
    assert outcome.code == 0, outcome.err
    package = outcome.document["package"]
    files = [home / package["archive"], home / package["picture"], home / outcome.document["path"]]
    names = [f"odd-{target}.calibration.{end}" for end in ("images.tar", "cosine.svg", "json")]
    assert [(path.parent.name, path.name) for path in files] == [("build", name) for name in names]
    assert package["threshold"] == 0.98
    assert package["cosines"].keys() == {"odd, logits", "odd, mean"}
    assert package["layers"]
    assert all(0.9 < layer["cosine"] <= 1 for layer in package["layers"])
    assert files[1].read_text().startswith("<svg ")
    assert build(tcc, target, images, "-q").code == 0
    archive = (home / f"build/odd-{target}-int8.calibration.tar").read_bytes()
    assert files[0].read_bytes() == archive
    text = tcc("calibrate", "odd.yaml", "--target", target, "--data", images).out
    assert re.search(r"^  odd, logits  #+ +[01]\.[0-9]{6}$", text, re.MULTILINE)
    assert "cosine of each layer, lowest first" in text
