"""A stand-in for docker with AXERA's tools: it checks what it is given, and prints logs of their form.

It is no simulator of an NPU. What it knows are the documented arguments, files and lines of logs:
`docker image ls`, and `docker run` of a script that calls `pulsar` or `pulsar2`. Networks are run
in floats, from the images that the package has through the preprocessing that its configuration
says, so that a wrong one shows.
"""

import io
import json
import os
import shlex
import sys
import tarfile
from pathlib import Path

if sys.argv[1:2] not in (["image"], ["rm"]):  # these are quick
    import numpy as np
    import onnxruntime
    import prototxt
    from PIL import Image

IMAGES = ("sipeed/pulsar:latest", "pulsar2:6.0-lite", "debian:stable")
RUN = ["run", "-i", "--rm", "--name", "", "--net", "host", "--shm-size", "32g", "-v"]


def main(words):
    if words[:3] == ["image", "ls", "--format"]:
        print("\n".join(IMAGES))
        return
    if words[:2] == ["rm", "-f"]:
        return
    assert words[4].startswith("tcc-"), words
    words[4] = ""
    assert words[: len(RUN)] == RUN, words
    volume, option, images, image = words[len(RUN) :]
    folder, inside = volume.rsplit(":", 1)
    assert (inside, option) == ("/data", "-v"), volume
    archive, inside, mode = images.rsplit(":", 2)
    link = Path(folder) / "calibration.tar"
    assert (str(link.readlink()), mode) == (inside, "ro")
    # What a container sees under a name of its own.
    link.unlink()
    link.symlink_to(archive)
    assert image in IMAGES[:2], image
    head, *lines = [line for line in sys.stdin.read().splitlines() if not line.startswith("#")]
    assert head == "set -ex"
    try:
        for line in lines:
            print(f"+ {line.removesuffix(' </dev/null')}", flush=True)
            step(shlex.split(line), Path(folder))
    finally:
        print("+ chmod -R a+rwX .")


def step(words, folder):
    if words in (["cd", "/data"], ["trap", "chmod -R a+rwX .", "EXIT"]):
        return
    if words[0] == "echo":
        print(*words[1:])
        return
    assert words[-1] == "</dev/null", words
    if "&&" in words:
        first, second = " ".join(words[:-1]).split(" && ")
        assert (first.split()[:2], second.split()[0]) == (["mkdir", "-p"], "cp"), words
        source, target = (folder / each for each in second.split()[1:])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
        return
    known = {
        ("pulsar", "version"): lambda *_: print("0.6.1.14\n2124c702"),
        ("pulsar", "build"): build, ("pulsar", "info"): info, ("pulsar", "run"): run,
        ("pulsar2", "build"): build2, ("onnx", "inspect"): inspect, ("pulsar2", "run"): run2,
    }  # fmt: skip
    known[tuple(words[:2])](words[2:-1], folder)


def options(words, *names):
    """Return options and what is left; all must be known, and have one value."""
    found, rest = {}, []
    words = list(words)
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            assert word in names, word
            found[word[2:]] = words.pop(0)
        else:
            rest.append(word)
    return found, rest


def levels(data, color):
    """Return an image file's levels in an order of colours, channels first."""
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    assert pixels.shape[2] == (1 if color.endswith("GRAY") else 3), (pixels.shape, color)
    pixels = pixels[:, :, ::-1] if color.endswith("BGR") else pixels
    return pixels.transpose(2, 0, 1).astype(np.float32)


def preprocessed(config, data):
    """Return what the network reads of a file, by its configuration."""
    (item,) = config["neuwizard_conf"]["operator_conf"]["input_conf_items"]
    if item["attributes"].get("type") == "FLOAT32":
        return np.frombuffer(data, "<f4")
    (source,) = config["dst_input_tensors"]
    x = levels(data, source["color_space"])
    for change in item["attributes"].get("input_modifications", ()):
        ((kind, values),) = change.items()
        many = {name: np.float32(value)[:, None, None] for name, value in values.items()}
        if kind == "affine_preprocess":
            x = x * many["slope"] / many["slope_divisor"] + many["bias"]
        else:
            x = (x - many["mean"]) / many["std"]
    return x


def opened(path):
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # else AVX2 saturates
    return onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )


def inferred(path, x):
    session = opened(path)
    (source,) = session.get_inputs()
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, {source.name: x.reshape(source.shape)}), strict=True))


def archive(folder, name, size):
    """Return the files of an archive, which must be as many as are to be drawn."""
    with tarfile.open(folder / name) as tar:
        members = tar.getmembers()
        assert len(members) == size, (len(members), size)
        return [tar.extractfile(each).read() for each in members]


def build(words, folder):
    found, rest = options(
        words,
        "--input",
        "--output",
        "--config",
        "--output_config",
        "--target_hardware",
        "--virtual_npu",
    )
    assert not rest, rest
    assert (found["target_hardware"], found["virtual_npu"]) == ("AX620", "111")
    text = (folder / found["config"]).read_text()
    config = prototxt.read(text)
    data = config["neuwizard_conf"]["dataset_conf_calibration"]
    (source,) = opened(folder / found["input"]).get_inputs()
    for each in archive(folder, data["path"], data["size"]):
        assert preprocessed(config, each).size == np.prod(source.shape)
    if "fail" in os.environ.get("NPU_TOOL", ""):
        sys.exit("neuwizard killed by SIGKILL")
    (folder / found["output"]).write_bytes(b"joint")
    (folder / found["output_config"]).write_text(text)
    print("[09 07:10:33 frozen super_pulsar.toolchain_wrappers.wrapper_toolchain:482] File saved")


def info(words, folder):
    found, rest = options([w for w in words if w != "--part_info"])
    assert (folder / rest[0]).is_file()
    assert not found
    print("part_0.neu")
    if "cpu" in os.environ.get("NPU_TOOL", ""):
        print("part_1.axe")


def run(words, folder):
    found, rest = options(words, "--input", "--config", "--output_gt")
    onnx, joint = rest
    assert (folder / joint).is_file()
    fails(found["input"])
    config = prototxt.read((folder / found["config"]).read_text())
    outputs = inferred(folder / onnx, preprocessed(config, (folder / found["input"]).read_bytes()))
    gt = folder / found["output_gt"] / "joint"
    gt.mkdir(parents=True)
    print(
        "[26 07:14:45 <frozen super_pulsar.func_wrappers.pulsar_run.compare>:82] Score compare table:"
    )
    for name, value in outputs.items():
        made = np.zeros_like(value) if "stuck" in os.environ.get("NPU_TOOL", "") else value
        made = made.transpose(0, 2, 3, 1) if made.ndim == 4 else made
        (gt / f"{name}.bin").write_bytes(made.astype("<f4").tobytes())
        print(f"Layer: {name}  2-norm RE: 4.70%  cosine-sim: 0.9989")


def fails(golden):
    """End where the tool fails at a golden: the second, or each."""
    mode = os.environ.get("NPU_TOOL", "")
    if "lost" in mode or ("golden" in mode and Path(golden).stem == "2"):
        sys.exit(f"get_modification_onnx() missing 1 argument, {golden}")


KEYS = {
    "input", "output_dir", "output_name", "model_type", "target_hardware", "npu_mode", "quant",
    "input_processors", "compiler",
}  # fmt: skip


def build2(words, folder):
    found, rest = options(words, "--target_hardware", "--input", "--output_dir", "--config")
    assert not rest, rest
    config = json.loads((folder / found["config"]).read_text())
    assert config.keys() <= KEYS
    assert found["target_hardware"] == config["target_hardware"] in ("AX620E", "AX650")
    assert config["model_type"] == "QuantONNX"
    (given,) = config["quant"]["input_configs"]
    archive(folder, given["calibration_dataset"], given["calibration_size"])
    out = folder / found["output_dir"]
    out.mkdir()
    (out / "compiled.axmodel").write_bytes(b"axmodel")
    (folder / "used.json").write_text(json.dumps(config))
    session = opened(folder / found["input"])
    print("    Quant Precision Table\u3010EndToEnd Reference\u3011")
    print(
        "\u2503 Operator \u2503 Type \u2503 Output Tensor \u2503 Shape \u2503 DType \u2503 QDType \u2503 Cosin \u2503 MSE \u2503"
    )
    for each in session.get_outputs():
        cells = (
            "Conv_0",
            "AxQuantizedConv",
            each.name,
            "(1, 3)",
            "FP32",
            "U8",
            "0.99993",
            "0.00003",
        )
        print("\u2502 " + " \u2502 ".join(cells) + " \u2502")


def inspect(words, folder):
    assert words[:3] == ["-m", "-n", "-t"]
    assert (folder / words[3]).is_file()
    print("  Doc string: Pulsar2 Version:  6.0-lite")
    print('  Node "npu_0": type "neu mode", inputs "[\'image\']", outputs "[\'logits\']"')


def run2(words, folder):
    found, rest = options(words, "--model", "--input_dir", "--output_dir", "--list")
    assert (folder / found["model"]).is_file()
    assert not rest
    config = json.loads((folder / "used.json").read_text())
    (given,), (arriving,) = config["quant"]["input_configs"], config["input_processors"]
    for number in (folder / found["list"]).read_text().split():
        data = (folder / found["input_dir"] / number / f"{given['tensor_name']}.bin").read_bytes()
        x = np.frombuffer(data, {"U8": np.uint8, "FP32": "<f4"}[arriving["src_dtype"]])
        if arriving["src_layout"] == "NHWC":
            (source,) = opened(folder / config["input"]).get_inputs()
            _, channels, height, width = source.shape
            mean, std = (np.float32(given[f"calibration_{name}"]) for name in ("mean", "std"))
            x = ((x.reshape(height, width, channels) - mean) / std).transpose(2, 0, 1)
        fails(number)
        out = folder / found["output_dir"] / number
        out.mkdir(parents=True)
        for name, value in inferred(folder / config["input"], x.astype(np.float32)).items():
            (out / f"{name}.bin").write_bytes(value.astype("<f4").tobytes())


if __name__ == "__main__":
    main(sys.argv[1:])
