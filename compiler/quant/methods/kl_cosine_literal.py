"""The method of the DDSNet paper in its own words: the scale that is searched is the weights'.

SAC 2025, section 3.2.3. For each potential scale D of a layer, its weights W become (equation 8)

    W_q(D) = D * clamp(round(W / D), -127, 127),

the network runs with them, and what comes out is compared with the original's. First coarsely
(equation 9), by the histograms P and Q of the outputs A and A_q(D) of the layer's activation,

    D_coarse = argmin over D of sum over bins h of P(h) log(P(h) / Q(h));

then around D_coarse (equation 10), by cosines, C being what the convolution itself gives:

    D_fine = argmax over D of [cos(C, C_q(D)) + cos(A, A_q(D))] / 2.

C_q and A_q are the quantised network's: their inputs went through all layers before, at the scales
found for these, and are rounded to levels. The network is run once, a layer at a time on stored
inputs, instead of whole for each D: nothing before a layer depends on its D.

`kl_cosine` is TensorRT's reading of the first step and EasyQuant's of the second: there the scale
of a value is searched, by clipping that value's own histogram, and a layer's outputs are compared
before the activation with what float inputs give. Here values keep the ranges of min-max, since the
text names no search for them.

What the text leaves open: a layer has one D for all filters, as a share of each one's absmax / 127.
Weights end at -127, where equation 8 has -128, so that a filter and its negative round alike (the
case study's rule, Sensors 2022, section 3.2). Zeros are left out of histograms. A bin that is empty
in Q but not in P would cost infinitely much: half a number is added to each of Q's bins. A layer
without an activation is judged by what the convolution gives.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tcc.compiler.quant.methods.method import CalibrationResult
from tcc.compiler.quant.methods.range_method import RangeMethod
from tcc.compiler.quant.run_options import RunOptions

if TYPE_CHECKING:
    from tcc.compiler.data.dataset import DataSet
    from tcc.compiler.ir.graph import Model
    from tcc.compiler.quant.methods.searched_ranges import SearchedRanges
    from tcc.compiler.quant.observe.statistics import Statistics


@dataclass(frozen=True, slots=True)
class KlCosineLiteral:
    """The method; `guarded` as in `RangeMethod`."""

    guarded: bool = True
    name: str = "kl-cosine-literal"
    summary: str = "the paper's words: scales of weights alone, by what the network then gives"

    @property
    def max_images(self) -> None:
        """None: each image may show an extreme."""

    def remove_guard(self) -> "KlCosineLiteral | None":
        """Return the method with its own scales, as `Method.unguarded` says."""
        return replace(self, guarded=False) if self.guarded else None

    def find(
        self, lowered_model: "Model", dataset: "DataSet", options: RunOptions
    ) -> CalibrationResult:
        """Return the calibration of a model, as `Method.find` says."""

        # The search needs whole images, as the network runs with each weight: statistics keep only
        # parts.
        def search_images(
            model: "Model", statistics: "Statistics", _: int | None
        ) -> "SearchedRanges":
            from tcc.compiler.quant.methods.weight_scale_search import search

            return search(model, statistics, dataset)

        range_method = RangeMethod(self.name, self.summary, search_images, guarded=self.guarded)
        return range_method.find(lowered_model, dataset, options)


KL_COSINE_LITERAL = KlCosineLiteral()
