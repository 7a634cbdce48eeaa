"""Images that integer programs are run on, and what the float model says of them."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from tcc.compiler.data.dataset import DataSet
from tcc.compiler.ir.cost import cost
from tcc.compiler.ir.graph import Model
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.observe.statistics import Float32
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import float_program, output_comparison
from tcc.compiler.reference.accuracy_floor import Qualities
from tcc.compiler.reference.output_comparison import StackedOutputs

Run = Callable[[Float32], Mapping[str, Float32]]
"""Gives the outputs by name, for an input tensor."""

FEWEST, MOST = 8, 64
"""Images that candidates are run on: as many as `WORK` allows, those held out first."""
WORK = 1 << 36
"""Multiply-accumulates that judging a candidate may take, and correcting its biases in sequence."""


def held_out_judge(
    ready: Model, held_out: DataSet, more: DataSet | None = None, threads: int | None = None
) -> "HeldOutJudge":
    """Return what judges by images held out, and by some more, as many as the network allows.

    Args:
        ready: The ready float model, which says what is right.
        held_out: Images that no candidate has learnt from.
        more: Others, where differences are too small to be told by a few.
        threads: How many images run side by side; None is one a processor.
    """
    count = min(MOST, max(FEWEST, WORK // max(cost(ready.graph).macs, 1)))
    first = held_out.first(count)
    return HeldOutJudge(ready, first, more and more.first(count - len(first)), threads)


class HeldOutJudge:
    """Tensors of images held out, then of others, with the float model's outputs for them."""

    def __init__(
        self, ready: Model, held_out: DataSet, more: DataSet | None, threads: int | None
    ) -> None:
        (source,) = ready.graph.inputs
        self.ready, self.threads, self.held_out = ready, threads, len(held_out)
        sets = (held_out, more) if more else (held_out,)
        self.tensors = [one.tensor(i, source) for one in sets for i in range(len(one))]
        self.expected = self._rows(float_program.prepared(ready))

    def qualities(self, calibration: Calibration) -> Qualities:
        """Return how near a calibration comes to the float model on images held out."""
        return self.both_qualities(calibration)[0]

    def both_qualities(self, calibration: Calibration) -> tuple[Qualities, Qualities]:
        """Return the qualities on images held out, and those on all images."""
        program = quantize(self.ready, calibration)
        # Optimised, as many candidates are run: integers come out the same (tests compare them).
        rows = self._rows(float_program.prepared(program, optimised=True))
        held_out = output_comparison.qualities(self.ready, self.expected, rows, self.held_out)
        return held_out, output_comparison.qualities(self.ready, self.expected, rows)

    def _rows(self, run: Run) -> StackedOutputs:
        with ThreadPoolExecutor(self.threads or os.cpu_count()) as pool:
            return output_comparison.stacked_outputs(self.ready, list(pool.map(run, self.tensors)))
