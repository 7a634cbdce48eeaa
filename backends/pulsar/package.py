"""The package that a toolchain makes the NPU's file of."""

from collections.abc import Mapping
from typing import assert_never

from tcc.backends.pulsar import calibration_data, contract, scripts
from tcc.backends.pulsar.chips import Chip, Toolchain
from tcc.backends.pulsar.configs import COMPILED, pulsar2_config, pulsar_config
from tcc.backends.pulsar.onnx_model import npu_onnx, qdq_onnx, rounded_weights
from tcc.backends.pulsar.scripts import NpuTool
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.ir.target import PackageSources

FLOATS, QDQ = "model.onnx", "model_qdq.onnx"
"""The float network in a package, and the integer program in one for Pulsar2."""
TOOLS: Mapping[Toolchain, NpuTool] = {
    Toolchain.PULSAR: NpuTool("Pulsar", ("axera/neuwizard", "sipeed/pulsar"), "model.joint"),
    Toolchain.PULSAR2: NpuTool("Pulsar2", ("pulsar2", "axera/pulsar2"), f"out/{COMPILED}"),
}


def networks(
    floats: Model | None, program: Model | None, chip: Chip, *, rounded: bool
) -> dict[str, bytes | None]:
    """Return the ONNX files of a package, without those whose model is not known."""
    if floats and rounded:
        floats = rounded_weights(floats)
    model = npu_onnx(floats, chip).SerializeToString(deterministic=True) if floats else None
    match chip.toolchain:
        case Toolchain.PULSAR:
            return {FLOATS: model}
        case Toolchain.PULSAR2:
            return {FLOATS: model, QDQ: qdq_onnx(program, chip) if program else None}
        case _:
            assert_never(chip.toolchain)


def package_files(sources: PackageSources, chip: Chip, *, rounded: bool) -> dict[str, bytes]:
    """Return the files of a package; `rounded`, with weights on the grid of 8-bit integers."""
    graph = sources.floats.graph
    (source,) = graph.inputs
    archive, count = calibration_data.packed(source, sources.samples(), chip.toolchain)
    models = networks(sources.floats, sources.program, chip, rounded=rounded)
    files = {name: data for name, data in models.items() if data is not None} | {
        scripts.ARCHIVE: archive,
        "build.sh": scripts.build(TOOLS[chip.toolchain], sources.name, archive),
        "compile.sh": scripts.inside(_commands(source, chip, len(sources.goldens))),
        "README.txt": scripts.readme(
            chip, count, sources.name, image=calibration_data.takes_levels(source)
        ),
        "labels.json": contract.labels(graph),
        "runner/network_io.h": contract.device_file("network_io.h"),
        "runner/contract.h": contract.header(graph),
    }
    for number, tensor in enumerate(sources.goldens, 1):
        data, suffix = calibration_data.sample(source, tensor, chip.toolchain)
        files[f"{scripts.GOLDENS}/{number}{suffix}"] = data
        files[f"{scripts.GOLDENS}/{number}.bin"] = calibration_data.arriving(source, tensor)
    match chip.toolchain:
        case Toolchain.PULSAR:
            names = [each.name for each in contract.outputs(graph)]
            files["config.prototxt"] = pulsar_config(source, names, count)
            files["runner/classify.cc"] = contract.device_file("joint.cc")
        case Toolchain.PULSAR2:
            (levels,), hardware = sources.program.graph.inputs, chip.hardware
            numbers = range(1, len(sources.goldens) + 1)
            files |= {
                "config.json": pulsar2_config(levels, hardware, count, quantized=True),
                "config_native.json": pulsar2_config(source, hardware, count, quantized=False),
                "goldens/list.txt": "".join(f"{number}\n" for number in numbers).encode(),
                "runner/classify.cc": contract.device_file("engine.cc"),
                "runner/classify.py": contract.device_file("engine.py"),
                "runner/contract.json": contract.document(graph),
            }
        case _:
            assert_never(chip.toolchain)
    return files


def _commands(source: Input, chip: Chip, goldens: int) -> list[str]:
    """Return what compiles a package in the container, and runs the goldens on the result."""
    result, numbers = TOOLS[chip.toolchain].result, range(1, goldens + 1)
    folder = scripts.GOLDENS
    match chip.toolchain:
        case Toolchain.PULSAR:
            suffix = ".png" if calibration_data.takes_levels(source) else ".bin"
            return [
                "pulsar version",
                f"pulsar build --input model.onnx --output {result} --config config.prototxt"
                " --output_config output_config.prototxt --target_hardware AX620 --virtual_npu 111",
                f"pulsar info {result} --part_info",
                *(
                    f"pulsar run model.onnx {result} --input {folder}/{number}{suffix}"
                    f" --config output_config.prototxt --output_gt gt/{number}"
                    for number in numbers
                ),
            ]
        case Toolchain.PULSAR2:
            return [
                f"pulsar2 build --target_hardware {chip.hardware} --input {QDQ}"
                " --output_dir out --config config.json",
                f"onnx inspect -m -n -t {result}",
                *(
                    f"mkdir -p sim/{number} && cp {folder}/{number}.bin"
                    f" sim/{number}/{source.name}.bin"
                    for number in numbers
                ),
                f"pulsar2 run --model {result} --input_dir sim --output_dir gt"
                f" --list {folder}/list.txt",
            ]
        case _:
            assert_never(chip.toolchain)
