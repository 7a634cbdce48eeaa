"""What is measured, as the runner program takes it."""

import numpy as np

from tcc.backends.arm.execute.runner import ppm
from tcc.backends.arm.measure.places import ProgramPlace
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.measurement import Workload
from tcc.compiler.ir.types import DType


def written(place: ProgramPlace, source: Input, workload: Workload, name: str) -> tuple[str, ...]:
    """Write the input where the program runs; return the runner's words for it."""
    if workload.image is not None:
        return (place.put(f"{name}.ppm", ppm(workload.image)),)
    kind = "u1" if source.type.dtype is DType.U8 else "<f4"
    tensor = np.ascontiguousarray(workload.tensor, kind)
    return ("--tensor", place.put(f"{name}.bin", tensor.tobytes()))
