"""The check of an ONNX file by the rules of a chip: it knows the file alone, not what wrote it."""

from collections.abc import Iterator, Mapping

import onnx
from onnx import TensorProto

from tcc.backends.pulsar.chips import AX620, AX620E, AX650, Chip
from tcc.backends.pulsar.rules.operator import OnnxOperator, operators, sizes
from tcc.backends.pulsar.rules.pulsar2_rules import AX620E_BOOK, AX650_BOOK
from tcc.backends.pulsar.rules.pulsar_rules import PULSAR
from tcc.backends.pulsar.rules.rule import Finding, Processor, RuleBook, Severity

BOOKS: Mapping[Chip, RuleBook] = {AX620: PULSAR, AX620E: AX620E_BOOK, AX650: AX650_BOOK}
"""The rules of each chip."""
ELSEWHERE: Mapping[Processor, str] = {
    Processor.NPU: "",
    Processor.EITHER: "it may run on the CPU",
    Processor.CPU: "it runs on the CPU",
}
REFUSED = frozenset({Severity.REFUSED})
"""What a file may not break."""
NEWEST_IR = 7
"""The newest version of the file format that logs of the toolchains show."""


class RuleError(AssertionError):
    """A file breaks a rule that its graph kept: a fault of the compiler, never of the user."""


def verify(files: Mapping[str, bytes], chip: Chip) -> None:
    """Refuse the networks among files that a toolchain would.

    Raises:
        RuleError: One breaks a rule.
    """
    for path, data in files.items():
        broken = check_file(data, chip) if path.endswith(".onnx") else ()
        for each in broken:
            if each.severity in REFUSED:
                raise RuleError(f"{path} for {chip.target}: {each}")


def check_file(data: bytes, chip: Chip) -> tuple[Finding, ...]:
    """Return the rules of a chip that an ONNX file breaks, in the order of its operators."""
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf's own, which onnx does not name
        return (_file("it is no ONNX model", "files are ONNX models"),)
    return check(model, chip)


def check(model: onnx.ModelProto, chip: Chip) -> tuple[Finding, ...]:
    """Return the rules of a chip that an ONNX model breaks."""
    book = BOOKS[chip]
    found = [*_envelope(model, book), *_ends(model.graph), *_order(model.graph)]
    try:
        read = operators(model)
    except Exception as error:  # ONNX has exception types of its own, and one for each cause
        why = str(error).strip().splitlines()
        return (*found, _file(f"ONNX cannot infer its shapes: {why[-1] if why else ''}"[:200],
                              "shapes and types fit each other"))  # fmt: skip
    if not read:
        found.append(_file("it has no operator", "there is something to run"))
    return (*found, *(each for one in read for each in _operator(one, book)))


def _envelope(model: onnx.ModelProto, book: RuleBook) -> Iterator[Finding]:
    """Yield what is wrong with versions and what the file holds beside operators."""
    opsets = {each.domain: each.version for each in model.opset_import}
    opset = opsets.pop("", 0)
    newest = book.newest or opset
    if not book.oldest <= opset <= newest:
        bounds = f"{book.oldest} to {book.newest}" if book.newest else f"{book.oldest} or later"
        yield _file(f"its opset is {opset}", f"rule opset: {bounds} ({book.opset})")
    if opsets or model.functions or model.graph.sparse_initializer:
        yield _file("it has operators or constants of its own", "files hold ONNX operators alone")
    if model.ir_version > NEWEST_IR:
        yield _file(f"its IR version is {model.ir_version}", f"up to {NEWEST_IR} is known to work",
                    Severity.DOUBTFUL)  # fmt: skip


def _ends(graph: onnx.GraphProto) -> Iterator[Finding]:
    """Yield inputs and outputs without a fixed shape of floats."""
    stored = {tensor.name for tensor in graph.initializer}
    for info in (*graph.input, *graph.output):
        shape = sizes(info)
        if info.name in stored:
            yield _file(f"`{info.name}` is an input and a constant", "inputs come from outside")
        elif shape is None or not all(shape):
            yield _file(f"the shape of `{info.name}` is not fixed", "shapes are fixed")
        elif info.type.tensor_type.elem_type != TensorProto.FLOAT:
            yield _file(f"`{info.name}` holds no floats", "inputs and outputs are floats")


def _order(graph: onnx.GraphProto) -> Iterator[Finding]:
    """Yield values that are made twice, or read before anything makes them."""
    known = {value.name for value in (*graph.input, *graph.initializer)}
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                yield _file(f"`{node.name}` reads `{name}`, which is nothing", "values are made")
        for name in node.output:
            if name in known:
                yield _file(f"`{name}` is made twice", "each value is made once")
            known.add(name)
    for output in graph.output:
        if output.name not in known:
            yield _file(f"nothing makes the output `{output.name}`", "values are made")


def _operator(one: OnnxOperator, book: RuleBook) -> Iterator[Finding]:
    place = book.places.get(one.kind) if one.domain in ("", "ai.onnx") else None
    if place is None:
        rule = f"rule operators: {book.unlisted} ({book.list})"
        remedy = book.instead.get(one.kind, "write the network with other steps there")
        yield _finding(one, f"{one.kind} is not listed", rule, remedy)
        return
    if said := ELSEWHERE[place]:
        rule = f"rule places: {one.kind} runs on the {place.value} ({book.list})"
        remedy = "look at the log for the parts of the CPU"
        yield _finding(one, said, rule, remedy, Severity.DOUBTFUL)
    if any(value.shape is None or not all(value.shape) for value in one.outputs):
        yield _finding(one, "its output has no fixed shape", "shapes are fixed", "fix them")
    for each in book.rules:
        if one.kind in each.operators and (broken := each.broken(one)):
            yield _finding(one, broken, str(each), each.remedy, each.severity)


def _finding(
    one: OnnxOperator, found: str, rule: str, remedy: str, severity: Severity = Severity.REFUSED
) -> Finding:
    return Finding(severity, one.name, one.kind, found, rule, remedy)


def _file(found: str, rule: str, severity: Severity = Severity.REFUSED) -> Finding:
    return Finding(severity, "", "", found, rule, "")
