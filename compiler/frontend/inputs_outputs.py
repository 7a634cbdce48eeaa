"""What a spec says of its input and outputs: shapes, preprocessing, labels."""

from typing import Any, assert_never, get_args

from tcc.compiler.frontend.argument_values import LARGEST, check_single, value_of
from tcc.compiler.frontend.expr import Unknown
from tcc.compiler.frontend.expr.operators import GraphValue
from tcc.compiler.frontend.size_limits import MAX_ELEMENTS
from tcc.compiler.frontend.step_scope import StepScope, single_value
from tcc.compiler.frontend.suggestions import channels_first
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Tree
from tcc.compiler.ir.argument_declarations import Kind, Parameter
from tcc.compiler.ir.graph import Input, Output
from tcc.compiler.ir.preprocess import (
    COLORS,
    MAX_SIDE,
    MODES,
    SCALES,
    PixelResize,
    Preprocess,
    result_shape,
)
from tcc.compiler.ir.types import OutputActivation, OutputKind, TensorType
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail


def check_kind(output: Output, kind: TensorType, given: Tree) -> None:
    """Refuse a `kind:` that contradicts the output's activation or shape.

    Raises:
        UserError: It does (E0235).
    """
    match output.kind:
        case None:
            return
        case "classes":
            # The largest of one value is always the first.
            if kind.shape[0] < 2:
                help = "for one value, write `kind: decisions` with `activation: sigmoid`"
                raise _contradiction(output, given, f"the output is {kind}: one value", help)
        case "decisions":
            # A decision by itself needs a probability by itself: a softmax's depend on each other.
            if output.activation != "sigmoid":
                label = f"its activation is `{output.activation}`, and decisions are probabilities"
                help = "write `activation: sigmoid`, which gives each value its own probability"
                raise _contradiction(output, given, label, help)
        case "regression":
            if output.activation == "softmax":
                help = "write `activation: none`, or leave `kind` out"
                raise _contradiction(output, given, "softmax gives shares of classes", help)
        case _:
            assert_never(output.kind)


def _contradiction(output: Output, given: Tree, label: str, help: str) -> UserError:
    message = f"`{output.name}` cannot be of kind `{output.kind}`"
    return fail("E0235", message, given.span, label=label, help=help)


SHAPE = Parameter("shape", Kind.LIST, low=1)
COLOR = Parameter("color", Kind.ENUM, "rgb", choices=COLORS)
SIZE = Parameter("size", Kind.PAIR, low=1, high=MAX_SIDE)
MODE = Parameter("mode", Kind.ENUM, "stretch", choices=(*MODES, "none"))
CROP = Parameter("crop", Kind.PAIR, low=1, high=MAX_SIDE)
SCALE = Parameter("scale", Kind.ENUM, "255", choices=SCALES)
MEAN = Parameter("mean", Kind.LIST, (0.0,))
STD = Parameter("std", Kind.LIST, (1.0,))
LABELS = Parameter("labels", Kind.NAMES, ())
TRAIN_ONLY = Parameter("train_only", Kind.BOOL, False)


def read_input(tree: Tree | None, env: StepScope) -> Input:
    """Return the graph's input.

    Raises:
        UserError: The shape or the preprocessing is wrong, or they do not fit each other.
    """
    assert isinstance(tree, MappingTree)
    key, body = tree.items[0]
    assert isinstance(body, MappingTree)
    given = body.get("shape")
    assert given is not None
    shape = _value(SHAPE, body, env)
    if len(shape) != 3 or not all(isinstance(n, int) and not isinstance(n, bool) for n in shape):
        raise fail("E0213", "`shape` must be [channels, height, width]", given.span)
    source = Input(str(key.value), TensorType(shape), None)
    if source.type.elements > MAX_ELEMENTS:
        label = f"{source.type.elements} elements, the limit is {MAX_ELEMENTS}"
        raise fail("E0405", "the input is too large", given.span, label=label)
    steps = body.get("preprocess")
    if not isinstance(steps, MappingTree):
        return source
    return Input(source.name, source.type, _preprocess(steps, source.type, env))


def _value(p: Parameter, tree: MappingTree, env: StepScope) -> Any:
    given = tree.get(p.name)
    if given is None:
        return p.default
    value = value_of(p, given, env.scope(GraphValue("", TensorType(()))))
    if isinstance(value, Unknown):
        # Empty, since what makes the value unknown was told already.
        raise UserError()
    return value


def _preprocess(tree: MappingTree, kind: TensorType, env: StepScope) -> Preprocess:
    resize = tree.get("resize")
    how = None
    if isinstance(resize, MappingTree):
        mode = _value(MODE, resize, env)
        size = _value(SIZE, resize, env)
        # `none` is for parameters: a spec may let `--set` choose how images are brought to size.
        how = None if mode == "none" else PixelResize(size, mode)
    crop = _value(CROP, tree, env) if tree.get("crop") is not None else None
    made = Preprocess(
        _value(COLOR, tree, env),
        how,
        crop,
        _numbers(MEAN, tree, env),
        _numbers(STD, tree, env),
        scale=_value(SCALE, tree, env),
    )
    channels, *size = kind.shape
    _check_statistics(tree, made, channels)
    wanted = made.channels
    result = result_shape(made)
    if channels != wanted or (result is not None and tuple(result[-2:]) != tuple(size)):
        got = "x".join(map(str, (wanted, *(result[-2:] if result else size))))
        raise fail(
            "E0234",
            "preprocessing does not give the input's shape",
            tree.span,
            label=f"it gives {got}, `shape` is {kind}",
            help=_fitting(made.color, wanted, kind),
        )
    return made


def _fitting(color: str, wanted: int, kind: TensorType) -> str:
    """Return how shape and preprocessing come to fit."""
    channels, height, width = kind.shape
    if meant := channels_first(kind.shape):
        return f"channels come first: write `shape: {meant}`"
    if channels != wanted:
        other = "rgb" if channels == 3 else "gray"
        fits = f", or `color: {other}`" if channels in (1, 3) else ""
        many = "one channel" if wanted == 1 else "three channels"
        return f"`color: {color}` gives {many}: write `shape: [{wanted}, {height}, {width}]`{fits}"
    return "make `resize.size` or `crop` equal to the input's height and width"


def _numbers(p: Parameter, tree: MappingTree, env: StepScope) -> tuple[float, ...]:
    values = _value(p, tree, env)
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        given = tree.get(p.name)
        assert given is not None
        raise fail("E0213", f"`{p.name}` must be a list of numbers", given.span)
    return tuple(float(v) for v in values)


def _check_statistics(tree: MappingTree, made: Preprocess, channels: int) -> None:
    for name, values in (("mean", made.mean), ("std", made.std)):
        given = tree.get(name)
        if given is None:
            continue
        if len(values) not in (1, channels):
            raise fail(
                "E0213",
                f"`{name}` needs one number, or one for each of {channels} channels",
                given.span,
                label=f"this has {len(values)}",
            )
        if not all(abs(v) < float("inf") for v in values) or (
            name == "std" and not all(v > 0 for v in values)
        ):
            raise fail(
                "E0214", f"`{name}` must be finite" + " and above 0" * (name == "std"), given.span
            )
    _check_pixels(tree, made)
    for name, values in (("mean", made.mean), ("std", made.std)):
        if (given := tree.get(name)) is not None:
            check_single(name, values, given.span)


def _check_pixels(tree: MappingTree, made: Preprocess) -> None:
    """Refuse statistics that make pixels between 0 and 1 too large for float32."""
    # Pixels reach from 0 to 1, so that the two ends bound what any image becomes.
    count = max(len(made.mean), len(made.std))
    means, stds = made.mean * (count // len(made.mean)), made.std * (count // len(made.std))
    for mean, std in zip(means, stds, strict=True):
        given = tree.get("std") or tree.get("mean")
        if given is not None and max(abs(mean), abs(1 - mean)) > LARGEST * std:
            message = f"pixels become infinite with the mean {mean:g} and the std {std:g}"
            raise fail("E0214", message, given.span, label="float32 ends at 3.4e38")


def read_outputs(
    tree: Tree | None, final: GraphValue, env: StepScope
) -> tuple[list[Output], list[Diagnostic]]:
    """Return the outputs that could be made, and what is wrong with the others.

    One without `from` is the value of its own name, else the last value of the graph.
    """
    assert isinstance(tree, MappingTree)
    outputs: list[Output] = []
    problems: list[Diagnostic] = []
    for key, body in tree.items:
        try:
            outputs.append(_output(key, body, final, env))
        except UserError as error:
            problems += error.diagnostics
    kept = [o for o in outputs if not o.train_only]
    # Nothing is kept, either, where what is wrong was said before: of a parameter, for one.
    if outputs and not kept and not problems:
        problems.append(
            Diagnostic(
                "E0232",
                "every output is `train_only`",
                tree.span,
                help="an artifact has only the others: take `train_only` off one",
            )
        )
    return outputs, problems


def _output(key: Scalar, body: Tree, final: GraphValue, env: StepScope) -> Output:
    name = str(key.value)
    settings = body if isinstance(body, MappingTree) else MappingTree((), key.span)
    source = settings.get("from")
    value = _source(name, source, final, env)
    labels = _value(LABELS, settings, env)
    if value.type is not None and labels:
        _check_labels(labels, value.type, settings)
    found = Output(
        name,
        value.name,
        _word(settings, "activation", get_args(OutputActivation), "none"),
        labels,
        _value(TRAIN_ONLY, settings, env),
        _word(settings, "kind", get_args(OutputKind), None),
    )
    if value.type is not None and (given := settings.get("kind")) is not None:
        check_kind(found, value.type, given)
    return found


def _word(settings: MappingTree, key: str, known: tuple[str, ...], default: Any) -> Any:
    """Return the value of a key, one of the words that the schema let pass."""
    given = settings.get(key)
    if given is None:
        return default
    assert isinstance(given, Scalar)
    assert given.value in known, given.value
    return given.value


def _source(name: str, given: Tree | None, final: GraphValue, env: StepScope) -> GraphValue:
    """Return the value of an output: what `from` names, else its own name's, else the last."""
    if isinstance(given, Scalar):
        return single_value(given, final, env)
    # `logits: {}` names a value where a step is called so, and is a name for the last one else.
    own = env.values.get(name, final)
    return own if isinstance(own, GraphValue) else final


def _check_labels(labels: tuple[str, ...], kind: TensorType, settings: MappingTree) -> None:
    given = settings.get("labels")
    assert given is not None
    if kind.shape != (len(labels),):
        raise fail(
            "E0233",
            "there must be one label for each class",
            given.span,
            label=f"{len(labels)} labels, the output is {kind}",
            help="set the number of classes and the labels together",
        )
    # Two classes of one name could not be told apart in any report.
    repeated = next((x for i, x in enumerate(labels) if x in labels[:i]), None)
    if repeated is not None:
        raise fail("E0233", f"the label `{repeated}` stands twice", given.span)
