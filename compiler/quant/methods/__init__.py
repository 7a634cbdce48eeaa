"""The calibration methods. To add one: its file, and its name among the searches.

Method files load nothing heavy when imported, since the command's help lists the methods.
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
"""Methods by one search each, in the order in which `best` tries those that it tries."""
METHODS: tuple[Method, ...] = (*SEARCHES, KL_COSINE_LITERAL, Fast(), Best(SEARCHES))
"""Every method that `--method` may name."""
DEFAULT: Method = METHODS[-1]
"""The one that is taken where none is named."""
