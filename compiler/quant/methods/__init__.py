"""The calibration methods. To add one, add its file and list it in `SEARCHES` or `METHODS`.

Method modules import no heavy packages at the top level, because `--help` lists the methods.
"""

from tcc.compiler.quant.methods.best import Best
from tcc.compiler.quant.methods.fast import Fast
from tcc.compiler.quant.methods.kl_cosine import KL_COSINE
from tcc.compiler.quant.methods.kl_cosine_literal import KL_COSINE_LITERAL
from tcc.compiler.quant.methods.method import Method
from tcc.compiler.quant.methods.minmax import MINMAX
from tcc.compiler.quant.methods.mse import MSE
from tcc.compiler.quant.methods.percentile import PERCENTILE
from tcc.compiler.quant.methods.range_method import RangeMethod

SEARCHES: tuple[RangeMethod, ...] = (MINMAX, PERCENTILE, MSE, KL_COSINE)
"""Methods with a single search, in the order in which `best` tries them."""
METHODS: tuple[Method, ...] = (*SEARCHES, KL_COSINE_LITERAL, Fast(), Best(SEARCHES))
"""All methods of `--method`."""
DEFAULT: Method = METHODS[-1]
"""The default method."""
