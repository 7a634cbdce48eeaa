"""What Pulsar's configuration may hold: one record a message, from which it is written and read.

Names, enumerations and nesting are those of the manual of Pulsar 0.6.1 (AXERA-TECH/pulsar-docs,
in Chinese, at f391cff). What only older manuals have is left out: no version takes both. A field
that is None, or has no items, is not written.
"""

from dataclasses import dataclass

from tcc.backends.pulsar.v1.enumerations import (
    BackendMode,
    BatchOption,
    ColorSpace,
    ColorStandard,
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


# Records and not a template of text: fields come out in the manual's order, an unknown one cannot
# be written, and the same records read a file back.
@dataclass(frozen=True, slots=True)
class BorderTensor:
    """What a tensor at the network's border looks like; one without a name stands for all."""

    tensor_name: str | None = None
    color_space: ColorSpace | None = None
    data_type: DataType | None = None
    quantization_value: int | None = None
    color_standard: ColorStandard | None = None
    tensor_layout: TensorLayout | None = None


@dataclass(frozen=True, slots=True)
class OnnxSetting:
    """Parts that run as ONNX on the processor."""

    mode: BackendMode | None = None


@dataclass(frozen=True, slots=True)
class AxeParam:
    """How AXERA's own engine for the processor works."""

    optimize_slim_model: bool | None = None


@dataclass(frozen=True, slots=True)
class AxeSetting:
    """Parts that run in AXERA's own engine on the processor."""

    mode: BackendMode | None = None
    axe_param: AxeParam | None = None


@dataclass(frozen=True, slots=True)
class CpuBackends:
    """What may become of parts that the NPU does not take."""

    onnx_setting: OnnxSetting | None = None
    axe_setting: AxeSetting | None = None


@dataclass(frozen=True, slots=True)
class Selector:
    """Which tensors or operators are meant; an empty one means all."""

    op_name: str | None = None
    op_name_regex: str | None = None


@dataclass(frozen=True, slots=True)
class Affine:
    """x * slope / slope_divisor + bias / bias_divisor, lists of one number or one a channel."""

    slope: tuple[float, ...] = ()
    slope_divisor: tuple[float, ...] = ()
    bias: tuple[float, ...] = ()
    bias_divisor: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Normalization:
    """(x - mean) / std, lists of one number or one a channel."""

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Modification:
    """One step on the way from what comes in to what the network reads: one of its fields."""

    affine_preprocess: Affine | None = None
    input_normalization: Normalization | None = None


@dataclass(frozen=True, slots=True)
class InputAttributes:
    """The type of an input, and its steps in their order."""

    type: DataType | None = None
    input_modifications: tuple[Modification, ...] = ()


@dataclass(frozen=True, slots=True)
class InputConf:
    """What is said of an input."""

    selector: Selector | None = None
    attributes: InputAttributes | None = None


@dataclass(frozen=True, slots=True)
class OperatorAttributes:
    """The precision of operators."""

    input_feature_type: DataType | None = None
    weight_type: DataType | None = None


@dataclass(frozen=True, slots=True)
class OperatorItem:
    """What is said of operators."""

    selector: Selector | None = None
    attributes: OperatorAttributes | None = None


@dataclass(frozen=True, slots=True)
class OperatorConf:
    """What is said of inputs and operators."""

    input_conf_items: tuple[InputConf, ...] = ()
    operator_conf_items: tuple[OperatorItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Dataset:
    """Inputs to calibrate or to compare with."""

    path: str | None = None
    type: DatasetType | None = None
    size: int | None = None
    batch_size: int | None = None
    calibration_strategy: Strategy | None = None
    observer_method: Observer | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How far what was quantised is from the floats."""

    path: str | None = None
    type: EvaluationType | None = None
    source_ir_types: tuple[IrType, ...] = ()
    ir_types: tuple[IrType, ...] = ()
    score_compare_per_layer: bool | None = None


@dataclass(frozen=True, slots=True)
class Neuwizard:
    """The part of Pulsar that quantises."""

    operator_conf: OperatorConf | None = None
    dataset_conf_calibration: Dataset | None = None
    dataset_conf_error_measurement: Dataset | None = None
    evaluation_conf: Evaluation | None = None


@dataclass(frozen=True, slots=True)
class PulsarConf:
    """The part of Pulsar that compiles."""

    ax620_virtual_npu: VirtualNpu | None = None
    batch_size_option: BatchOption | None = None
    batch_size: tuple[int, ...] = ()
    debug: bool | None = None
    output_dir: str | None = None


@dataclass(frozen=True, slots=True)
class PulsarConfig:
    """The whole of `config.prototxt`."""

    input_path: str | None = None
    input_type: InputType | None = None
    output_path: str | None = None
    output_type: OutputType | None = None
    target_hardware: TargetHardware | None = None
    cpu_backend_settings: CpuBackends | None = None
    src_input_tensors: tuple[BorderTensor, ...] = ()
    dst_input_tensors: tuple[BorderTensor, ...] = ()
    src_output_tensors: tuple[BorderTensor, ...] = ()
    dst_output_tensors: tuple[BorderTensor, ...] = ()
    neuwizard_conf: Neuwizard | None = None
    pulsar_conf: PulsarConf | None = None
