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
"""Images that judge a candidate: as many as `WORK` allows."""
WORK = 1 << 36
"""Multiply-accumulates that judging a candidate may take."""


def judging_images(ready: Model) -> int:
    """Return how many images judge candidates of a model."""
    # 2^36 multiply-accumulates are some 300 images of DDSNet: of a small network all 64 judge.
    return min(MOST, max(FEWEST, WORK // max(cost(ready.graph).macs, 1)))


def held_out_judge(ready: Model, held_out: DataSet, threads: int | None = None) -> "HeldOutJudge":
    """Return what judges by images held out, of which it takes as many as the network allows.

    Args:
        ready: The ready float model, which says what is right.
        held_out: Images that no candidate has learnt from.
        threads: How many images run side by side; None is one a processor.
    """
    return HeldOutJudge(ready, held_out.first(judging_images(ready)), threads)


class HeldOutJudge:
    """Tensors of images held out, with the float model's outputs for them."""

    def __init__(self, ready: Model, held_out: DataSet, threads: int | None) -> None:
        (source,) = ready.graph.inputs
        self.ready, self.threads = ready, threads
        self.tensors = [held_out.tensor(i, source) for i in range(len(held_out))]
        self.expected = self._rows(float_program.prepared(ready))

    def qualities(self, calibration: Calibration) -> Qualities:
        """Return how near a calibration comes to the float model."""
        return output_comparison.qualities(self.ready, self.expected, self.outputs(calibration))

    def outputs(self, calibration: Calibration) -> StackedOutputs:
        """Return what the integer program of a calibration gives for each image."""
        program = quantize(self.ready, calibration)
        # Optimised, as many candidates are run: integers come out the same (tests compare them).
        return self._rows(float_program.prepared(program, optimised=True))

    def _rows(self, run: Run) -> StackedOutputs:
        # Images side by side, each on one thread of the runtime: sums keep their order.
        with ThreadPoolExecutor(self.threads or os.cpu_count()) as pool:
            return output_comparison.stacked_outputs(self.ready, list(pool.map(run, self.tensors)))
