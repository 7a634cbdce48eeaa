"""The package that Pulsar2 makes an `.axmodel` file of."""

from tcc.backends.pulsar import calibration_data as data
from tcc.backends.pulsar import contract, scripts
from tcc.backends.pulsar.chips import Chip
from tcc.backends.pulsar.onnx_model import npu_onnx
from tcc.backends.pulsar.package_readme import readme
from tcc.backends.pulsar.pulsar2 import config, schema
from tcc.backends.pulsar.pulsar2.qdq import qdq_onnx
from tcc.backends.pulsar.scripts import NpuTool
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.target import PackageSources

TOOL = NpuTool("Pulsar2", ("pulsar2", "axera/pulsar2"), f"out/{config.COMPILED}")


def sample(source: Input, tensor: "data.Tensor") -> tuple[bytes, str]:
    """Return an input as the tool reads it, and the suffix of its file."""
    if data.takes_levels(source):
        return data.image(source, tensor), ".png"
    return data.numpy_file(tensor), ".npy"


def files(sources: PackageSources, chip: Chip) -> dict[str, bytes]:
    """Return the files of a package."""
    graph = sources.floats.graph
    (floats,), (levels,) = graph.inputs, sources.program.graph.inputs
    archive, count = data.packed(floats, sources.samples(), sample)
    hardware = config.HARDWARE[chip.hardware]
    configs = {
        "config.json": config.quantised(levels, hardware, count),
        "config_native.json": config.native(floats, hardware, count),
    }
    texts = {name: schema.encode(each) for name, each in configs.items()}
    for text in texts.values():
        schema.decode(text)  # what the manual does not know is our mistake, here and now
    goldens = {
        f"{scripts.GOLDENS}/{number}{suffix}": content
        for number, tensor in enumerate(sources.goldens, 1)
        for content, suffix in (sample(floats, tensor), (data.arriving(floats, tensor), ".bin"))
    }
    numbers = range(1, len(sources.goldens) + 1)
    return {
        "model_qdq.onnx": qdq_onnx(sources.program, chip),
        "model.onnx": npu_onnx(sources.floats, chip).SerializeToString(deterministic=True),
        config.ARCHIVE: archive,
        "build.sh": scripts.build(TOOL, sources.name, archive),
        "compile.sh": scripts.inside(_commands(floats, chip, len(sources.goldens))),
        "goldens/list.txt": "".join(f"{number}\n" for number in numbers).encode(),
        "README.txt": readme(chip, count, sources.name, image=data.takes_levels(floats)),
        "labels.json": contract.labels(graph),
        "runner/classify.cc": contract.device_file("engine.cc"),
        "runner/network_io.h": contract.device_file("network_io.h"),
        "runner/contract.h": contract.header(graph),
        "runner/classify.py": contract.device_file("engine.py"),
        "runner/contract.json": contract.document(graph),
        **texts,
        **goldens,
    }


def _commands(source: Input, chip: Chip, goldens: int) -> list[str]:
    result = TOOL.result
    copies = (
        f"mkdir -p sim/{number} && cp {scripts.GOLDENS}/{number}.bin sim/{number}/{source.name}.bin"
        for number in range(1, goldens + 1)
    )
    return [
        f"pulsar2 build --target_hardware {chip.hardware} --input model_qdq.onnx"
        " --output_dir out --config config.json",
        f"onnx inspect -m -n -t {result}",
        *copies,
        f"pulsar2 run --model {result} --input_dir sim --output_dir gt"
        f" --list {scripts.GOLDENS}/list.txt",
    ]
