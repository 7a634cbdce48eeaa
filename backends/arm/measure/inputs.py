"""What is measured, as the runner program takes it."""

from pathlib import Path

import numpy as np

from tcc.backends.arm.execute.runner import ppm
from tcc.compiler.ir.measurement import Workload


def written(folder: Path, workload: Workload) -> tuple[str, ...]:
    """Write the input into a folder; return the runner's words for it."""
    if workload.image is not None:
        path = folder / "input.ppm"
        path.write_bytes(ppm(workload.image))
        return (str(path),)
    path = folder / "input.bin"
    path.write_bytes(np.ascontiguousarray(workload.tensor, "<f4").tobytes())
    return ("--tensor", str(path))
