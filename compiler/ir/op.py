"""What every operation must be able to say of itself."""

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
"""Numbers, with a leading batch axis where they are a value."""


Family: TypeAlias = Literal["conv", "norm", "pool", "join", "layout", "activation"]


class OpError(ValueError):
    """The inputs do not fit the operation.

    `label` says what was found, `help` what to do; the front end adds the place.
    """

    def __init__(self, code: str, message: str, label: str = "", help: str = "") -> None:
        super().__init__(f"{message}: {label}" if label else message)
        self.code, self.message, self.label, self.help = code, message, label, help


class Init(Enum):
    """How a weight tensor is filled before training."""

    # torch writes it as `kaiming_uniform_(a=sqrt(5))`, whose bound is sqrt(6 / ((1 + a * a) *
    # fan-in)).
    KAIMING = "kaiming"  # uniform in +-sqrt(1 / fan-in), the default of torch's conv and linear
    ZEROS = "zeros"
    ONES = "ones"


@dataclass(frozen=True, slots=True)
class Param:
    """A weight tensor of an op: `<node>.<role>`; buffers are not trainable.

    `fan_in` is the number of inputs one output element reads, for `Init.KAIMING`.
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
    """A small literal tensor in a call, such as an axis list, or its rows."""

    elements: tuple[int | float, ...] | tuple[tuple[int, ...], ...]
    dtype: str = "int64"
    scalar: bool = False


Argument = str | Const | None
"""An input of a call: an op input `x0`, `x1`..., a role, an earlier output, a literal, or none."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function of another framework, as plain data.

    An op's meaning there is a short sequence of calls; the last one's output is `y`.
    For torch, `function` is looked up in `torch.nn.functional`, then `torch`; a call
    that `trains` is given `training=` the module's mode; a `packed` call takes its
    tensors as one list. For ONNX, `function` is the operator's name, and `extra_outputs` names its
    further outputs.
    """

    function: str
    inputs: tuple[Argument, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    output: str = "y"
    trains: bool = False
    packed: bool = False
    extra_outputs: tuple[str, ...] = ()


class Op(ABC):
    """An operation: its fields are its attributes, its methods what it means.

    Each method takes the types of the operation's inputs by position; an operation names
    them in its own signature (a checker lets a base of `*_: Any` be narrowed so, and
    the front end checks the count by `arity`). A type's shape has no batch axis: (channels,
    height, width) of a map, (features,) of a vector. What runs has one, in front.
    """

    keyword: ClassVar[str]
    """What the language calls it."""
    arity: ClassVar[tuple[int, int | None]] = (1, 1)
    """Fewest and most inputs; None is unbounded."""
    family: ClassVar[Family] = "activation"
    """What kind of step it is, which figures show by a colour."""
    onnx_operator: ClassVar[str] = ""
    """The ONNX operator that is this op by itself, without weights, if there is one: it is imported
    as this op. So are, for an activation, the operators of `onnx` where these are several."""

    @property
    def moves(self) -> bool:
        """Whether the output holds numbers of the inputs and constants alone.

        Then one scale fits all of them, and the op works on 8-bit levels as it is (see
        `ExactIntegerOp`).
        """
        return False

    def resolve(self, *_: Any) -> "Op | None":
        """Return the op that this word stands for, given input types; None is the identity."""
        return self

    @abstractmethod
    def infer(self, *_: Any, **__: Any) -> TensorType:
        """Return the output's type, or raise OpError saying what does not fit."""

    def params(self, *_: Any, **__: Any) -> tuple[Param, ...]:
        """Return the weight tensors, in the order of `Node.params`, in PyTorch's layout.

        A convolution's is (filters, channels / groups, height, width), a linear layer's (units,
        features), that of one number a channel (channels,).
        """
        return ()

    def macs(self, *_: Any, **__: Any) -> int:
        """Return the multiply-accumulates of conv and linear for one image; 0 elsewhere."""
        return 0

    @abstractmethod
    def torch(self, *_: Any, **__: Any) -> tuple[Call, ...]:
        """Return the torch calls that are the float meaning all else is held against.

        Their inputs `x0`, `x1` ... are the op's, (N, *shape), and weights go by role.
        """

    @abstractmethod
    def onnx(self, *_: Any, **__: Any) -> tuple[Call, ...]:
        """Return the ONNX operators that mean the same, valid from opset 11 on.

        Inputs are named as for `torch`; the batch axis may be open, so no literal holds it.
        """

    @classmethod
    def from_onnx(cls, attributes: Mapping[str, Any]) -> "Op":
        """Return the op that `onnx_operator` with these attributes is; most have none.

        Args:
            attributes: Those that the file gives; floats in as few digits as float32 has.
        """
        return cls()

    def attributes(self) -> dict[str, object]:
        """Return the fields by name, for the printed IR."""
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]


# Beside `Op` and not in it: only what integer programs are made of has such a meaning.
class ExactIntegerOp(ABC):
    """What an operation on 8-bit integers is as well: it has one result, the same to the bit."""

    @abstractmethod
    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the output of inputs and weights.

        Args:
            types: Those of the inputs, with their scales.
            xs: The inputs (N, *shape), levels as int8 or uint8.
            params: The weights, in the order and the shapes of `Op.params`.

        Returns:
            The output (N, *shape), of the type that `infer` gives.
        """


class Alias(Op):
    """A word that always resolves to another op, so that no graph holds it."""

    @abstractmethod
    def resolve(self, *_: Any) -> Op | None:
        """Return the op that this word stands for; None is the identity."""

    def infer(self, *_: Any, **__: Any) -> TensorType:
        """Never called: the front end resolves the word away."""
        raise AssertionError(self)

    def torch(self, *_: Any, **__: Any) -> tuple[Call, ...]:
        """Never called: the front end resolves the word away."""
        raise AssertionError(self)

    def onnx(self, *_: Any, **__: Any) -> tuple[Call, ...]:
        """Never called: the front end resolves the word away."""
        raise AssertionError(self)


def require_image_shape(input_type: TensorType, keyword: str) -> tuple[int, int, int]:
    """Return C, H, W of a feature map, or raise OpError."""
    if len(input_type.shape) != 3:
        raise OpError(
            "E0301",
            f"{keyword} needs a channels x height x width value",
            f"the input is a vector of {input_type}",
            "move this step before `flatten`",
        )
    c, h, w = input_type.shape
    return c, h, w
