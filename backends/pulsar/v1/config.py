"""The configuration of a package, from the input contract of its network."""

from collections.abc import Sequence

from tcc.backends.pulsar.calibration_data import takes_levels
from tcc.backends.pulsar.contract import color_word
from tcc.backends.pulsar.v1.enumerations import (
    BackendMode,
    ColorSpace,
    DatasetType,
    DataType,
    EvaluationType,
    InputType,
    IrType,
    Observer,
    OutputType,
    Strategy,
    TargetHardware,
    TensorLayout,
    VirtualNpu,
)
from tcc.backends.pulsar.v1.schema import (
    Affine,
    AxeParam,
    AxeSetting,
    BorderTensor,
    CpuBackends,
    Dataset,
    Evaluation,
    InputAttributes,
    InputConf,
    Modification,
    Neuwizard,
    Normalization,
    OnnxSetting,
    OperatorConf,
    PulsarConf,
    PulsarConfig,
    Selector,
)
from tcc.compiler.ir.graph import Input

ARCHIVE = "calibration.tar"
COMPARED = 4
"""Inputs with which the tool compares its layers; the manual warns that it is slow."""
EVALUATOR = "neuwizard.evaluator.error_measure_evaluator"


def config(source: Input, outputs: Sequence[str], samples: int) -> PulsarConfig:
    """Return the configuration of a network with one input, calibrated with so many samples.

    Its half of the NPU is the one that boards leave to users. Ranges are of tensors: the manual
    warns that ranges of channels may lose accuracy.
    """
    border = _tensor(source)
    return PulsarConfig(
        input_type=InputType.ONNX,
        output_type=OutputType.JOINT,
        target_hardware=TargetHardware.AX620,
        cpu_backend_settings=CpuBackends(
            OnnxSetting(BackendMode.DISABLED),
            AxeSetting(BackendMode.ENABLED, AxeParam(optimize_slim_model=True)),
        ),
        # The same colours on both sides, or the tool would swap channels by itself.
        src_input_tensors=(BorderTensor(source.name, border.color_space),),
        dst_input_tensors=(border,),
        dst_output_tensors=tuple(
            BorderTensor(name, data_type=DataType.FLOAT32, tensor_layout=TensorLayout.NHWC)
            for name in outputs
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


def _tensor(source: Input) -> BorderTensor:
    """Return what comes in: 8-bit levels, channels last, or floats as the network has them.

    The colour of floats that are no image is left to the default, which is the same on both sides.
    """
    if not takes_levels(source):
        return BorderTensor(source.name, None, DataType.FLOAT32, tensor_layout=TensorLayout.NCHW)
    assert source.preprocess is not None
    color = ColorSpace[color_word(source.preprocess)]
    return BorderTensor(source.name, color, DataType.UINT8, tensor_layout=TensorLayout.NHWC)


def _attributes(source: Input) -> InputAttributes:
    """Return how levels become the network's input, in the order of the contract."""
    pre = source.preprocess
    if pre is None or not takes_levels(source):
        return InputAttributes(DataType.FLOAT32)
    if pre.raw:
        return InputAttributes()
    # A division by 255, not a product with its rounded inverse: the contract's own step.
    scale = Affine((1.0,), (255.0,), (0.0,))
    steps = (Modification(scale), Modification(None, Normalization(pre.mean, pre.std)))
    return InputAttributes(input_modifications=steps)
