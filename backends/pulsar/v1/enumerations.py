"""The enumerations of Pulsar's configuration, each word as the manual has it."""

from enum import StrEnum


class InputType(StrEnum):
    """What is compiled."""

    ONNX = "INPUT_TYPE_ONNX"


class OutputType(StrEnum):
    """What is written."""

    JOINT = "OUTPUT_TYPE_JOINT"
    LAVA_JOINT = "OUTPUT_TYPE_LAVA_JOINT"
    SUPERNET = "OUTPUT_TYPE_SUPERNET"


class TargetHardware(StrEnum):
    """The chip."""

    AX620 = "TARGET_HARDWARE_AX620"
    AX630 = "TARGET_HARDWARE_AX630"


class ColorSpace(StrEnum):
    """What a tensor's channels are; `AUTO` is BGR for three of them and GRAY for one."""

    AUTO = "TENSOR_COLOR_SPACE_AUTO"
    BGR = "TENSOR_COLOR_SPACE_BGR"
    RGB = "TENSOR_COLOR_SPACE_RGB"
    GRAY = "TENSOR_COLOR_SPACE_GRAY"
    NV12 = "TENSOR_COLOR_SPACE_NV12"
    NV21 = "TENSOR_COLOR_SPACE_NV21"
    BGR0 = "TENSOR_COLOR_SPACE_BGR0"


class DataType(StrEnum):
    """The type of an element."""

    UINT4 = "UINT4"
    INT4 = "INT4"
    UINT8 = "UINT8"
    INT8 = "INT8"
    UINT16 = "UINT16"
    INT16 = "INT16"
    FLOAT32 = "FLOAT32"


class ColorStandard(StrEnum):
    """By which formula YUV becomes RGB."""

    LEGACY = "CSC_LEGACY"
    BT601_STUDIO = "CSS_ITU_BT601_STUDIO_SWING"
    BT601_FULL = "CSS_ITU_BT601_FULL_SWING"


class TensorLayout(StrEnum):
    """The order of a tensor's axes."""

    NATIVE = "NATIVE"
    NHWC = "NHWC"
    NCHW = "NCHW"


class BackendMode(StrEnum):
    """Whether what the NPU does not take may run so on the processor."""

    DEFAULT = "DEFAULT"
    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


class DatasetType(StrEnum):
    """What a data set is stored as."""

    TAR = "DATASET_TYPE_TAR"


class Strategy(StrEnum):
    """What has a range of its own."""

    PER_CHANNEL = "CALIB_STRATEGY_PER_CHANNEL"
    PER_TENSOR = "CALIB_STRATEGY_PER_TENSOR"


class Observer(StrEnum):
    """How a range is found."""

    MIN_MAX = "OBSVR_METHOD_MIN_MAX"
    MSE_CLIPPING = "OBSVR_METHOD_MSE_CLIPPING"


class EvaluationType(StrEnum):
    """What is evaluated after quantising."""

    ERROR_MEASURE = "EVALUATION_TYPE_ERROR_MEASURE"


class IrType(StrEnum):
    """The stages of a network."""

    ONNX = "IR_TYPE_ONNX"
    LAVA = "IR_TYPE_LAVA"


class VirtualNpu(StrEnum):
    """Which part of the NPU; `HALF` is the one beside the camera's, `AI_ISP` the camera's own."""

    WHOLE = "AX620_VIRTUAL_NPU_MODE_0"
    HALF = "AX620_VIRTUAL_NPU_MODE_111"
    AI_ISP = "AX620_VIRTUAL_NPU_MODE_112"


class BatchOption(StrEnum):
    """Whether a file has one batch size or several."""

    AUTO = "BSO_AUTO"
    STATIC = "BSO_STATIC"
    DYNAMIC = "BSO_DYNAMIC"
