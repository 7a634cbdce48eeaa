"""A fake docker with the AXERA tools: it checks its input and prints logs in their format.

It does not simulate an NPU. It implements the documented arguments, files and log lines of `docker
image ls`, and of `docker run` with a script that calls `pulsar` or `pulsar2`. Networks run in float
on the images of the package, with the preprocessing of its configuration. A wrong preprocessing
therefore changes the outputs.
"""

import io
import json
import os
import shlex
import sys
import tarfile
from pathlib import Path

if sys.argv[1:2] not in (["image"], ["rm"]):  # fast settings
    import numpy as np
    import onnxruntime
    import prototxt
    from PIL import Image

IMAGES = ("sipeed/pulsar:latest", "pulsar2:6.0-lite", "debian:stable")
RUN = ["run", "-i", "--rm", "--name", "", "--net", "host", "--shm-size", "32g", "-v"]


def main(arguments):
    if arguments[:3] == ["image", "ls", "--format"]:
        print("\n".join(IMAGES))
        return
    if arguments[:2] == ["rm", "-f"]:
        return
    assert arguments[4].startswith("tcc-"), arguments
    arguments[4] = ""
    assert arguments[: len(RUN)] == RUN, arguments
    volume, option, images, image = arguments[len(RUN) :]
    folder, inside = volume.rsplit(":", 1)
    assert (inside, option) == ("/data", "-v"), volume
    archive, inside, mode = images.rsplit(":", 2)
    link = Path(folder) / "calibration.tar"
    assert (str(link.readlink()), mode) == (inside, "ro")
    # Paths as the container sees them.
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


def step(arguments, folder):
    if arguments in (["cd", "/data"], ["trap", "chmod -R a+rwX .", "EXIT"]):
        return
    if arguments[0] == "echo":
        print(*arguments[1:])
        return
    assert arguments[-1] == "</dev/null", arguments
    if "&&" in arguments:
        mkdir_command, copy_command = " ".join(arguments[:-1]).split(" && ")
        assert (mkdir_command.split()[:2], copy_command.split()[0]) == (["mkdir", "-p"], "cp"), (
            arguments
        )
        source, target = (folder / name for name in copy_command.split()[1:])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
        return
    handlers = {
        ("pulsar", "version"): lambda *_: print("0.6.1.14\n2124c702"),
        ("pulsar", "build"): build, ("pulsar", "info"): show_info, ("pulsar", "run"): run,
        ("pulsar2", "build"): build2, ("onnx", "inspect"): inspect, ("pulsar2", "run"): run2,
    }  # fmt: skip
    handlers[tuple(arguments[:2])](arguments[2:-1], folder)


def parse_options(arguments, *names):
    """Return the options and the remaining arguments. Unknown or repeated options fail."""
    parsed, positional = {}, []
    arguments = list(arguments)
    while arguments:
        argument = arguments.pop(0)
        if argument.startswith("--"):
            assert argument in names, argument
            parsed[argument[2:]] = arguments.pop(0)
        else:
            positional.append(argument)
    return parsed, positional


def read_pixels(data, color):
    """Return the pixels of an image file in a color order, channels first."""
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    assert pixels.shape[2] == (1 if color.endswith("GRAY") else 3), (pixels.shape, color)
    pixels = pixels[:, :, ::-1] if color.endswith("BGR") else pixels
    return pixels.transpose(2, 0, 1).astype(np.float32)


def preprocess(config, data):
    """Return the network input for a file, by the configuration."""
    (input_config,) = config["neuwizard_conf"]["operator_conf"]["input_conf_items"]
    if input_config["attributes"].get("type") == "FLOAT32":
        return np.frombuffer(data, "<f4")
    (source,) = config["dst_input_tensors"]
    x = read_pixels(data, source["color_space"])
    for change in input_config["attributes"].get("input_modifications", ()):
        ((kind, parameters),) = change.items()
        channel_parameters = {
            name: np.float32(numbers)[:, None, None] for name, numbers in parameters.items()
        }
        if kind == "affine_preprocess":
            x = (
                x * channel_parameters["slope"] / channel_parameters["slope_divisor"]
                + channel_parameters["bias"]
            )
        else:
            x = (x - channel_parameters["mean"]) / channel_parameters["std"]
    return x


def open_session(path):
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # AVX2 saturates
    return onnxruntime.InferenceSession(
        path.read_bytes(), options, providers=["CPUExecutionProvider"]
    )


def infer(path, x):
    session = open_session(path)
    (source,) = session.get_inputs()
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {source.name: x.reshape(source.shape)}), strict=True))


def read_archive(folder, name, size):
    """Return the files of an archive. Their number must equal the configured one."""
    with tarfile.open(folder / name) as tar:
        members = tar.getmembers()
        assert len(members) == size, (len(members), size)
        return [tar.extractfile(member).read() for member in members]


def build(arguments, folder):
    parsed, positional = parse_options(
        arguments,
        "--input",
        "--output",
        "--config",
        "--output_config",
        "--target_hardware",
        "--virtual_npu",
    )
    assert not positional, positional
    assert (parsed["target_hardware"], parsed["virtual_npu"]) == ("AX620", "111")
    text = (folder / parsed["config"]).read_text()
    config = prototxt.read(text)
    dataset = config["neuwizard_conf"]["dataset_conf_calibration"]
    (source,) = open_session(folder / parsed["input"]).get_inputs()
    for image in read_archive(folder, dataset["path"], dataset["size"]):
        assert preprocess(config, image).size == np.prod(source.shape)
    if "fail" in os.environ.get("NPU_TOOL", ""):
        sys.exit("neuwizard killed by SIGKILL")
    (folder / parsed["output"]).write_bytes(b"joint")
    (folder / parsed["output_config"]).write_text(text)
    print("[09 07:10:33 frozen super_pulsar.toolchain_wrappers.wrapper_toolchain:482] File saved")


def show_info(arguments, folder):
    parsed, positional = parse_options([w for w in arguments if w != "--part_info"])
    assert (folder / positional[0]).is_file()
    assert not parsed
    print("part_0.neu")
    if "cpu" in os.environ.get("NPU_TOOL", ""):
        print("part_1.axe")


def run(arguments, folder):
    parsed, positional = parse_options(arguments, "--input", "--config", "--output_gt")
    onnx, joint = positional
    assert (folder / joint).is_file()
    fail_on_request(parsed["input"])
    config = prototxt.read((folder / parsed["config"]).read_text())
    outputs = infer(folder / onnx, preprocess(config, (folder / parsed["input"]).read_bytes()))
    gt = folder / parsed["output_gt"] / "joint"
    gt.mkdir(parents=True)
    print(
        "[26 07:14:45 <frozen super_pulsar.func_wrappers.pulsar_run.compare>:82] Score compare table:"
    )
    for name, output in outputs.items():
        dumped = np.zeros_like(output) if "stuck" in os.environ.get("NPU_TOOL", "") else output
        dumped = dumped.transpose(0, 2, 3, 1) if dumped.ndim == 4 else dumped
        (gt / f"{name}.bin").write_bytes(dumped.astype("<f4").tobytes())
        print(f"Layer: {name}  2-norm RE: 4.70%  cosine-sim: 0.9989")


def fail_on_request(golden):
    """Exit if the tool should fail on a golden: the second one, or each."""
    mode = os.environ.get("NPU_TOOL", "")
    if "lost" in mode or ("golden" in mode and Path(golden).stem == "2"):
        sys.exit(f"get_modification_onnx() missing 1 argument, {golden}")


KEYS = {
    "input", "output_dir", "output_name", "model_type", "target_hardware", "npu_mode", "quant",
    "input_processors", "compiler",
}  # fmt: skip


def build2(arguments, folder):
    parsed, positional = parse_options(
        arguments, "--target_hardware", "--input", "--output_dir", "--config"
    )
    assert not positional, positional
    config = json.loads((folder / parsed["config"]).read_text())
    assert config.keys() <= KEYS
    assert parsed["target_hardware"] == config["target_hardware"] in ("AX620E", "AX650")
    assert config["model_type"] == "QuantONNX"
    (input_config,) = config["quant"]["input_configs"]
    read_archive(folder, input_config["calibration_dataset"], input_config["calibration_size"])
    out = folder / parsed["output_dir"]
    out.mkdir()
    (out / "compiled.axmodel").write_bytes(b"axmodel")
    (folder / "used.json").write_text(json.dumps(config))
    session = open_session(folder / parsed["input"])
    print("    Quant Precision Table\u3010EndToEnd Reference\u3011")
    print(
        "\u2503 Operator \u2503 Type \u2503 Output Tensor \u2503 Shape \u2503 DType \u2503 QDType \u2503 Cosin \u2503 MSE \u2503"
    )
    for output in session.get_outputs():
        cells = (
            "Conv_0",
            "AxQuantizedConv",
            output.name,
            "(1, 3)",
            "FP32",
            "U8",
            "0.99993",
            "0.00003",
        )
        print("\u2502 " + " \u2502 ".join(cells) + " \u2502")


def inspect(arguments, folder):
    assert arguments[:3] == ["-m", "-n", "-t"]
    assert (folder / arguments[3]).is_file()
    print("  Doc string: Pulsar2 Version:  6.0-lite")
    print('  Node "npu_0": type "neu mode", inputs "[\'image\']", outputs "[\'logits\']"')


def run2(arguments, folder):
    parsed, positional = parse_options(
        arguments, "--model", "--input_dir", "--output_dir", "--list"
    )
    assert (folder / parsed["model"]).is_file()
    assert not positional
    config = json.loads((folder / "used.json").read_text())
    (input_config,), (input_processor,) = (
        config["quant"]["input_configs"],
        config["input_processors"],
    )
    for number in (folder / parsed["list"]).read_text().split():
        data = (
            folder / parsed["input_dir"] / number / f"{input_config['tensor_name']}.bin"
        ).read_bytes()
        x = np.frombuffer(data, {"U8": np.uint8, "FP32": "<f4"}[input_processor["src_dtype"]])
        if input_processor["src_layout"] == "NHWC":
            (source,) = open_session(folder / config["input"]).get_inputs()
            _, channels, height, width = source.shape
            mean, std = (
                np.float32(input_config[f"calibration_{name}"]) for name in ("mean", "std")
            )
            x = ((x.reshape(height, width, channels) - mean) / std).transpose(2, 0, 1)
        fail_on_request(number)
        out = folder / parsed["output_dir"] / number
        out.mkdir(parents=True)
        for name, output in infer(folder / config["input"], x.astype(np.float32)).items():
            (out / f"{name}.bin").write_bytes(output.astype("<f4").tobytes())


if __name__ == "__main__":
    main(sys.argv[1:])
