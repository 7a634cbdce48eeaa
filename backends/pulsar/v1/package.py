"""The package that Pulsar makes a `.joint` file of."""

from tcc.backends.pulsar import calibration_data as data
from tcc.backends.pulsar import contract, scripts
from tcc.backends.pulsar.chips import Chip
from tcc.backends.pulsar.onnx_model import npu_onnx
from tcc.backends.pulsar.package_readme import readme
from tcc.backends.pulsar.scripts import NpuTool
from tcc.backends.pulsar.v1 import config, reader
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.ir.target import PackageSources

TOOL = NpuTool("Pulsar", ("axera/neuwizard", "sipeed/pulsar"), "model.joint")


def sample(source: Input, tensor: "data.Tensor") -> tuple[bytes, str]:
    """Return an input as the tool reads it, and the suffix of its file."""
    if data.takes_levels(source):
        return data.image(source, tensor), ".png"
    return data.binary(tensor), ".bin"


def files(model: Model, sources: PackageSources, chip: Chip) -> dict[str, bytes]:
    """Return the files of a package.

    Args:
        model: The network that the tool is given.
        sources: What the package is made of.
        chip: What it is for.
    """
    graph = model.graph
    (source,) = graph.inputs
    archive, count = data.packed(source, sources.samples(), sample)
    outputs = [each.name for each in contract.outputs(graph)]
    text = reader.encode(config.config(source, outputs, count))
    reader.decode(text)  # what the manual does not know is our mistake, here and now
    goldens = {
        f"{scripts.GOLDENS}/{number}{suffix}": content
        for number, tensor in enumerate(sources.goldens, 1)
        for content, suffix in (sample(source, tensor), (data.arriving(source, tensor), ".bin"))
    }
    return {
        "model.onnx": npu_onnx(model, chip).SerializeToString(deterministic=True),
        "config.prototxt": text,
        config.ARCHIVE: archive,
        "build.sh": scripts.build(TOOL, sources.name, archive),
        "compile.sh": scripts.inside(_commands(source, len(sources.goldens))),
        "README.txt": readme(chip, count, sources.name, image=data.takes_levels(source)),
        "labels.json": contract.labels(graph),
        "runner/classify.cc": contract.device_file("joint.cc"),
        "runner/network_io.h": contract.device_file("network_io.h"),
        "runner/contract.h": contract.header(graph),
        **goldens,
    }


def _commands(source: Input, goldens: int) -> list[str]:
    suffix = ".png" if data.takes_levels(source) else ".bin"
    return [
        "pulsar version",
        "pulsar build --input model.onnx --output model.joint --config config.prototxt"
        " --output_config output_config.prototxt --target_hardware AX620 --virtual_npu 111",
        "pulsar info model.joint --part_info",
        *(
            f"pulsar run model.onnx model.joint --input {scripts.GOLDENS}/{number}{suffix}"
            f" --config output_config.prototxt --output_gt gt/{number}"
            for number in range(1, goldens + 1)
        ),
    ]
