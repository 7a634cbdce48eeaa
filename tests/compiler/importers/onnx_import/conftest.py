"""ONNX files written in ONNX text format, and their import without child processes."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from onnx_nets import check_and_simplify, run_feeds

from tcc.compiler.importers.onnx_import import (
    ImportedModel,
    ImportOptions,
    ModelRunner,
    import_onnx,
)

Weights = Mapping[str, np.ndarray]


HERE = ModelRunner(check_and_simplify, run_feeds)


@pytest.fixture
def imported() -> Callable[..., ImportedModel]:
    """Imports a file."""

    def run(path: Path, **options: object) -> ImportedModel:
        return import_onnx(path, ImportOptions(**options), HERE)

    return run


@pytest.fixture
def write_model(tmp_path) -> Callable[..., Path]:
    """Writes a model to a file. Its nodes are in ONNX text format.

    Its input is `x`, of a shape without the batch axis. Its outputs are `y` or the named ones.
    """

    def run(
        nodes: str,
        weights: Weights | None = None,
        shape: tuple[int, ...] = (4, 6, 6),
        opset: int = 17,
        outputs: Mapping[str, int] | None = None,  # number of axes by name
    ) -> Path:
        dims = ",".join(map(str, ("N", *shape)))
        declared_outputs = ", ".join(
            f"float[{','.join(f'd{name}{i}' for i in range(rank))}] {name}"
            for name, rank in (outputs or {"y": 4}).items()
        )
        head = f'<ir_version: 8, opset_import: ["" : {opset}]>'
        model = parser.parse_model(
            f"{head} net (float[{dims}] x) => ({declared_outputs}) {{ {nodes} }}"
        )
        for name, value in (weights or {}).items():
            model.graph.initializer.append(numpy_helper.from_array(value, name))
        path = tmp_path / "net.onnx"
        onnx.save(model, path)
        return path

    return run


@pytest.fixture
def steps(imported, write_model) -> Callable[..., list[str]]:
    """Returns the steps of the spec of a model, given as for `write_model`. Checks the outputs."""

    def run(*model: object, tolerance: float = 1e-6, **options: object) -> list[str]:
        imported_model = imported(write_model(*model, **options))
        assert imported_model.difference is not None
        assert imported_model.difference <= tolerance
        graph = imported_model.text.partition("graph:\n")[2].partition("\n\noutput:")[0]
        return [line.removeprefix("  ") for line in graph.splitlines()]

    return run
