"""What Pulsar's documents say of the AX620A.

The documents are the Chinese ones, since their English translation has mistakes.
"""

from functools import partial

from tcc.backends.pulsar.rules import checks
from tcc.backends.pulsar.rules.checks import (
    absent,
    after,
    constant,
    never,
    ones,
    only,
    rank,
    symmetric,
)
from tcc.backends.pulsar.rules.rule import NpuRule, Processor, RuleBook, Severity, Source

DOCUMENT = "pulsar-docs f391cff"
OPERATORS = Source(DOCUMENT, "appendix/op_support_list.rst")
CONV = Source(DOCUMENT, "csv/Conv_OP.csv")
DESIGN = Source(DOCUMENT, "appendix/efficient_op_design_guides.rst")

NPU = (
    "Abs", "Add", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Clip", "Concat",
    "Conv", "ConvTranspose", "DepthToSpace", "Div", "Flatten", "Gemm", "GlobalAveragePool",
    "GlobalMaxPool", "HardSigmoid", "Identity", "LeakyRelu", "MatMul", "MaxPool", "MaxRoiPool",
    "Mul", "PRelu", "Pad", "ReduceL2", "Relu", "Reshape", "Sigmoid", "Slice", "SpaceToDepth",
    "Sub", "Tanh",
)  # fmt: skip
EITHER = (
    "LSTM", "ReduceMax", "ReduceMean", "ReduceSum", "Resize", "Shape", "Softmax", "Softplus",
    "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip
CPU = ("GRU", "LRN")

SLOW, DOUBTFUL = Severity.SLOW, Severity.DOUBTFUL
WINDOWS = ("Conv", "ConvTranspose", "AveragePool", "MaxPool")

CONVOLUTION = (
    NpuRule("conv.groups", ("Conv",), "groups divide channels and filters", CONV, checks.groups,
         "choose groups that divide both"),
    NpuRule("conv.kernel", ("Conv",), "kernels are 1 to 18 high and wide", CONV, checks.kernel,
         "use several smaller kernels one after another"),
    NpuRule("conv.dilation", ("Conv",), "a dilated kernel covers at most 18 pixels each way", CONV,
         checks.dilated, "use less dilation, or a smaller kernel"),
    NpuRule("conv.stride", ("Conv",), "strides are 1x1, 1x2, 2x1, 2x2, 3x3 or the kernel's size",
         CONV, checks.stride, "use stride 1 or 2, and pool for the rest"),
    NpuRule("conv.width", ("Conv",), "inputs are at most 8191 wide", CONV, checks.wide,
         "use smaller images"),
    NpuRule("conv.pad_top", ("Conv",), "the border above is at most 16384 high", CONV,
         checks.pad_top, "use less padding"),
    NpuRule("conv.taps", ("Conv",), "kernel height x width x channels is at most 65535", CONV,
         checks.taps, "use fewer channels or a smaller kernel before this layer"),
    NpuRule("conv.auto_pad", ("Conv",), "auto_pad is NOTSET", CONV, only("auto_pad", "NOTSET"),
         "write the pads out"),
    NpuRule("conv.output_width", ("Conv",),
         "the stride divides the output's width, which ResNet18 breaks and runs", CONV,
         checks.uneven, "nothing, as long as the toolchain takes it", DOUBTFUL),
    NpuRule("conv.depthwise", ("Conv",), "depthwise convolutions run at 1/16 of the NPU's speed",
         DESIGN, checks.depthwise, "use convolutions without groups where time matters", SLOW),
    NpuRule("conv.channels", ("Conv",),
         "full speed takes multiples of 16 channels in, of 32 for 1x1, and of 8 out", DESIGN,
         checks.few_channels, "round the channels up", SLOW),
    NpuRule("conv.size", ("Conv",),
         "other kernels than 1x1, or 3x3 with padding 1, run at half speed",
         DESIGN, checks.slow_kernel, "use kernel 3 with padding 1", SLOW),
    NpuRule("conv.holes", ("Conv",),
         "a kernel k of dilation d has k / ((k - 1) d + 1) of the speed",
         DESIGN, checks.holes, "use no dilation", SLOW),
)  # fmt: skip
"""Of convolutions."""

OTHERS = (
    NpuRule("window.rank", WINDOWS, "windows slide over 4-dimensional values", OPERATORS, rank(4),
         "use two-dimensional layers"),
    NpuRule("avg_pool.attributes", ("AveragePool",), "auto_pad and count_include_pad are not taken",
         OPERATORS, absent("auto_pad", "count_include_pad"), "say `count_include_pad: false`"),
    NpuRule("avg_pool.pads", ("AveragePool",), "borders are the same on both sides", OPERATORS,
         symmetric, "use equal padding, and windows that end with the input"),
    NpuRule("avg_pool.size", ("AveragePool",), "windows are at most 32 high and wide", DESIGN,
         partial(checks.large_pool, most=32), "use `global_avg_pool`, or pool twice", DOUBTFUL),
    NpuRule("conv_transpose.attributes", ("ConvTranspose",), "auto_pad is not taken", OPERATORS,
         absent("auto_pad"), "write the pads out"),
    NpuRule("conv_transpose.dilation", ("ConvTranspose",), "dilations are 1", OPERATORS,
         ones("dilations"), "use no dilation"),
    NpuRule("conv_transpose.pads", ("ConvTranspose",), "pads are the same on both sides", OPERATORS,
         symmetric, "use equal padding"),
    NpuRule("max_pool.attributes", ("MaxPool",), "storage_order is not taken", OPERATORS,
         absent("storage_order"), "leave it out"),
    NpuRule("max_pool.dilation", ("MaxPool",), "dilations are 1", OPERATORS, ones("dilations"),
         "use no dilation"),
    NpuRule("max_pool.size", ("MaxPool",), "windows above 3 are slow", DESIGN,
         partial(checks.large_pool, most=3), "pool twice with smaller windows", SLOW),
    NpuRule("batch_norm.place", ("BatchNormalization",), "a batch norm comes after a Conv",
         OPERATORS,
         after("Conv"), "put it after a convolution"),
    NpuRule("hard_sigmoid.place", ("HardSigmoid",), "a hard sigmoid comes after a Conv", OPERATORS,
         after("Conv"), "put a 1x1 convolution before it"),
    NpuRule("softplus.place", ("Softplus",), "a softplus comes after a Conv", OPERATORS,
         after("Conv"),
         "put a 1x1 convolution before it"),
    NpuRule("arg.place", ("ArgMax", "ArgMin"), "they come after a Conv", OPERATORS, after("Conv"),
         "put a 1x1 convolution before it"),
    NpuRule("reduce.rank", ("ArgMax", "ArgMin", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum"),
         "their input has 4 dimensions", OPERATORS, rank(4), "reduce feature maps"),
    NpuRule("reshape.rank", ("Reshape",), "what is reshaped has 3 or 4 dimensions", OPERATORS,
         rank(3, 4), "keep feature maps"),
    NpuRule("moves.speed", ("Reshape", "Transpose"), "reshaping and transposing are slow", DESIGN,
         never, "avoid it where time matters", SLOW),
    NpuRule("prelu.speed", ("PRelu",), "PRelu is slow", DESIGN, never, "use `leaky_relu`", SLOW),
    NpuRule("pad.mode", ("Pad",), "the mode is constant", OPERATORS, only("mode", "constant"),
         "use a constant border"),
    NpuRule("pad.value", ("Pad",), "a border holds 0 or minus infinity", OPERATORS,
         constant(2, 0.0, float("-inf")), "use `value: 0`"),
    NpuRule("slice.step", ("Slice",), "steps are 1", OPERATORS, constant(4, 1),
         "take neighbouring channels"),
    NpuRule("resize.scale", ("Resize",), "scales are powers of two, from 1/16 to 16", OPERATORS,
         checks.scales, "resize by 2, 4, 8 or 16"),
    NpuRule("resize.mode", ("Resize",), "modes are nearest and linear", OPERATORS,
         only("mode", "nearest", "linear"), "use one of them"),
)  # fmt: skip
"""Of the other operators."""

PULSAR = RuleBook(
    OPERATORS,
    {**dict.fromkeys(NPU, Processor.NPU), **dict.fromkeys(EITHER, Processor.EITHER),
     **dict.fromkeys(CPU, Processor.CPU)},
    (*CONVOLUTION, *OTHERS), OPERATORS, 11, 13,
    "it may not build, or run on the CPU",
    {"Erf": "`silu` or `hard_swish` are near to `gelu`", "Sqrt": "use `batch_norm`"},
)  # fmt: skip
"""All that is known of the AX620A."""
