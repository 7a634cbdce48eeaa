"""The interface of operations."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from tcc.compiler.ir.types import DType, Shape, TensorType

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
"""Numbers; values have a leading batch axis."""


Family: TypeAlias = Literal["conv", "norm", "pool", "join", "layout", "activation"]


class OpError(ValueError):
    """The inputs do not fit the operation.

    `label` describes the input, `help` the fix; the front end adds the location.
    """

    def __init__(self, code: str, message: str, label: str = "", help: str = "") -> None:
        super().__init__(f"{message}: {label}" if label else message)
        self.code, self.message, self.label, self.help = code, message, label, help


class Init(Enum):
    """How a weight tensor is initialized before training."""

    # torch writes it as `kaiming_uniform_(a=sqrt(5))`, with the bound sqrt(6 / ((1 + a * a) *
    # fan-in)).
    KAIMING = "kaiming"  # uniform in +-sqrt(1 / fan-in), the default of torch's conv and linear
    ZEROS = "zeros"
    ONES = "ones"


@dataclass(frozen=True, slots=True)
class Param:
    """A weight tensor of an op: `<node>.<role>`; buffers are not trainable.

    `fan_in` is the number of inputs that one output element reads, for `Init.KAIMING`.
    """

    role: str
    shape: Shape
    init: Init = Init.KAIMING
    fan_in: int = 1
    trainable: bool = True
    dtype: DType = DType.F32

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Const:
    """A small literal tensor in a call: its elements, such as a list of axes, or its rows."""

    elements: tuple[int | float, ...] | tuple[tuple[int, ...], ...]
    dtype: str = "int64"
    scalar: bool = False


Argument = str | Const | None
"""An input of a call: an op input `x0`, `x1`..., a role, an earlier output, a literal, or none."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function of another framework, as plain data.

    An op is defined there as a short sequence of calls; the last one's output is `y`. For torch,
    `function` is looked up in `torch.nn.functional`, then in `torch`. A call that `trains` gets the
    module's mode as `training=`; a `packed` call gets its tensors as one list. For ONNX, `function`
    is the operator's name, and `extra_outputs` names its further outputs.
    """

    function: str
    inputs: tuple[Argument, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    output: str = "y"
    trains: bool = False
    packed: bool = False
    extra_outputs: tuple[str, ...] = ()


class Op(ABC):
    """An operation: its fields are its attributes, its methods define it.

    Each method takes the types of the inputs by position; an op names them in its own signature
    (type checkers accept this for a base with `*_: Any`, and the front end checks the count with
    `arity`). A type's shape has no batch axis: (channels, height, width) of a map, (features,) of a
    vector. At run time there is a leading batch axis.
    """

    keyword: ClassVar[str]
    """Its keyword in specs."""
    arity: ClassVar[tuple[int, int | None]] = (1, 1)
    """The lowest and highest number of inputs; None is unbounded."""
    family: ClassVar[Family] = "activation"
    """The kind of step, which figures show as a colour."""
    onnx_operator: ClassVar[str] = ""
    """The ONNX operator that equals this op, without weights; it is imported as this op. For an
    activation that `onnx` writes as several operators, those are imported as it too."""

    @property
    def moves(self) -> bool:
        """Whether the output contains only numbers of the inputs and constants.

        Then one scale fits all of them, and the op works on quantized values unchanged (see
        `ExactIntegerOp`).
        """
        return False

    def resolve(self, *_: Any) -> "Op | None":
        """Return the op that this keyword means, given input types; None is the identity."""
        return self

    @abstractmethod
    def infer(self, *_: Any, **__: Any) -> TensorType:
        """Return the output's type, or raise OpError if the inputs do not fit."""

    def params(self, *_: Any, **__: Any) -> tuple[Param, ...]:
        """Return the weight tensors, in the order of `Node.params`, in PyTorch's layout.

        A convolution has (filters, channels / groups, height, width), a linear layer (units,
        features), and a tensor with one number per channel (channels,).
        """
        return ()

    def macs(self, *_: Any, **__: Any) -> int:
        """Return the multiply-accumulates of conv and linear for one image; 0 elsewhere."""
        return 0

    @abstractmethod
    def torch(self, *_: Any, **__: Any) -> tuple[Call, ...]:
        """Return the torch calls that define the op in float; all else is compared with them.

        Their inputs `x0`, `x1` ... are the op's, (N, *shape); weights are named by role.
        """

    @abstractmethod
    def onnx(self, *_: Any, **__: Any) -> tuple[Call, ...]:
        """Return the equivalent ONNX operators, valid from opset 11 on.

        Inputs are named as for `torch`. The batch axis may be dynamic, so no literal contains it.
        """

    @classmethod
    def from_onnx(cls, attributes: Mapping[str, Any]) -> "Op":
        """Return this op from the attributes of `onnx_operator`; most have none.

        Args:
            attributes: The file's attributes; floats have the shortest digits of their float32.
        """
        return cls()

    def attributes(self) -> dict[str, object]:
        """Return the fields by name, for the printed IR."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]


# Separate from `Op`: only the ops of integer programs have such a definition.
class ExactIntegerOp(ABC):
    """An op that is also defined on 8-bit integers, with one bit-exact result."""

    @abstractmethod
    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the output for inputs and weights.

        Args:
            types: The types of the inputs, with their scales.
            xs: The inputs (N, *shape), quantized values as int8 or uint8.
            params: The weights, in the order and with the shapes of `Op.params`.

        Returns:
            The output (N, *shape), of the type that `infer` returns.
        """


class Alias(Op):
    """A keyword that always resolves to another op, so that no graph contains it."""

    @abstractmethod
    def resolve(self, *_: Any) -> Op | None:
        """Return the op that this keyword means; None is the identity."""

    def infer(self, *_: Any, **__: Any) -> TensorType:
        """Never called: the front end resolves the keyword."""
        raise AssertionError(self)

    def torch(self, *_: Any, **__: Any) -> tuple[Call, ...]:
        """Never called: the front end resolves the keyword."""
        raise AssertionError(self)

    def onnx(self, *_: Any, **__: Any) -> tuple[Call, ...]:
        """Never called: the front end resolves the keyword."""
        raise AssertionError(self)


def require_image_shape(input_type: TensorType, keyword: str) -> tuple[int, int, int]:
    """Return C, H, W of a feature map, or raise OpError for a vector."""
    if len(input_type.shape) != 3:
        raise OpError(
            "E0301",
            f"{keyword} needs a channels x height x width value",
            f"the input is a vector of {input_type}",
            "move this step before `flatten`",
        )
    c, h, w = input_type.shape
    return c, h, w
