"""The inputs and outputs of a spec: shapes, preprocessing, labels."""

from typing import Any, assert_never, get_args

from tcc.compiler.frontend.argument_values import MAX_FLOAT32, check_single, evaluate_argument
from tcc.compiler.frontend.expr import Unknown
from tcc.compiler.frontend.expr.operators import GraphValue
from tcc.compiler.frontend.size_limits import MAX_ELEMENTS
from tcc.compiler.frontend.step_scope import StepScope, lookup_single_value
from tcc.compiler.frontend.suggestions import to_channels_first
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
    compute_output_shape,
)
from tcc.compiler.ir.types import OutputActivation, OutputKind, TensorType
from tcc.compiler.support.diagnostics import Diagnostic, UserError, fail


def check_kind(output: Output, tensor_type: TensorType, kind_tree: Tree) -> None:
    """Refuse a `kind:` that contradicts the activation or shape of the output.

    Raises:
        UserError: The kind contradicts them (E0235).
    """
    match output.kind:
        case None:
            return
        case "classes":
            # With one value, the class would always be the first.
            if tensor_type.shape[0] < 2:
                help = "for one value, write `kind: decisions` with `activation: sigmoid`"
                raise _create_kind_error(
                    output, kind_tree, f"the output is {tensor_type}: one value", help
                )
        case "decisions":
            # Decisions need independent probabilities; those of a softmax depend on each other.
            if output.activation != "sigmoid":
                label = f"its activation is `{output.activation}`, but decisions are probabilities"
                help = "write `activation: sigmoid`: each value gets its own probability"
                raise _create_kind_error(output, kind_tree, label, help)
        case "regression":
            if output.activation == "softmax":
                help = "write `activation: none`, or remove `kind`"
                raise _create_kind_error(
                    output, kind_tree, "softmax outputs are shares of classes", help
                )
        case _:
            assert_never(output.kind)


def _create_kind_error(output: Output, kind_tree: Tree, label: str, help: str) -> UserError:
    message = f"`{output.name}` cannot be of kind `{output.kind}`"
    return fail("E0235", message, kind_tree.span, label=label, help=help)


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
        UserError: The shape or the preprocessing is invalid, or they do not match.
    """
    assert isinstance(tree, MappingTree)
    key, body = tree.items[0]
    assert isinstance(body, MappingTree)
    shape_tree = body.get("shape")
    assert shape_tree is not None
    shape = _evaluate_argument(SHAPE, body, env)
    if len(shape) != 3 or not all(isinstance(n, int) and not isinstance(n, bool) for n in shape):
        raise fail("E0213", "`shape` must be [channels, height, width]", shape_tree.span)
    source = Input(str(key.value), TensorType(shape), None)
    if source.type.elements > MAX_ELEMENTS:
        label = f"{source.type.elements:,} elements, the limit is {MAX_ELEMENTS:,}"
        help = "use a smaller height and width"
        raise fail("E0405", "the input is too large", shape_tree.span, label=label, help=help)
    steps = body.get("preprocess")
    if not isinstance(steps, MappingTree):
        return source
    return Input(source.name, source.type, _read_preprocess(steps, source.type, env))


def _evaluate_argument(p: Parameter, tree: MappingTree, env: StepScope) -> Any:
    argument_tree = tree.get(p.name)
    if argument_tree is None:
        return p.default
    value = evaluate_argument(
        p, argument_tree, env.create_expression_scope(GraphValue("", TensorType(())))
    )
    if isinstance(value, Unknown):
        # Empty: the cause of the unknown value is already reported.
        raise UserError()
    return value


def _read_preprocess(tree: MappingTree, tensor_type: TensorType, env: StepScope) -> Preprocess:
    resize = tree.get("resize")
    pixel_resize = None
    if isinstance(resize, MappingTree):
        mode = _evaluate_argument(MODE, resize, env)
        size = _evaluate_argument(SIZE, resize, env)
        # `none` is for parameters: with it, `--set` can turn resizing off.
        pixel_resize = None if mode == "none" else PixelResize(size, mode)
    crop = _evaluate_argument(CROP, tree, env) if tree.get("crop") is not None else None
    preprocess = Preprocess(
        _evaluate_argument(COLOR, tree, env),
        pixel_resize,
        crop,
        _evaluate_numbers(MEAN, tree, env),
        _evaluate_numbers(STD, tree, env),
        scale=_evaluate_argument(SCALE, tree, env),
    )
    channels, *size = tensor_type.shape
    _check_statistics(tree, preprocess, channels)
    produced_channels = preprocess.channels
    output_shape = compute_output_shape(preprocess)
    if channels != produced_channels or (
        output_shape is not None and tuple(output_shape[-2:]) != tuple(size)
    ):
        produced_shape = "x".join(
            map(str, (produced_channels, *(output_shape[-2:] if output_shape else size)))
        )
        raise fail(
            "E0234",
            "preprocessing does not produce the shape of the input",
            tree.span,
            label=f"it produces {produced_shape}, `shape` is {tensor_type}",
            help=_describe_shape_fix(preprocess.color, produced_channels, tensor_type),
        )
    return preprocess


def _describe_shape_fix(color: str, produced_channels: int, tensor_type: TensorType) -> str:
    """Return how to make the shape and the preprocessing match."""
    channels, height, width = tensor_type.shape
    if corrected_shape := to_channels_first(tensor_type.shape):
        return f"channels come first: write `shape: {corrected_shape}`"
    if channels != produced_channels:
        other_color = "rgb" if channels == 3 else "gray"
        fits = f", or `color: {other_color}`" if channels in (1, 3) else ""
        channel_text = "one channel" if produced_channels == 1 else "three channels"
        return (
            f"`color: {color}` gives {channel_text}: write `shape: [{produced_channels}, "
            f"{height}, {width}]`{fits}"
        )
    return "set `resize.size` or `crop` to the height and width of the input"


def _evaluate_numbers(p: Parameter, tree: MappingTree, env: StepScope) -> tuple[float, ...]:
    numbers = _evaluate_argument(p, tree, env)
    if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers):
        argument_tree = tree.get(p.name)
        assert argument_tree is not None
        raise fail("E0213", f"`{p.name}` must be a list of numbers", argument_tree.span)
    return tuple(float(v) for v in numbers)


def _check_statistics(tree: MappingTree, preprocess: Preprocess, channels: int) -> None:
    for name, numbers in (("mean", preprocess.mean), ("std", preprocess.std)):
        argument_tree = tree.get(name)
        if argument_tree is None:
            continue
        if len(numbers) not in (1, channels):
            raise fail(
                "E0213",
                f"`{name}` needs one number, or one for each of {channels} channels",
                argument_tree.span,
                label=f"this has {len(numbers)}",
            )
        if not all(abs(v) < float("inf") for v in numbers) or (
            name == "std" and not all(v > 0 for v in numbers)
        ):
            raise fail(
                "E0214",
                f"`{name}` must be finite" + " and above 0" * (name == "std"),
                argument_tree.span,
            )
    _check_pixels(tree, preprocess)
    for name, numbers in (("mean", preprocess.mean), ("std", preprocess.std)):
        if (argument_tree := tree.get(name)) is not None:
            check_single(name, numbers, argument_tree.span)


def _check_pixels(tree: MappingTree, preprocess: Preprocess) -> None:
    """Refuse statistics that make pixels between 0 and 1 too large for float32."""
    # Pixels are between 0 and 1, so the two ends bound all results.
    count = max(len(preprocess.mean), len(preprocess.std))
    means, stds = (
        preprocess.mean * (count // len(preprocess.mean)),
        preprocess.std * (count // len(preprocess.std)),
    )
    for mean, std in zip(means, stds, strict=True):
        argument_tree = tree.get("std") or tree.get("mean")
        if argument_tree is not None and max(abs(mean), abs(1 - mean)) > MAX_FLOAT32 * std:
            message = f"pixels become infinite with the mean {mean:g} and the std {std:g}"
            raise fail("E0214", message, argument_tree.span, label="the largest float32 is 3.4e38")


def read_outputs(
    tree: Tree | None, final: GraphValue, env: StepScope
) -> tuple[list[Output], list[Diagnostic]]:
    """Return the valid outputs, and the errors of the others.

    An output without `from` is the value of its name, or else the last value of the graph.
    """
    assert isinstance(tree, MappingTree)
    outputs: list[Output] = []
    problems: list[Diagnostic] = []
    for key, body in tree.items:
        try:
            outputs.append(_read_output(key, body, final, env))
        except UserError as error:
            problems += error.diagnostics
    inference_outputs = [o for o in outputs if not o.train_only]
    # An earlier error, such as that of a parameter, can also leave no output.
    if outputs and not inference_outputs and not problems:
        problems.append(
            Diagnostic(
                "E0232",
                "every output is `train_only`",
                tree.span,
                help="an artifact only has the other outputs: remove `train_only` from one",
            )
        )
    return outputs, problems


def _read_output(key: Scalar, body: Tree, final: GraphValue, env: StepScope) -> Output:
    name = str(key.value)
    settings = body if isinstance(body, MappingTree) else MappingTree((), key.span)
    source = settings.get("from")
    graph_value = _find_source(name, source, final, env)
    labels = _evaluate_argument(LABELS, settings, env)
    if graph_value.type is not None and labels:
        _check_labels(labels, graph_value.type, settings)
    output = Output(
        name,
        graph_value.name,
        _read_choice(settings, "activation", get_args(OutputActivation), "none"),
        labels,
        _evaluate_argument(TRAIN_ONLY, settings, env),
        _read_choice(settings, "kind", get_args(OutputKind), None),
    )
    if graph_value.type is not None and (kind_tree := settings.get("kind")) is not None:
        check_kind(output, graph_value.type, kind_tree)
    return output


def _read_choice(settings: MappingTree, key: str, choices: tuple[str, ...], default: Any) -> Any:
    """Return the value of a key; the schema has checked it against the choices."""
    choice_tree = settings.get(key)
    if choice_tree is None:
        return default
    assert isinstance(choice_tree, Scalar)
    assert choice_tree.value in choices, choice_tree.value
    return choice_tree.value


def _find_source(
    name: str, source_tree: Tree | None, final: GraphValue, env: StepScope
) -> GraphValue:
    """Return the value of an output: that of `from`, that of its name, or the last one."""
    if isinstance(source_tree, Scalar):
        return lookup_single_value(source_tree, final, env)
    # `logits: {}` refers to the value `logits` if a step has that name, or else to the last.
    named_value = env.values.get(name, final)
    return named_value if isinstance(named_value, GraphValue) else final


def _check_labels(labels: tuple[str, ...], tensor_type: TensorType, settings: MappingTree) -> None:
    labels_tree = settings.get("labels")
    assert labels_tree is not None
    if tensor_type.shape != (len(labels),):
        raise fail(
            "E0233",
            "there must be one label for each class",
            labels_tree.span,
            label=f"{len(labels)} labels, the output is {tensor_type}",
            help="write one label for each value of the output, or change the number of values",
        )
    # Reports could not distinguish two classes of one name.
    repeated = next((label for i, label in enumerate(labels) if label in labels[:i]), None)
    if repeated is not None:
        raise fail(
            "E0233",
            f"the label `{repeated}` appears twice",
            labels_tree.span,
            help="give each class its own label",
        )
