"""A package's network in ONNX Runtime: what its quantize and dequantize operators mean."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.target import Target
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.support.external_tools import Tool, installed_version

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class SimulatedPackage:
    """Runs a file of a package. It shows what the file means, and nothing of the NPU."""

    targets: tuple[Target, ...]
    file: str

    def tools(self, target: Target) -> tuple[Tool, ...]:
        """Return ONNX Runtime, which comes with tcc."""
        use = f"run {self.file} of packages"
        return (Tool("onnxruntime", use, installed_version("onnxruntime"), builds=False),)

    def infer(
        self, target: Target, folder: Path, source: Input, tensors: "Sequence[np.ndarray]"
    ) -> "list[dict[str, np.ndarray]]":
        """Run the file on preprocessed tensors, one at a time; return raw outputs by name.

        Raises:
            UserError: It is no model that ONNX Runtime can run on these (E0651).
        """
        from tcc.compiler.lower import onnx_inspection
        from tcc.compiler.reference import onnxruntime_session as sessions

        path = folder / self.file
        try:
            with regular_files.opened(path) as file:
                data = file.read()
            # The file may be a stranger's: nothing in the runtime would end a loop.
            onnx_inspection.check(data)
            session = sessions.session(data, deterministic=True)
            names = [output.name for output in session.get_outputs()]
            # What the NPU is given are floats, also where an image's are whole numbers.
            feeds = ({source.name: tensor[None].astype("float32")} for tensor in tensors)
            runs = [session.run(names, feed) for feed in feeds]
        except Exception as error:  # the runtime has exception types of its own for each cause
            raise _broken(path, error) from error
        return [dict(zip(names, (batch[0] for batch in run), strict=True)) for run in runs]


def _broken(path: Path, error: Exception) -> UserError:
    label = (str(error).splitlines() or [type(error).__name__])[0][:160]
    message = "ONNX Runtime cannot run the package's network"
    return fail("E0651", message, whole_file(str(path)), label=label)
