"""Passes that make of a model one that the NPU's documents allow."""

from collections.abc import Mapping

from tcc.backends.pulsar.chips import Toolchain
from tcc.compiler.ir.graph import Pass
from tcc.compiler.passes import INFERENCE
from tcc.compiler.passes.lower_linear import lower_linear
from tcc.compiler.passes.lower_scale_shift import lower_scale_shift

FLOAT: Mapping[Toolchain, tuple[Pass, ...]] = {
    Toolchain.PULSAR: (*INFERENCE, lower_linear, lower_scale_shift),
    Toolchain.PULSAR2: (*INFERENCE, lower_linear, lower_scale_shift),
}
"""From what is trained to the float model that each toolchain is given."""
