"""The package that a vendor toolchain compiles for the NPU."""

from collections.abc import Mapping
from typing import assert_never

from tcc.backends.pulsar import calibration_data, contract, scripts
from tcc.backends.pulsar.chips import Chip, Toolchain
from tcc.backends.pulsar.configs import COMPILED, build_pulsar2_config, build_pulsar_config
from tcc.backends.pulsar.onnx_model import build_npu_onnx, build_qdq_onnx, round_weights
from tcc.backends.pulsar.scripts import NpuTool
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.ir.target import PackageSources

FLOAT_FILE, QDQ_FILE = "model.onnx", "model_qdq.onnx"
"""The float model of each package, and the int8 model of packages for Pulsar2."""
TOOLS: Mapping[Toolchain, NpuTool] = {
    Toolchain.PULSAR: NpuTool("Pulsar", ("axera/neuwizard", "sipeed/pulsar"), "model.joint"),
    Toolchain.PULSAR2: NpuTool("Pulsar2", ("pulsar2", "axera/pulsar2"), f"out/{COMPILED}"),
}


def build_networks(
    float_model: Model | None, integer_program: Model | None, chip: Chip, *, rounded: bool
) -> dict[str, bytes | None]:
    """Return the ONNX files of a package; None for those whose model is not known."""
    if float_model and rounded:
        float_model = round_weights(float_model)
    model = (
        build_npu_onnx(float_model, chip).SerializeToString(deterministic=True)
        if float_model
        else None
    )
    match chip.toolchain:
        case Toolchain.PULSAR:
            return {FLOAT_FILE: model}
        case Toolchain.PULSAR2:
            return {
                FLOAT_FILE: model,
                QDQ_FILE: build_qdq_onnx(integer_program, chip) if integer_program else None,
            }
        case _:
            assert_never(chip.toolchain)


def build_package_files(sources: PackageSources, chip: Chip, *, rounded: bool) -> dict[str, bytes]:
    """Return the files of a package; `rounded` rounds the weights to 8-bit values first."""
    graph = sources.float_model.graph
    (network_input,) = graph.inputs
    archive, count = calibration_data.pack_samples(network_input, sources.samples(), chip.toolchain)
    models = build_networks(sources.float_model, sources.integer_program, chip, rounded=rounded)
    files = {name: content for name, content in models.items() if content is not None} | {
        scripts.ARCHIVE: archive,
        "build.sh": scripts.build_host_script(TOOLS[chip.toolchain], sources.name, archive),
        "compile.sh": scripts.build_container_script(
            _build_commands(network_input, chip, len(sources.golden_inputs))
        ),
        "README.txt": scripts.render_readme(
            chip, count, sources.name, image=calibration_data.has_pixel_input(network_input)
        ),
        "labels.json": contract.encode_labels(graph),
        "runner/network_io.h": contract.read_device_file("network_io.h"),
        "runner/contract.h": contract.render_header(graph),
    }
    for number, tensor in enumerate(sources.golden_inputs, 1):
        content, suffix = calibration_data.encode_sample(network_input, tensor, chip.toolchain)
        files[f"{scripts.GOLDENS}/{number}{suffix}"] = content
        files[f"{scripts.GOLDENS}/{number}.bin"] = calibration_data.encode_board_input(
            network_input, tensor
        )
    match chip.toolchain:
        case Toolchain.PULSAR:
            names = [output.name for output in contract.list_outputs(graph)]
            files["config.prototxt"] = build_pulsar_config(network_input, names, count)
            files["runner/classify.cc"] = contract.read_device_file("joint.cc")
        case Toolchain.PULSAR2:
            (program_input,), hardware = sources.integer_program.graph.inputs, chip.hardware
            numbers = range(1, len(sources.golden_inputs) + 1)
            files |= {
                "config.json": build_pulsar2_config(program_input, hardware, count, quantized=True),
                "config_native.json": build_pulsar2_config(
                    network_input, hardware, count, quantized=False
                ),
                "goldens/list.txt": "".join(f"{number}\n" for number in numbers).encode(),
                "runner/classify.cc": contract.read_device_file("engine.cc"),
                "runner/classify.py": contract.read_device_file("engine.py"),
                "runner/contract.json": contract.encode_contract(graph),
            }
        case _:
            assert_never(chip.toolchain)
    return files


def _build_commands(network_input: Input, chip: Chip, goldens: int) -> list[str]:
    """Return the commands that compile a package in the container and run the goldens on it."""
    output_file, numbers = TOOLS[chip.toolchain].output_file, range(1, goldens + 1)
    folder = scripts.GOLDENS
    match chip.toolchain:
        case Toolchain.PULSAR:
            suffix = ".png" if calibration_data.has_pixel_input(network_input) else ".bin"
            return [
                "pulsar version",
                f"pulsar build --input model.onnx --output {output_file} --config config.prototxt"
                " --output_config output_config.prototxt --target_hardware AX620 --virtual_npu 111",
                f"pulsar info {output_file} --part_info",
                *(
                    f"pulsar run model.onnx {output_file} --input {folder}/{number}{suffix}"
                    f" --config output_config.prototxt --output_gt gt/{number}"
                    for number in numbers
                ),
            ]
        case Toolchain.PULSAR2:
            return [
                f"pulsar2 build --target_hardware {chip.hardware} --input {QDQ_FILE}"
                " --output_dir out --config config.json",
                f"onnx inspect -m -n -t {output_file}",
                *(
                    f"mkdir -p sim/{number} && cp {folder}/{number}.bin"
                    f" sim/{number}/{network_input.name}.bin"
                    for number in numbers
                ),
                f"pulsar2 run --model {output_file} --input_dir sim --output_dir gt"
                f" --list {folder}/list.txt",
            ]
        case _:
            assert_never(chip.toolchain)
