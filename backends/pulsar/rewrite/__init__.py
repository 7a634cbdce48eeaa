"""Passes that make of a model one that the NPU's documents allow."""

from collections.abc import Mapping

from tcc.backends.pulsar.chips import Toolchain
from tcc.backends.pulsar.rewrite.borders import count_borders, even_borders, pad_means
from tcc.backends.pulsar.rewrite.gates import gate_convolutions
from tcc.backends.pulsar.rewrite.linear_layers import lower_some_linear
from tcc.backends.pulsar.rewrite.moves import select_channels, transpose_shuffles
from tcc.compiler.ir.graph import Pass
from tcc.compiler.passes import INFERENCE
from tcc.compiler.passes.lower_linear import lower_linear
from tcc.compiler.passes.lower_scale_shift import lower_scale_shift

FLOAT: Mapping[Toolchain, tuple[Pass, ...]] = {
    Toolchain.PULSAR: (
        *INFERENCE, lower_some_linear, lower_scale_shift,
        count_borders, pad_means, even_borders, transpose_shuffles, select_channels,
        gate_convolutions,
    ),
    Toolchain.PULSAR2: (
        *INFERENCE, lower_linear, lower_scale_shift, count_borders, transpose_shuffles,
    ),
}  # fmt: skip
"""From what is trained to the float model that each toolchain is given.

What is a convolution comes first, since hard sigmoids look for it."""
