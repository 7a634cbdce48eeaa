"""The DDSNet paper's method, read literally: it searches the weight scales only.

SAC 2025, section 3.2.3. For each potential scale D of a layer, its weights W become (equation 8)

    W_q(D) = D * clamp(round(W / D), -127, 127),

and the network runs with them. The search is first coarse (equation 9), by the histograms P and Q
of the activation outputs A and A_q(D) of the layer,

    D_coarse = argmin over D of sum over bins h of P(h) log(P(h) / Q(h));

and then fine, around D_coarse (equation 10), by cosines, with C the output of the convolution:

    D_fine = argmax over D of [cos(C, C_q(D)) + cos(A, A_q(D))] / 2.

C_q and A_q come from the quantized network: their inputs passed through all previous layers at the
scales found for these, and are quantized. The network runs once, layer by layer on stored inputs,
instead of once for each D: the inputs of a layer do not depend on its D.

`kl_cosine` implements TensorRT's reading of the first step and EasyQuant's of the second. It
searches the scale of a value by clipping the value's own histogram, and compares a layer's outputs
before the activation with those of fp32 inputs. Here, values have min-max ranges, because the paper
names no search for them.

Choices where the paper is silent: a layer has one D for all filters, as a share of each filter's
absmax / 127. Weights begin at -127, where equation 8 has -128, so that a filter and its negative
round symmetrically (the case study's rule, Sensors 2022, section 3.2). Histograms ignore zeros. A
bin that is empty in Q but not in P would cost infinity, so that 0.5 is added to each of Q's bins.
For a layer without an activation, only the output of the convolution counts.
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
    """The literal method; `guarded` as in `RangeMethod`."""

    guarded: bool = True
    name: str = "kl-cosine-literal"
    summary: str = "the DDSNet paper read literally: searches only weight scales, by layer outputs"

    @property
    def max_images(self) -> None:
        """None: any image may have an extreme."""

    def remove_guard(self) -> "KlCosineLiteral | None":
        """Return the method without its guard; see `Method.remove_guard`."""
        return replace(self, guarded=False) if self.guarded else None

    def find(
        self, lowered_model: "Model", dataset: "DataSet", options: RunOptions
    ) -> CalibrationResult:
        """Calibrate a model; see `Method.find`."""

        # The search runs the network, so that it needs full images; statistics have only parts.
        def search_images(
            model: "Model", statistics: "Statistics", _: int | None
        ) -> "SearchedRanges":
            from tcc.compiler.quant.methods.weight_scale_search import search

            return search(model, statistics, dataset)

        range_method = RangeMethod(self.name, self.summary, search_images, guarded=self.guarded)
        return range_method.find(lowered_model, dataset, options)


KL_COSINE_LITERAL = KlCosineLiteral()
