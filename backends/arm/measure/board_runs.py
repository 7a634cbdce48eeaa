"""What a program gives on a board."""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from tcc.backends.arm.measure import inputs
from tcc.backends.arm.measure.places import ProgramPlace
from tcc.backends.arm.measure.program_facts import ProgramFacts
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.measurement import Workload
from tcc.compiler.support.progress import Progress

if TYPE_CHECKING:
    from tcc.backends.arm.execute.runner import Outputs


def outputs(
    place: ProgramPlace,
    known: ProgramFacts,
    source: Input,
    cases: Sequence[Workload],
    progress: Progress,
) -> "list[Outputs]":
    """Return the raw outputs for each case.

    Raises:
        UserError: The program fails, or writes something else (E0652).
    """
    shapes = known.outputs
    sizes = [prod(shape) for shape in shapes.values()]
    found = []
    for number, case in enumerate(cases):
        progress("goldens", number, len(cases))
        words = inputs.written(place, source, case, f"golden {number}")
        place.execute(["--quiet", "--raw", place.path("raw"), *words], 1, 4 * sum(sizes))
        data = place.read("raw", 4 * sum(sizes) + 1)
        if len(data) != 4 * sum(sizes):
            raise place.wrong("the program wrote raw outputs of another size")
        values = np.frombuffer(data, "<f4").astype(np.float32)
        parts = np.split(values, np.cumsum(sizes)[:-1])
        named = zip(shapes.items(), parts, strict=True)
        found.append({name: part.reshape(shape) for (name, shape), part in named})
    return found
