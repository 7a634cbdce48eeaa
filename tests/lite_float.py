"""The target `tflite` at float precisions, for tests."""

from pathlib import Path

import lite  # noqa: F401 - skips where the extra `tflite` is missing

from tcc.backends.tflite.backend import FILE, TfLite
from tcc.compiler.ir.backend import Builder
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.ir.target import Artifact
from tcc.compiler.passes import INFERENCE, run
from tcc.testing.op_cases import sample_weights

BACKEND: Builder = TfLite()
(TARGET,) = BACKEND.targets
PRECISIONS = ("fp32", "fp16", "dynamic")


def emit_tflite(model: Model, precision: str = "fp32") -> bytes:
    return BACKEND.emit(TARGET, model, TARGET.find_precision(precision)).files[FILE]


def write_artifact(folder: Path, artifact: Artifact) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in artifact.files.items():
        (folder / name).write_bytes(content)
    return folder


def fuse_graph(graph: Graph) -> Model:
    return run(Model(graph, sample_weights(graph)), INFERENCE)
