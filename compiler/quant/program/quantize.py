"""Quantization of a lowered fp32 model to its int8 program, with overflow checks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tcc.compiler.ir.graph import Graph, Input, Model, Node, Output, verify
from tcc.compiler.ir.rewrite import eliminate_dead
from tcc.compiler.ir.types import DType, Pair, TensorType
from tcc.compiler.ops import Op, Relu, Relu6, ScaleShift
from tcc.compiler.ops.integer import Dequantize, IntegerSite, Quantize, quantize_op
from tcc.compiler.quant.calibration import Calibration, Float32, Range, RoundedWeights
from tcc.compiler.quant.rounding.nearest_rounding import compute_max_magnitude, round_nearest
from tcc.compiler.quant.scale_groups import MIN_SCALE, find_fused_clamps, find_output_values
from tcc.compiler.support.diagnostics import Diagnostic, UnhandledError, UserError, make_file_span

Tensors = tuple[NDArray[Any], ...]


def quantize(model: Model, calibration: Calibration) -> Model:
    """Return the int8 program of a lowered model: 8-bit values, int8 weights, int32 biases.

    With `float_io`, a convolution that only an output reads gives float32 directly if its sums are
    exact in float32. A value keeps its name; `<name>:real` is its dequantized form, and
    `<input>:levels` are the quantized values of a float input. An operation without an exact int8
    form stays in float, between a `dequantize` and a `quantize`.

    A sum is requantized as rint(float32(sum) * M) with M = float32(float32(x * w) / y) of the
    scales of input, weights and output. Each step is float32, as in ONNX Runtime and XNNPACK. A
    single rounding in float64 sometimes gives other results.

    Args:
        model: A lowered model, without equalized channels.
        calibration: Ranges of all its unfused values, and weights of its convolutions.

    Raises:
        UserError: A scale is invalid (E0801), or a sum could overflow (E0802). There is one error
            for each value or layer.
    """
    check_scales(model, calibration)
    rounded = {**round_nearest(model, calibration.ranges), **calibration.rounded}
    check_sums(model, calibration, rounded)
    quantizer = _Quantizer(model, calibration, rounded)
    for source in model.graph.inputs:
        quantizer.add_input(source)
    # A node with a fused clamp gets the clamp's name and position.
    clamp_by_source = {source: clamp for clamp, source in quantizer.clamps.items()}
    for node in model.graph.nodes:
        if node.name not in clamp_by_source:
            quantizer.quantize_node(node)
    return quantizer.build_model()


@dataclass
class _Quantizer:
    """Builder of the int8 program."""

    model: Model
    calibration: Calibration
    rounded: Mapping[str, RoundedWeights]
    nodes: dict[str, Node] = field(default_factory=dict)
    inputs: list[Input] = field(default_factory=list)
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)
    types: dict[str, TensorType] = field(default_factory=dict)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.clamps = find_fused_clamps(graph)
        self.by_name = {node.name: node for node in graph.nodes}
        self.quantized_names = {
            network_input.name: network_input.name for network_input in graph.inputs
        }
        self.output_values = find_output_values(graph)

    def add_input(self, network_input: Input) -> None:
        """Add an input: raw pixels directly, a float tensor with a `quantize`."""
        value_range = self.calibration.ranges[network_input.name]
        if network_input.preprocess is not None and network_input.preprocess.raw:
            kind = TensorType(network_input.type.shape, DType.U8, 1.0)
            self.inputs.append(replace(network_input, type=kind))
            self.types[network_input.name] = kind
            return
        self.inputs.append(network_input)
        self.types[network_input.name] = network_input.type
        self.quantized_names[network_input.name] = f"{network_input.name}:levels"
        self.add(
            self.quantized_names[network_input.name],
            _build_quantize(value_range, value_range.limits),
            (network_input.name,),
            (),
        )

    def quantize_node(self, node: Node) -> None:
        """Add the int8 form of a node, or its float form if it has none."""
        clamp, main_node = None, node
        if node.name in self.clamps:
            clamp, main_node = node.op, self.by_name[self.clamps[node.name]]
        output_range = self.calibration.ranges[node.name]
        bounds = _compute_bounds(output_range, clamp)
        if not self.calibration.in_float & {node.name, main_node.name}:
            inputs = tuple(
                self.quantized_names.get(input_name, input_name) for input_name in main_node.inputs
            )
            types = tuple(self.types[input_name] for input_name in inputs)
            form = quantize_op(
                main_node.op,
                self.build_site(main_node, types, output_range, bounds),
            )
            if form:
                op, params = form
                self.add(node.name, op, inputs, params, main_node)
                return
        self.add_float_node(node, main_node, _build_quantize(output_range, bounds))

    def build_site(
        self, node: Node, types: tuple[TensorType, ...], output_range: Range, bounds: Pair
    ) -> IntegerSite:
        """Return the context in which a node would become an int8 operation."""
        rounded_weights = self.rounded.get(node.name)
        weights = (
            (rounded_weights.weight, rounded_weights.scale, rounded_weights.bias)
            if rounded_weights
            else ()
        )
        return IntegerSite(
            types,
            (output_range.scale, output_range.signed, *bounds),
            self.calibration.float_io and node.name in self.output_values,
            weights,
            output_range.zero_point,
        )

    def add_float_node(self, node: Node, main_node: Node, quantization: Quantize) -> None:
        """Add a float operation with its clamp, and a `quantize` of the result.

        The `quantize` is removed later if nothing reads it. Outputs of the graph have none.
        """
        inputs = tuple(self.get_float_form(input_name) for input_name in main_node.inputs)
        param_arrays = tuple(self.model.weights[param] for param in main_node.params)
        float_name = node.name if node.name in self.output_values else f"{node.name}:float"
        if node is main_node:
            self.add(float_name, node.op, inputs, param_arrays, node)
        else:
            self.add(f"{main_node.name}:float", main_node.op, inputs, param_arrays, main_node)
            self.add(float_name, node.op, (f"{main_node.name}:float",), (), node)
        # Values that only outputs read stay in float.
        if node.name in self.output_values:
            return
        # Quantized channels are divided by their equalization factors; float weights are not.
        factor = self.calibration.factors.get(node.name)
        if factor is not None:
            float_name = self.add_scaling(
                f"{node.name}:equalised", float_name, np.float32(1) / factor
            )
        self.add(node.name, quantization, (float_name,), (), node)

    def get_float_form(self, value_name: str) -> str:
        """Return the name of a value's float form; it is added on first use."""
        if f"{value_name}:float" in self.nodes:
            return f"{value_name}:float"
        if value_name in self.nodes and self.types[value_name].scale is None:
            return value_name
        name = f"{value_name}:real"
        if name not in self.nodes:
            factor = self.calibration.factors.get(value_name)
            dequantized_name = name if factor is None else f"{value_name}:equal"
            self.add(
                dequantized_name,
                Dequantize(),
                (self.quantized_names.get(value_name, value_name),),
                (),
            )
            if factor is not None:
                self.add_scaling(name, dequantized_name, factor)
        return name

    def add_scaling(self, name: str, input_name: str, factor: Float32) -> str:
        """Add a multiplication of a float value's channels; return its name."""
        shape = ScaleShift().params(self.types[input_name])[0].shape
        factor = factor.astype(np.float32).reshape(shape)
        self.add(name, ScaleShift(), (input_name,), (factor, np.zeros_like(factor)))
        return name

    def add(
        self,
        name: str,
        op: Op,
        inputs: tuple[str, ...],
        params: Tensors,
        origin: Node | None = None,
    ) -> None:
        """Add a node and its weights."""
        types = tuple(self.types[input_name] for input_name in inputs)
        names = tuple(f"{name}.{param.role}" for param in op.params(*types))
        node = Node(name, op, inputs, names, op.infer(*types))
        self.nodes[name] = replace(node, at=origin.at) if origin else node
        self.types[name] = node.type
        self.weights.update(zip(names, params, strict=True))

    def build_model(self) -> Model:
        """Return the model; each output is the float form of its value."""
        graph = self.model.graph
        outputs: list[Output] = [
            replace(output, value=self.get_float_form(output.value)) for output in graph.outputs
        ]
        int8_graph = Graph(
            graph.name, tuple(self.inputs), tuple(self.nodes.values()), tuple(outputs)
        )
        verify(int8_graph)
        return eliminate_dead(Model(int8_graph, self.weights))


def _build_quantize(value_range: Range, bounds: Pair) -> Quantize:
    scale, signed = value_range.scale, value_range.signed
    return Quantize(scale, signed, *bounds, zero_point=value_range.zero_point)


def _compute_bounds(value_range: Range, clamp: Op | None) -> tuple[int, int]:
    """Return the bounds of a value's quantized values, with its clamp."""
    low, high = value_range.limits
    match clamp:
        case Relu():
            return max(low, 0), high
        case Relu6():
            return max(low, 0), min(high, int(np.rint(6 / np.float64(value_range.scale))))
        case None:
            return low, high
        case _:
            raise UnhandledError("clamp", clamp.keyword)


HELP = "calibrate again with images of the kind that the network is used for"
MAX_SUM = (1 << 31) - 1


def check_scales(model: Model, calibration: Calibration) -> None:
    """Check that all scales are valid.

    Raises:
        UserError: E0801 for each invalid scale.
    """
    _raise_problems(_find_scale_problems(model, calibration))


def check_sums(
    model: Model, calibration: Calibration, rounded: Mapping[str, RoundedWeights]
) -> None:
    """Check that no sum of a convolution can overflow, for any input of its type.

    Args:
        model: A lowered model.
        calibration: The ranges of its convolutions' inputs.
        rounded: Quantized weights and biases by convolution.

    Raises:
        UserError: E0802 for each layer that could overflow.
    """
    _raise_problems(_find_sum_problems(model, calibration, rounded))


def _raise_problems(diagnostics: Iterator[Diagnostic]) -> None:
    problems = tuple(diagnostics)
    if problems:
        raise UserError(problems)


def _find_scale_problems(model: Model, calibration: Calibration) -> Iterator[Diagnostic]:
    span_by_node = {node.name: node.at for node in model.graph.nodes}
    for name, value_range in calibration.ranges.items():
        if not MIN_SCALE <= value_range.scale < np.inf:
            message = (
                f"the scale of `{name}` is {value_range.scale:g}, but it must be finite and at "
                f"least {MIN_SCALE:.2g}"
            )
            at = span_by_node.get(name, make_file_span(model.graph.name))
            label = "this layer's output" if name in span_by_node else "the network's input"
            yield Diagnostic("E0801", message, at, label, help=HELP)
    for name, rounded_weights in calibration.rounded.items():
        if not ((rounded_weights.scale >= MIN_SCALE) & np.isfinite(rounded_weights.scale)).all():
            message = f"a weight scale of `{name}` is below {MIN_SCALE:.2g} or not finite"
            yield Diagnostic(
                "E0801", message, span_by_node[name], "this layer's weights", help=HELP
            )


def _find_sum_problems(
    model: Model, calibration: Calibration, rounded: Mapping[str, RoundedWeights]
) -> Iterator[Diagnostic]:
    node_by_name = {node.name: node for node in model.graph.nodes}
    for name, rounded_weights in rounded.items():
        input_range = calibration.ranges[node_by_name[name].inputs[0]]
        # The worst input has the largest magnitude everywhere, with the sign of its weight. No
        # partial sum exceeds the sum of magnitudes, in any order. int64 cannot overflow here.
        total = np.abs(
            rounded_weights.weight.reshape(len(rounded_weights.weight), -1).astype(np.int64)
        ).sum(axis=1)
        max_sums = total * compute_max_magnitude(input_range) + np.abs(
            rounded_weights.bias.astype(np.int64)
        )
        if (max_sums > MAX_SUM).any():
            message = f"the sums of `{name}` could overflow 32 bits"
            label = f"they can reach {int(max_sums.max()):,}, and the limit is {MAX_SUM:,}"
            yield Diagnostic("E0802", message, node_by_name[name].at, label, help=HELP)
