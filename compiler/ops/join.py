"""Ops that join several values into one."""

from dataclasses import dataclass
from typing import ClassVar

from tcc.compiler.ir.op import Array, Call, ExactIntegerOp, Family, Op, OpError
from tcc.compiler.ir.types import TensorType


def _describe_mismatch(xs: tuple[TensorType, ...]) -> str:
    """Describe the first branch and the first one that differs from it."""
    mismatch = next((i for i, x in enumerate(xs) if x.shape[1:] != xs[0].shape[1:]), len(xs) - 1)
    return f"branch 0 is {xs[0]}, branch {mismatch} is {xs[mismatch]}"


def describe_off_by_one_fix(xs: tuple[TensorType, ...]) -> str:
    """Return the help for heights and widths that differ by one, as after an even kernel."""
    axes = zip(*(x.shape[1:] for x in xs), strict=True)
    gaps = [max(sizes) - min(sizes) for sizes in axes]
    if not gaps or max(gaps) != 1:
        return ""
    return (
        "an even kernel cannot keep a size with equal padding: use an odd one, or `padding: same`;"
        " if branches have strides, use `padding: same` in all of them"
    )


@dataclass(frozen=True, slots=True)
class Concat(Op, ExactIntegerOp):
    """Concatenate the channels of the branches."""

    keyword: ClassVar[str] = "concat"
    arity: ClassVar[tuple[int, int | None]] = (1, None)
    family: ClassVar[Family] = "join"

    def infer(self, *xs: TensorType) -> TensorType:
        """Return the type of the first branch with the channels of all branches."""
        if any(len(x.shape) != len(xs[0].shape) for x in xs):
            raise OpError(
                "E0312",
                "concat cannot join feature maps and vectors",
                _describe_mismatch(xs),
                "put `flatten` into every branch, or into none",
            )
        if any(x.shape[1:] != xs[0].shape[1:] for x in xs):
            raise OpError(
                "E0312",
                "concat needs equal heights and widths",
                _describe_mismatch(xs),
                describe_off_by_one_fix(xs)
                or "use `padding: same` and equal strides in the convolutions, or pool "
                "the larger branch",
            )
        return xs[0].with_shape((sum(x.shape[0] for x in xs), *xs[0].shape[1:]))

    @property
    def moves(self) -> bool:
        """True, because the op only selects and moves elements."""
        return True

    def torch(self, *xs: TensorType) -> tuple[Call, ...]:
        """Return cat over the channels."""
        return (Call("cat", tuple(f"x{i}" for i in range(len(xs))), {"dim": 1}, packed=True),)

    def onnx(self, *xs: TensorType, opset: int) -> tuple[Call, ...]:
        """Return Concat."""
        return (Call("Concat", tuple(f"x{i}" for i in range(len(xs))), {"axis": 1}),)

    def compute(
        self, types: tuple[TensorType, ...], xs: tuple[Array, ...], params: tuple[Array, ...]
    ) -> Array:
        """Return the concatenated channels."""
        # Imported here because it loads numpy, which parsing a spec does not need.
        from tcc.compiler.ops import integer_arithmetic

        return integer_arithmetic.concat(xs)


def _describe_equal_shapes_fix(xs: tuple[TensorType, ...], full: tuple[int, ...]) -> str:
    """Return how to make branches equal; by channels if one is a gate of height and width 1."""
    if any(x.shape[1:] != full[1:] and set(x.shape[1:]) == {1} for x in xs):
        return (
            "`C` is the number of channels of the previous step: store that of the branches with"
            " `let: {full: C}` above, and end the gate with `filters: full`"
        )
    return "a 1x1 convolution with `filters: C` and equal strides makes branches equal"


@dataclass(frozen=True, slots=True)
class Broadcasting(Op):
    """An element-wise join; a branch of height and width 1 is broadcast to all pixels."""

    arity: ClassVar[tuple[int, int | None]] = (1, None)

    def resolve(self, *xs: TensorType) -> "Broadcasting | None":
        """Return the op, or None for a single branch."""
        return self if len(xs) > 1 else None

    def infer(self, *xs: TensorType) -> TensorType:
        """Return the type that all branches broadcast to."""
        if any(len(x.shape) != len(xs[0].shape) for x in xs):
            raise OpError(
                "E0314",
                f"{self.keyword} cannot join feature maps and vectors",
                _describe_mismatch(xs),
                "put `flatten` into every branch, or into none",
            )
        full = tuple(max(sizes) for sizes in zip(*(x.shape for x in xs), strict=True))
        for x in xs:
            if any(n not in (1, m) for n, m in zip(x.shape, full, strict=True)):
                raise OpError(
                    "E0313",
                    f"{self.keyword} needs equal shapes, or 1 where a branch is broadcast",
                    ", ".join(f"branch {i} is {x}" for i, x in enumerate(xs[:4])),
                    describe_off_by_one_fix(xs) or _describe_equal_shapes_fix(xs, full),
                )
        return TensorType(full)

    def _build_chain(self, function: str, n: int) -> tuple[Call, ...]:
        # From left to right, because float sums depend on the order.
        names = ["x0", *(f"s{i}" for i in range(1, n - 1)), "y"]
        return tuple(Call(function, (names[i - 1], f"x{i}"), output=names[i]) for i in range(1, n))


@dataclass(frozen=True, slots=True)
class Add(Broadcasting):
    """The sum of the branches."""

    keyword: ClassVar[str] = "add"
    family: ClassVar[Family] = "join"

    def torch(self, *xs: TensorType) -> tuple[Call, ...]:
        """Return a chain of add."""
        return self._build_chain("add", len(xs))

    def onnx(self, *xs: TensorType, opset: int) -> tuple[Call, ...]:
        """Return a chain of Add."""
        return self._build_chain("Add", len(xs))


@dataclass(frozen=True, slots=True)
class Mul(Broadcasting):
    """The product of the branches."""

    keyword: ClassVar[str] = "mul"
    family: ClassVar[Family] = "join"

    def torch(self, *xs: TensorType) -> tuple[Call, ...]:
        """Return a chain of mul."""
        return self._build_chain("mul", len(xs))

    def onnx(self, *xs: TensorType, opset: int) -> tuple[Call, ...]:
        """Return a chain of Mul."""
        return self._build_chain("Mul", len(xs))
