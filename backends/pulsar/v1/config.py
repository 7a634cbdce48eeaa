"""The configuration of a package, from the input contract of its network."""

from collections.abc import Sequence

from tcc.backends.pulsar.calibration_data import takes_levels
from tcc.backends.pulsar.v1.schema import (
    Affine,
    AxeParam,
    AxeSetting,
    BackendMode,
    ColorSpace,
    Config,
    CpuBackends,
    Dataset,
    DatasetType,
    DataType,
    Evaluation,
    EvaluationType,
    Hardware,
    InputAttributes,
    InputConf,
    InputType,
    IrType,
    Layout,
    Modification,
    Neuwizard,
    Normalization,
    Observer,
    OnnxSetting,
    OperatorConf,
    OutputType,
    PulsarConf,
    Selector,
    Strategy,
    Tensor,
    VirtualNpu,
)
from tcc.compiler.ir.graph import Input
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.support.unhandled import UnhandledError

ARCHIVE = "calibration.tar"
COMPARED = 4
"""Inputs with which the tool compares its layers; the manual warns that it is slow."""
EVALUATOR = "neuwizard.evaluator.error_measure_evaluator"


def config(source: Input, outputs: Sequence[str], samples: int) -> Config:
    """Return the configuration of a network with one input, calibrated with so many samples.

    Its half of the NPU is the one that boards leave to users. Ranges are of tensors: the manual
    warns that ranges of channels may lose accuracy.
    """
    border = _tensor(source)
    return Config(
        input_type=InputType.ONNX,
        output_type=OutputType.JOINT,
        target_hardware=Hardware.AX620,
        cpu_backend_settings=CpuBackends(
            OnnxSetting(BackendMode.DISABLED),
            AxeSetting(BackendMode.ENABLED, AxeParam(optimize_slim_model=True)),
        ),
        src_input_tensors=(Tensor(source.name, border.color_space),),
        dst_input_tensors=(border,),
        dst_output_tensors=tuple(
            Tensor(name, data_type=DataType.FLOAT32, tensor_layout=Layout.NHWC) for name in outputs
        ),
        neuwizard_conf=Neuwizard(
            OperatorConf((InputConf(Selector(source.name), _attributes(source)),)),
            Dataset(ARCHIVE, DatasetType.TAR, samples, 1, Strategy.PER_TENSOR, OBSERVER),
            Dataset(ARCHIVE, DatasetType.TAR, min(COMPARED, samples), 1),
            Evaluation(
                EVALUATOR, EvaluationType.ERROR_MEASURE, (IrType.ONNX,), (IrType.LAVA,), True
            ),
        ),
        pulsar_conf=PulsarConf(VirtualNpu.HALF, batch_size=(1,), debug=False),
    )


OBSERVER = Observer.MSE_CLIPPING
"""Of the two that the manual recommends, the one that a single far value does not move."""


def _tensor(source: Input) -> Tensor:
    """Return what comes in: 8-bit levels, channels last, or floats as the network has them.

    The colour of floats that are no image is left to the default, which is the same on both sides.
    """
    if not takes_levels(source):
        return Tensor(source.name, None, DataType.FLOAT32, tensor_layout=Layout.NCHW)
    assert source.preprocess is not None
    color = color_space(source.preprocess)
    return Tensor(source.name, color, DataType.UINT8, tensor_layout=Layout.NHWC)


def color_space(pre: Preprocess) -> ColorSpace:
    """Return what the manual calls a contract's colours."""
    match pre.color:
        case "rgb":
            return ColorSpace.RGB
        case "bgr":
            return ColorSpace.BGR
        case "gray":
            return ColorSpace.GRAY
        case _:
            raise UnhandledError("colour", pre.color)


def _attributes(source: Input) -> InputAttributes:
    """Return how levels become the network's input, in the order of the contract."""
    pre = source.preprocess
    if pre is None or not takes_levels(source):
        return InputAttributes(DataType.FLOAT32)
    if pre.raw:
        return InputAttributes()
    scale = Affine((1.0,), (255.0,), (0.0,))
    steps = (Modification(scale), Modification(None, Normalization(pre.mean, pre.std)))
    return InputAttributes(input_modifications=steps)
