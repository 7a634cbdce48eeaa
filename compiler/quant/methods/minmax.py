"""Min-max: no observed value is clipped, and one outlier makes all quantization steps larger.

Jacob et al., arXiv 1712.05877, section 3.1, with quantized value 0 for the number 0.
"""

from tcc.compiler.quant.methods.range_method import RangeMethod
from tcc.compiler.quant.methods.range_search import minmax

MINMAX = RangeMethod("minmax", "largest observed magnitude", minmax, in_best=True, samples=False)
