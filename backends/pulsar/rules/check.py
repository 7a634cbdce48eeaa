"""Checks an ONNX file against the rules of a chip, independently of the code that wrote it."""

from collections.abc import Iterator, Mapping

import onnx
from onnx import TensorProto

from tcc.backends.pulsar.chips import AX620, AX620E, AX650, Chip
from tcc.backends.pulsar.rules.operator import OnnxOperator, read_operators, read_shape
from tcc.backends.pulsar.rules.pulsar2_rules import AX620E_BOOK, AX650_BOOK
from tcc.backends.pulsar.rules.pulsar_rules import PULSAR_BOOK
from tcc.backends.pulsar.rules.rule import Finding, Processor, RuleBook, Severity

RULE_BOOKS: Mapping[Chip, RuleBook] = {AX620: PULSAR_BOOK, AX620E: AX620E_BOOK, AX650: AX650_BOOK}
"""The rules of each chip."""
PROCESSOR_REMARKS: Mapping[Processor, str] = {
    Processor.NPU: "",
    Processor.EITHER: "it may run on the CPU",
    Processor.CPU: "it runs on the CPU",
}
REFUSED = frozenset({Severity.REFUSED})
"""The severities that make a file unusable."""
MAX_IR_VERSION = 7
"""The newest IR version in logs of the toolchains."""


class RuleError(AssertionError):
    """A file breaks a rule although its graph passed: a defect of the compiler, not of the user."""


def verify(files: Mapping[str, bytes], chip: Chip) -> None:
    """Check every ONNX file of a package.

    Raises:
        RuleError: A file breaks a rule.
    """
    for path, content in files.items():
        findings = check_file(content, chip) if path.endswith(".onnx") else ()
        for finding in findings:
            if finding.severity in REFUSED:
                raise RuleError(f"{path} for {chip.target}: {finding}")


def check_file(content: bytes, chip: Chip) -> tuple[Finding, ...]:
    """Return the rules of a chip that an ONNX file breaks, in the order of its operators."""
    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # protobuf's exception type, which onnx does not export
        return (_make_file_finding("it is not an ONNX model", "files are ONNX models"),)
    return check(model, chip)


def check(model: onnx.ModelProto, chip: Chip) -> tuple[Finding, ...]:
    """Return the rules of a chip that an ONNX model breaks."""
    book = RULE_BOOKS[chip]
    findings = [*_check_model(model, book), *_check_io(model.graph), *_check_order(model.graph)]
    try:
        onnx_operators = read_operators(model)
    except Exception as error:  # ONNX has its own exception type for each cause
        error_lines = str(error).strip().splitlines()
        return (
            *findings,
            _make_file_finding(
                f"ONNX cannot infer its shapes: {error_lines[-1] if error_lines else ''}"[:200],
                "shapes and types are consistent",
            ),
        )
    if not onnx_operators:
        findings.append(
            _make_file_finding("it has no operator", "files have at least one operator")
        )
    return (*findings, *(finding for op in onnx_operators for finding in _check_operator(op, book)))


def _check_model(model: onnx.ModelProto, book: RuleBook) -> Iterator[Finding]:
    """Yield findings on versions, and on content other than standard operators."""
    opsets = {opset_import.domain: opset_import.version for opset_import in model.opset_import}
    opset = opsets.pop("", 0)
    max_opset = book.max_opset or opset
    if not book.min_opset <= opset <= max_opset:
        bounds = (
            f"{book.min_opset} to {book.max_opset}"
            if book.max_opset
            else f"{book.min_opset} or later"
        )
        yield _make_file_finding(
            f"its opset is {opset}", f"rule opset: {bounds} ({book.opset_source})"
        )
    if opsets or model.functions or model.graph.sparse_initializer:
        yield _make_file_finding(
            "it has custom operators, functions or sparse constants",
            "files have only standard ONNX operators",
        )
    if model.ir_version > MAX_IR_VERSION:
        yield _make_file_finding(
            f"its IR version is {model.ir_version}",
            f"IR versions up to {MAX_IR_VERSION} are known to work",
            Severity.DOUBTFUL,
        )


def _check_io(graph: onnx.GraphProto) -> Iterator[Finding]:
    """Yield inputs and outputs that are not float32 of a fixed shape."""
    initializers = {tensor.name for tensor in graph.initializer}
    for value_info in (*graph.input, *graph.output):
        shape = read_shape(value_info)
        if value_info.name in initializers:
            yield _make_file_finding(
                f"`{value_info.name}` is an input and a constant", "inputs are not constants"
            )
        elif shape is None or not all(shape):
            yield _make_file_finding(
                f"the shape of `{value_info.name}` is not fixed", "shapes are fixed"
            )
        elif value_info.type.tensor_type.elem_type != TensorProto.FLOAT:
            yield _make_file_finding(
                f"`{value_info.name}` is not float32", "inputs and outputs are float32"
            )


def _check_order(graph: onnx.GraphProto) -> Iterator[Finding]:
    """Yield values that are defined twice, or read before they are defined."""
    defined = {value_info.name for value_info in (*graph.input, *graph.initializer)}
    for node in graph.node:
        for name in node.input:
            if name and name not in defined:
                yield _make_file_finding(
                    f"`{node.name}` reads `{name}`, which is not defined before it",
                    "values are defined before they are read",
                )
        for name in node.output:
            if name in defined:
                yield _make_file_finding(f"`{name}` is defined twice", "each value is defined once")
            defined.add(name)
    for output in graph.output:
        if output.name not in defined:
            yield _make_file_finding(
                f"no operator computes the output `{output.name}`", "outputs are computed"
            )


def _check_operator(op: OnnxOperator, book: RuleBook) -> Iterator[Finding]:
    processor = book.processors.get(op.kind) if op.domain in ("", "ai.onnx") else None
    if processor is None:
        rule = f"rule operators: {book.unlisted_text} ({book.operator_list})"
        remedy = book.alternatives.get(op.kind, "use other layers there")
        yield _make_finding(op, f"{op.kind} is not listed", rule, remedy)
        return
    if remark := PROCESSOR_REMARKS[processor]:
        rule = f"rule places: {op.kind} runs on the {processor.value} ({book.operator_list})"
        remedy = "look in the vendor toolchain's log for parts that run on the CPU"
        yield _make_finding(op, remark, rule, remedy, Severity.DOUBTFUL)
    if any(output.shape is None or not all(output.shape) for output in op.outputs):
        yield _make_finding(
            op,
            "its output has no fixed shape",
            "shapes are fixed",
            "give every dimension a fixed size",
        )
    for npu_rule in book.rules:
        if op.kind in npu_rule.operators and (violation := npu_rule.check(op)):
            yield _make_finding(op, violation, str(npu_rule), npu_rule.remedy, npu_rule.severity)


def _make_finding(
    op: OnnxOperator, message: str, rule: str, remedy: str, severity: Severity = Severity.REFUSED
) -> Finding:
    return Finding(severity, op.name, op.kind, message, rule, remedy)


def _make_file_finding(message: str, rule: str, severity: Severity = Severity.REFUSED) -> Finding:
    return Finding(severity, "", "", message, rule, "")
