"""Rules for the AX620A, from Pulsar's documents.

The Chinese documents are the source, because their English translation has mistakes.
"""

from functools import partial

from tcc.backends.pulsar.rules import checks
from tcc.backends.pulsar.rules.checks import (
    check_symmetric_pads,
    forbid_attributes,
    reject_always,
    require_attribute,
    require_constant,
    require_ones,
    require_producer,
    require_rank,
)
from tcc.backends.pulsar.rules.rule import NpuRule, Processor, RuleBook, Severity, Source

DOCUMENT = "pulsar-docs f391cff"
OPERATORS = Source(DOCUMENT, "appendix/op_support_list.rst")
CONV = Source(DOCUMENT, "csv/Conv_OP.csv")
DESIGN = Source(DOCUMENT, "appendix/efficient_op_design_guides.rst")

NPU_OPERATORS = (
    "Abs", "Add", "ArgMax", "ArgMin", "AveragePool", "BatchNormalization", "Clip", "Concat",
    "Conv", "ConvTranspose", "DepthToSpace", "Div", "Flatten", "Gemm", "GlobalAveragePool",
    "GlobalMaxPool", "HardSigmoid", "Identity", "LeakyRelu", "MatMul", "MaxPool", "MaxRoiPool",
    "Mul", "PRelu", "Pad", "ReduceL2", "Relu", "Reshape", "Sigmoid", "Slice", "SpaceToDepth",
    "Sub", "Tanh",
)  # fmt: skip
SHARED_OPERATORS = (
    "LSTM", "ReduceMax", "ReduceMean", "ReduceSum", "Resize", "Shape", "Softmax", "Softplus",
    "Tile", "Transpose", "Unsqueeze",
)  # fmt: skip
CPU_OPERATORS = ("GRU", "LRN")

SLOW, DOUBTFUL = Severity.SLOW, Severity.DOUBTFUL
WINDOWS = ("Conv", "ConvTranspose", "AveragePool", "MaxPool")

CONVOLUTION_RULES = (
    NpuRule(
        "conv.groups",
        ("Conv",),
        "groups divide channels and filters",
        CONV,
        checks.check_groups,
        "choose groups that divide both",
    ),
    NpuRule(
        "conv.kernel",
        ("Conv",),
        "kernels are 1 to 18 high and wide",
        CONV,
        checks.check_kernel,
        "use several smaller kernels one after another",
    ),
    NpuRule(
        "conv.dilation",
        ("Conv",),
        "a dilated kernel covers at most 18 pixels each way",
        CONV,
        checks.check_dilated_kernel,
        "use less dilation, or a smaller kernel",
    ),
    NpuRule(
        "conv.stride",
        ("Conv",),
        "strides are 1x1, 1x2, 2x1, 2x2, 3x3 or the kernel's size",
        CONV,
        checks.check_stride,
        "use stride 1 or 2, and pool for the rest",
    ),
    NpuRule(
        "conv.width",
        ("Conv",),
        "inputs are at most 8191 wide",
        CONV,
        checks.check_width,
        "use smaller images",
    ),
    NpuRule(
        "conv.pad_top",
        ("Conv",),
        "the top padding is at most 16384",
        CONV,
        checks.check_top_pad,
        "use less padding",
    ),
    NpuRule(
        "conv.taps",
        ("Conv",),
        "kernel height x width x channels is at most 65535",
        CONV,
        checks.check_taps,
        "use fewer channels or a smaller kernel before this layer",
    ),
    NpuRule(
        "conv.auto_pad",
        ("Conv",),
        "auto_pad is NOTSET",
        CONV,
        require_attribute("auto_pad", "NOTSET"),
        "set the pads explicitly",
    ),
    NpuRule(
        "conv.output_width",
        ("Conv",),
        "the stride divides the output's width (ResNet18 breaks this rule and runs)",
        CONV,
        checks.check_output_width,
        "no change is needed if the toolchain accepts it",
        DOUBTFUL,
    ),
    NpuRule(
        "conv.depthwise",
        ("Conv",),
        "depthwise convolutions run at 1/16 of the NPU's speed",
        DESIGN,
        checks.check_depthwise,
        "use convolutions without groups where speed matters",
        SLOW,
    ),
    NpuRule(
        "conv.channels",
        ("Conv",),
        "full speed needs multiples of 16 input channels (1x1: 32) and of 8 output channels",
        DESIGN,
        checks.check_channels,
        "round the channels up",
        SLOW,
    ),
    NpuRule(
        "conv.size",
        ("Conv",),
        "kernels other than 1x1 and 3x3 with padding 1 run at half speed",
        DESIGN,
        checks.check_kernel_speed,
        "use kernel 3 with padding 1",
        SLOW,
    ),
    NpuRule(
        "conv.holes",
        ("Conv",),
        "a kernel of size k and dilation d runs at k / ((k - 1) d + 1) of full speed",
        DESIGN,
        checks.check_dilation,
        "use no dilation",
        SLOW,
    ),
)
"""The rules for convolutions."""

OPERATOR_RULES = (
    NpuRule(
        "window.rank",
        WINDOWS,
        "the input has 4 dimensions",
        OPERATORS,
        require_rank(4),
        "use two-dimensional layers",
    ),
    NpuRule(
        "avg_pool.attributes",
        ("AveragePool",),
        "auto_pad and count_include_pad are not supported",
        OPERATORS,
        forbid_attributes("auto_pad", "count_include_pad"),
        "set `count_include_pad: false`",
    ),
    NpuRule(
        "avg_pool.pads",
        ("AveragePool",),
        "padding is the same on both sides",
        OPERATORS,
        check_symmetric_pads,
        "use equal padding, and windows that end with the input",
    ),
    NpuRule(
        "avg_pool.size",
        ("AveragePool",),
        "windows are at most 32 high and wide",
        DESIGN,
        partial(checks.check_pool_window, max_size=32),
        "use `global_avg_pool`, or pool twice",
        DOUBTFUL,
    ),
    NpuRule(
        "conv_transpose.attributes",
        ("ConvTranspose",),
        "auto_pad is not supported",
        OPERATORS,
        forbid_attributes("auto_pad"),
        "set the pads explicitly",
    ),
    NpuRule(
        "conv_transpose.dilation",
        ("ConvTranspose",),
        "dilations are 1",
        OPERATORS,
        require_ones("dilations"),
        "use no dilation",
    ),
    NpuRule(
        "conv_transpose.pads",
        ("ConvTranspose",),
        "padding is the same on both sides",
        OPERATORS,
        check_symmetric_pads,
        "use equal padding",
    ),
    NpuRule(
        "max_pool.attributes",
        ("MaxPool",),
        "storage_order is not supported",
        OPERATORS,
        forbid_attributes("storage_order"),
        "leave it out",
    ),
    NpuRule(
        "max_pool.dilation",
        ("MaxPool",),
        "dilations are 1",
        OPERATORS,
        require_ones("dilations"),
        "use no dilation",
    ),
    NpuRule(
        "max_pool.size",
        ("MaxPool",),
        "windows above 3 are slow",
        DESIGN,
        partial(checks.check_pool_window, max_size=3),
        "pool twice with smaller windows",
        SLOW,
    ),
    NpuRule(
        "batch_norm.place",
        ("BatchNormalization",),
        "a batch norm comes after a Conv",
        OPERATORS,
        require_producer("Conv"),
        "put it after a convolution",
    ),
    NpuRule(
        "hard_sigmoid.place",
        ("HardSigmoid",),
        "a hard sigmoid comes after a Conv",
        OPERATORS,
        require_producer("Conv"),
        "put a 1x1 convolution before it",
    ),
    NpuRule(
        "softplus.place",
        ("Softplus",),
        "a softplus comes after a Conv",
        OPERATORS,
        require_producer("Conv"),
        "put a 1x1 convolution before it",
    ),
    NpuRule(
        "arg.place",
        ("ArgMax", "ArgMin"),
        "they come after a Conv",
        OPERATORS,
        require_producer("Conv"),
        "put a 1x1 convolution before it",
    ),
    NpuRule(
        "reduce.rank",
        ("ArgMax", "ArgMin", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum"),
        "their input has 4 dimensions",
        OPERATORS,
        require_rank(4),
        "reduce feature maps",
    ),
    NpuRule(
        "reshape.rank",
        ("Reshape",),
        "the input has 3 or 4 dimensions",
        OPERATORS,
        require_rank(3, 4),
        "keep feature maps",
    ),
    NpuRule(
        "moves.speed",
        ("Reshape", "Transpose"),
        "reshaping and transposing are slow",
        DESIGN,
        reject_always,
        "avoid it where speed matters",
        SLOW,
    ),
    NpuRule(
        "prelu.speed", ("PRelu",), "PRelu is slow", DESIGN, reject_always, "use `leaky_relu`", SLOW
    ),
    NpuRule(
        "pad.mode",
        ("Pad",),
        "the mode is constant",
        OPERATORS,
        require_attribute("mode", "constant"),
        "use a constant border",
    ),
    NpuRule(
        "pad.value",
        ("Pad",),
        "the padding value is 0 or minus infinity",
        OPERATORS,
        require_constant(2, 0.0, float("-inf")),
        "use `value: 0`",
    ),
    NpuRule(
        "slice.step",
        ("Slice",),
        "steps are 1",
        OPERATORS,
        require_constant(4, 1),
        "select adjacent channels",
    ),
    NpuRule(
        "resize.scale",
        ("Resize",),
        "scales are powers of two, from 1/16 to 16",
        OPERATORS,
        checks.check_scales,
        "resize by 2, 4, 8 or 16",
    ),
    NpuRule(
        "resize.mode",
        ("Resize",),
        "modes are nearest and linear",
        OPERATORS,
        require_attribute("mode", "nearest", "linear"),
        "use one of them",
    ),
)
"""The rules for the other operators."""

PULSAR_BOOK = RuleBook(
    OPERATORS,
    {
        **dict.fromkeys(NPU_OPERATORS, Processor.NPU),
        **dict.fromkeys(SHARED_OPERATORS, Processor.EITHER),
        **dict.fromkeys(CPU_OPERATORS, Processor.CPU),
    },
    (*CONVOLUTION_RULES, *OPERATOR_RULES),
    OPERATORS,
    11,
    13,
    "the build may fail, or the operator may run on the CPU",
    {"Erf": "use `silu` or `hard_swish`, which are close to `gelu`", "Sqrt": "use `batch_norm`"},
)
"""The rules for the AX620A."""
