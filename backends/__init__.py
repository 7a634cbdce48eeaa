"""Built-in targets, one package each. To add one, add its package and its entry in `BACKENDS`."""

from tcc.backends.arm.backend import Arm
from tcc.backends.onnxruntime.backend import OnnxRuntime
from tcc.backends.pulsar.backend import Pulsar
from tcc.backends.pulsar.chips import Toolchain
from tcc.backends.tflite.backend import TfLite
from tcc.backends.web.backend import Web
from tcc.compiler.ir.backend import Backend

BACKENDS: tuple[Backend, ...] = (
    OnnxRuntime(), Arm(), TfLite(), Web(),
    *map(Pulsar, Toolchain),
)  # fmt: skip
"""All built-in backends; each imports its build dependencies only when it builds."""
