"""The largest magnitude seen: nothing that was seen is clipped, and one outlier widens the steps.

Jacob et al., arXiv 1712.05877, section 3.1, with level 0 for the number 0.
"""

from tcc.compiler.quant.methods.range_method import RangeMethod
from tcc.compiler.quant.methods.range_search import minmax

MINMAX = RangeMethod("minmax", "the largest magnitude seen", minmax, in_best=True, samples=False)
