"""How many of a program's integers are saturated, value by value.

A number beyond the range is stored as the largest or smallest integer. To count those needs no
floats, so that an artifact can be asked for the same on any image.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import float_program
from tcc.compiler.support.progress import Progress, silent


def tapped(model: Model, names: list[str]) -> Callable[[Any], Mapping[str, Any]]:
    """Return what gives a model's outputs, and the values of names, as floats or levels.

    Args:
        model: A float model or an integer program, with one input.
        names: The values.
    """
    graph = model.graph
    more = tuple(Output(f"tap {name}", name) for name in names if name not in _inputs(model))
    run = float_program.prepared(replace(model, graph=replace(graph, outputs=graph.outputs + more)))

    def one(tensor: Any) -> Mapping[str, Any]:
        given = dict.fromkeys(_inputs(model), tensor)
        return given | {key.removeprefix("tap "): value for key, value in run(tensor).items()}

    return one


def _inputs(model: Model) -> tuple[str, ...]:
    return tuple(source.name for source in model.graph.inputs)


Levels = Mapping[str, NDArray[Any]]
"""Levels of 8 bits of one image, as uint8 or int8, by the values' names."""
ENOUGH = 16
"""Most images whose saturated values are counted at calibration."""


@dataclass(frozen=True, slots=True)
class UsualSaturation:
    """What a calibration's images show: shares of saturated values, by the values' names.

    `mean` is the share of all `images`, `largest` that of the image with the most.
    """

    images: int = 0
    mean: Mapping[str, float] = field(default_factory=dict)
    largest: Mapping[str, float] = field(default_factory=dict)


def at_end(stored: NDArray[Any], *, signed: bool) -> int:
    """Return how many levels are the last ones, above or, of signed values, below.

    The lowest level of an unsigned value is 0, which a relu makes of half of all numbers.

    Args:
        stored: Levels of 8 bits, as uint8 or int8: the last ones are the type's own.
        signed: Whether the value may be negative.
    """
    ends = np.iinfo(stored.dtype)
    found = int(np.count_nonzero(stored == ends.max))
    return found + int(np.count_nonzero(stored == ends.min)) if signed else found


def count_usual(ready: Model, calibration: Calibration, data: DataSet) -> UsualSaturation:
    """Return the shares of saturated values on a calibration's images.

    Args:
        ready: The ready float model.
        calibration: Its calibration.
        data: The images, held out of it if any were; some of them are run.
    """
    signed = {name: own.signed for name, own in calibration.ranges.items()}
    program = quantize(ready, calibration)
    images = data.first(ENOUGH)
    by_name = shares(program_levels(program, signed, images), signed)
    return UsualSaturation(
        len(images),
        {name: float(each.mean()) for name, each in by_name.items()},
        {name: float(each.max()) for name, each in by_name.items()},
    )


def program_levels(program: Model, signed: Iterable[str], data: DataSet) -> Iterator[Levels]:
    """Yield the levels of each image in an integer program, by the reference executor.

    Args:
        program: The integer program, with one input.
        signed: The values to look at; what stays in float has no levels.
        data: Images that it takes.
    """
    (source,) = program.graph.inputs
    types = program.graph.types
    made = {node.name for node in program.graph.nodes}
    names = [n for n in signed if n in made and types[n].scale is not None]
    run = tapped(program, names)
    for index in range(len(data)):
        values = run(data.tensor(index, source))
        yield {name: values[name] for name in names}


def shares(
    values: Iterable[Levels],
    signed: Mapping[str, bool],
    images: int = 0,
    progress: Progress = silent,
) -> Mapping[str, NDArray[np.float64]]:
    """Return the share of the last levels in each image (images,), of each value that has some.

    Args:
        values: The levels of each image.
        signed: Whether each value may be negative; the others are not counted.
        images: How many there are.
        progress: Told how many are done.
    """
    found: dict[str, list[float]] = {name: [] for name in signed}
    progress("saturation", 0, images)
    for done, levels in enumerate(values, 1):
        for name in found.keys() & levels.keys():
            stored = levels[name]
            found[name].append(at_end(stored, signed=signed[name]) / max(stored.size, 1))
        progress("saturation", done, images)
    return {name: np.array(each) for name, each in found.items() if each}
