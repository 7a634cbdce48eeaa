"""The C code of this machine's float kernels under sanitizers."""

import shutil
from pathlib import Path

import float_kernels
import pytest
from float_kernels import force_kernels, make_conv_model
from host_forms import HOST

from tcc.compiler.ops import Conv, Relu, Relu6

CONVOLUTIONS = {
    "3x3": make_conv_model(Conv(19, (3, 3), padding=1), (35, 13, 14), Relu()),
    "stem": make_conv_model(Conv(13, (7, 7), (2, 2), 3), (3, 45, 71), Relu6()),
    "far outside": make_conv_model(Conv(3, (7, 7), (2, 2), 6), (2, 3, 5), Relu()),
    "one row": make_conv_model(Conv(24, (1, 5)), (130, 1, 70), Relu()),
    "strides": make_conv_model(Conv(8, (3, 3), (2, 2), 1), (9, 21, 33), Relu()),
    "far strides": make_conv_model(Conv(8, (3, 2), (1, 3), (2, 1), (2, 2)), (5, 6, 40), Relu()),
    "depthwise": make_conv_model(Conv(6, (3, 3), padding=1, groups=6), (6, 9, 29), Relu()),
    "depthwise, dealt": make_conv_model(Conv(5, (5, 5), (2, 2), 2, groups=5), (5, 20, 37), Relu6()),
}


@pytest.mark.slow
def test_float_kernels_pass_the_sanitizers(tmp_path: Path) -> None:
    gcc = shutil.which("gcc")
    if gcc is None or HOST.arch != "x86_64":
        pytest.skip("needs gcc on an x86-64 machine")
    check = "-fsanitize=address,undefined"
    checked = (gcc, "-O1", "-g", "-march=x86-64-v2", check, "-fno-sanitize-recover=all", "-w")
    machine = force_kernels(HOST, "float_matrix", "float_depthwise", "winograd")
    kernels = float_kernels.compile_kernels(CONVOLUTIONS, tmp_path, machine, checked)
    kernels.assert_all_agree({"float_x86", "float_depthwise_x86", "winograd_x86"}, 8e-6)
