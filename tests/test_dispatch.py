"""No dispatch on a name or type silently falls through to another case."""

import ast
import platform
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from tcc.backends import BACKENDS
from tcc.backends.arm import machine
from tcc.backends.onnxruntime.precision_conversion import encode_onnx
from tcc.backends.tflite.backend import TfLite
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.argument_declarations import Kind, list_parameters
from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ir.precision import Precision
from tcc.compiler.ir.preprocess import COLORS, MODES, SCALES, Preprocess
from tcc.compiler.ir.types import DType, OutputActivation, OutputKind, TensorType
from tcc.compiler.lower.onnx import lower
from tcc.compiler.ops import OPS, Resize
from tcc.compiler.quant.methods import METHODS
from tcc.compiler.reference import output_activations
from tcc.compiler.support.diagnostics import UnhandledError
from tcc.testing.nets import NetBuilder, build_dense
from tcc.testing.op_cases import sample_weights

(LITE,) = TfLite().targets
ROOT = Path(__file__).resolve().parents[1]
FILES = ("compiler/**/*.py", "backends/**/*.py", "tools/**/*.py", "src/tcc/*.py")


@pytest.mark.parametrize(
    "form", [partial(encode_onnx, opset=17), lambda model, kind: TfLite().emit(LITE, model, kind)]
)
def test_an_unsupported_precision_is_refused(form):
    graph = build_dense()
    with pytest.raises(KeyError, match="int4"):
        form(Model(graph, sample_weights(graph)), Precision("int4", "half of eight"))


PIXELS = np.zeros((4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("contract", "message"),
    [
        (Preprocess(color="cmyk"), "colour 'cmyk'"),
        (Preprocess(scale="mean"), "pixel scale 'mean'"),
        (Preprocess(resize=preprocess.PixelResize((4, 4), "contain")), "resize mode 'contain'"),
    ],
)
def test_an_unsupported_input_contract_is_refused(contract, message):
    with pytest.raises(UnhandledError, match=f"handle the {message}"):
        preprocess.apply(contract, PIXELS, (3, 4, 4))


def test_an_unsupported_resize_mode_is_refused():
    add = NetBuilder(3, 4, 4)
    add("resize", Resize((8, 8), mode="bicubic"))
    graph = add.build()
    kind, op = graph.inputs[0].type, graph.nodes[0].op
    for run in (
        lambda: lower(Model(graph, {})),
        lambda: op.torch(kind),
        lambda: op.moves,
    ):
        with pytest.raises(UnhandledError, match="handle the resize mode 'bicubic'"):
            run()


def test_an_unsupported_activation_is_refused():
    with pytest.raises(AssertionError, match="softplus"):
        output_activations.apply_activation("softplus", np.zeros(3))
    with pytest.raises(AssertionError, match="softplus"):
        _ = Output("y", "x", "softplus").meaning


@pytest.mark.parametrize(
    ("family", "expected_targets"), [("x86_64", ["host"]), ("aarch64", ["host"]), ("riscv64", [])]
)
def test_an_unsupported_host_processor_is_refused(monkeypatch, family, expected_targets):
    monkeypatch.setattr(platform, "machine", lambda: family)
    assert [host_machine.target.name for host_machine in machine._create_host()] == expected_targets


def test_float_types_have_no_integer_limits():
    with pytest.raises(UnhandledError, match="handle the 8-bit type 'float32'"):
        _ = TensorType((3,)).limits
    assert replace(TensorType((3,)), dtype=DType.I8).limits == (-128, 127)


@cache
def parse_sources():
    files = (path for pattern in FILES for path in sorted(ROOT.glob(pattern)))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in files}


@cache
def list_enums():
    """Return the names of all enumerations."""
    classes = (
        n
        for tree in parse_sources().values()
        for n in ast.walk(tree)
        if isinstance(n, ast.ClassDef)
    )
    return {c.name for c in classes if any(ast.unparse(b).endswith("Enum") for b in c.bases)}


@cache
def list_closed_names():
    """Return all names of closed sets: keywords of specs, targets and command lines."""
    choices = (p for op in OPS for p in list_parameters(op) if p.kind is Kind.ENUM)
    fixed_names = (
        *get_args(OutputActivation),
        *get_args(OutputKind),
        *(method.name for method in METHODS),
    )
    precisions = {p.name for b in BACKENDS for target in b.targets for p in target.precisions}
    names = {
        *fixed_names,
        *precisions,
        *COLORS,
        *MODES,
        *SCALES,
        "same",
        "u8u8",
        "u8s8",
        "gnu",
        "musl",
        "Max",
    }
    return names | {choice for p in choices for choice in p.choices}


def is_of_set(node):
    """Whether an expression is a name of a closed set, or a tuple with one."""
    match node:
        case ast.Constant(value=str(constant)):
            return constant in list_closed_names()
        case ast.Attribute(value=ast.Name(id=name)):
            return name in list_enums()
        case ast.Tuple(elts=parts) | ast.Set(elts=parts) | ast.List(elts=parts):
            return any(map(is_of_set, parts))
    return False


YES_OR_NO = {
    "whether there is an activation": {"activation none", "activation softmax, sigmoid"},
    "what an activation rules out, or a paper counts": {
        "activation sigmoid", "activation softmax",
    },
    "what a softmax ignores": {"meaning classes", "kind classes"},
    "whether an output gives a decision": {"meaning regression"},
    "whether the accuracy on a card is of this precision": {"precision int8"},
    "whether signatures are required from now on": {"switch Switch.ON"},
    "whether a fuzzed project file is unchanged": {"change none"},
    "whether each output is a decision": {"kind decisions", "meaning decisions"},
    "whether many units are measured together, so that one can hide another": {"kind regression"},
    "whether values are quantized, and signed": {
        "dtype DType.F32", "dtype DType.I8, DType.U8", "dtype DType.I8", "dtype DType.U8", "dtype int8",
    },
    "whether the spec resizes": {"mode none"},
    "what nearest resizing requires of sizes, or an imported file may contain": {
        "mode nearest", "policy stretch",
    },
    "whether pixels are used unscaled, or as imported weights expect them": {
        "scale 255", "color rgb", "color rgb, bgr",
    },
    "whether padding is a keyword": {"v same", "padding same"},
    "what else a kind of argument accepts, or how it is described": {
        "kind Kind.LIST", "kind Kind.ENUM", "kind Kind.STRING", "kind Kind.PADDING",
        "kind Kind.NAMES", "kind Kind.BOOL", "kind Kind.INT", "kind Kind.INT, Kind.PAIR, Kind.PADDING", "kind Kind.PAIR, Kind.PADDING",
        "k Kind.ANY",
    },
    "whether an option applies to the shown stage": {
        "format GraphFormat.TEXT", "format GraphFormat.ONNX", "format TableFormat.TEXT", "stage Stage.INT8",
        "stage Stage.SPEC",
    },
    "whether a sequence has names of its own, or those of one alternative": {
        "role SequenceRole.CHOICE", "role SequenceRole.ISOLATED",
    },
    "what is printed next to a paper's figure": {
        "agreement PrintedMatch.EQUAL", "agreement PrintedMatch.NONE",
    },
    "whether files, which are RGB or grey, have the network's order of colors": {
        "color bgr", "color gray", "CONTRACT['color'] gray", "CONTRACT['color'] bgr",
    },
    "whether a kernel has space for the gathered taps of a map": {"gather_mode GatherMode.MAP"},
    "whether each image has its own scale": {"scale max"},
    "what a Cortex-A7 issues with another instruction, or before its sum is read": {
        "kind InstructionKind.ALU", "kind InstructionKind.FLOAT_ACCUMULATE, InstructionKind.LONG_MULTIPLY",
    },
    "which of the two builds of a peer is measured": {"form fp32", "form int8"},
}  # fmt: skip
"""Comparisons that treat all other names equally, by the question that they answer. Any other
comparison must be a `match` that ends in `assert_never` or raises `UnhandledError`."""
PARTIAL = {
    "backends/arm/measure/instructions.py": "what takes one cycle, as all but three kinds do",
    "compiler/frontend/argument_values.py": "what is used unchanged; all else is an expression",
    "backends/pulsar/rewrite.py": "a node that it does not rewrite is unchanged",
    "compiler/passes/fuse_clamps.py": "an unknown range is all numbers",
}
"""Matches that may omit names."""


def format_question(node):
    """Return the last name of the compared expression, and the names it is compared with."""
    operands = (node.left, *node.comparators)
    names = [
        operand
        for compared in operands
        if is_of_set(compared)
        for operand in getattr(compared, "elts", (compared,))
    ]
    subject = next((compared for compared in operands if not is_of_set(compared)), node.left)
    subject_name = ast.unparse(subject).rpartition(".")[2]
    return f"{subject_name} {', '.join(ast.unparse(operand).strip(chr(39)) for operand in names)}"


def test_comparisons_with_enum_values_are_yes_or_no_questions():
    allowed_questions = {comparison for questions in YES_OR_NO.values() for comparison in questions}
    comparisons = [
        (f"{name}:{node.lineno}", format_question(node))
        for name, tree in parse_sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and any(map(is_of_set, (node.left, *node.comparators)))
    ]
    assert [
        comparison for comparison in comparisons if comparison[1] not in allowed_questions
    ] == []


def is_total(block, index):
    """Whether a match is total: its last case or the following code raises."""
    *_, last_case = block[index].cases
    every = isinstance(last_case.pattern, ast.MatchAs) and not last_case.pattern.pattern
    next_nodes = last_case.body if every and not last_case.guard else block[index + 1 : index + 2]
    return bool(next_nodes) and (
        "assert_never" in ast.unparse(next_nodes[0]) or isinstance(next_nodes[0], ast.Raise)
    )


def iterate_blocks(tree):
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                yield block


def test_every_match_statement_is_total():
    open_ones = [
        (name, block[index].lineno)
        for name, tree in parse_sources().items()
        for block in iterate_blocks(tree)
        for index, node in enumerate(block)
        if isinstance(node, ast.Match)
        and any(
            isinstance(pattern_node, ast.MatchValue) and is_of_set(pattern_node.value)
            for case in node.cases
            for pattern_node in ast.walk(case.pattern)
        )
        and name not in PARTIAL
        and not is_total(block, index)
    ]
    assert open_ones == []
