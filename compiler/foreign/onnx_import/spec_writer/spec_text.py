"""The text of a spec, in canonical form."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tcc.compiler.foreign.onnx_import.spec_writer.op_syntax import written
from tcc.compiler.foreign.onnx_import.spec_writer.spec_steps import OpStep, RepeatStep, SpecStep
from tcc.compiler.frontend.formatter import format_spec
from tcc.compiler.frontend.yaml import MAX_YAML_BYTES
from tcc.compiler.ir.cost import cost
from tcc.compiler.ir.graph import Graph
from tcc.compiler.ir.types import TensorType

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# YAML 1.2 knows the first three alone; `yes`, `no`, `on` and `off` are quoted for readers of YAML
# 1.1, to which they are booleans.
_RESERVED = {"true", "false", "null", "yes", "no", "on", "off"}


@dataclass(frozen=True, slots=True)
class SpecHeading:
    """What a spec says beside its graph; `preprocess` as it is written."""

    name: str
    doc: str
    preprocess: Mapping[str, Any]
    labels: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SpecText:
    """The text of a spec file; `suffix` is `.yaml` or `.json`."""

    text: str
    suffix: str


def write_spec(
    graph: Graph, items: tuple[SpecStep, ...], named: frozenset[str], heading: SpecHeading
) -> dict[str, Any]:
    """Return the spec of a graph with these steps, as plain data."""
    source = graph.inputs[0]
    contract: dict[str, Any] = {"shape": list(source.type.shape)}
    if heading.preprocess:
        contract["preprocess"] = dict(heading.preprocess)
    costs = cost(graph)
    return {
        "tcc": 1,
        "name": heading.name,
        "doc": heading.doc,
        "input": {source.name: contract},
        "graph": _Writer(graph.types, named).steps(items),
        "output": _outputs(graph, named, heading.labels),
        **({"allow": list(heading.allow)} if heading.allow else {}),
        # `tcc check` compares them, which shows an edit that changes them by mistake.
        "tests": {"params": costs.params, "macs": costs.macs},
    }


def format_text(spec: Mapping[str, Any], *, json_wanted: bool = False) -> SpecText:
    """Return a spec as YAML, or as JSON where it is asked for or too large for YAML."""
    if not json_wanted:
        rows = "".join(row + "\n" for key in spec for row in _yaml_rows(key, spec[key]))
        if len(rows.encode()) <= MAX_YAML_BYTES:
            text = format_spec(rows, "the spec")
            if len(text.encode()) <= MAX_YAML_BYTES:
                return SpecText(text, ".yaml")
    return SpecText(format_spec(json.dumps(spec), "the spec.json"), ".json")


def _yaml_rows(key: str, content: Any) -> list[str]:
    match content:
        case dict():
            return [f"{key}:", *(f"  {_flow(k)}: {_flow(v)}" for k, v in content.items())]
        case list() if key == "graph":
            return [f"{key}:", *(f"  - {_flow(step)}" for step in content)]
    return [f"{key}: {_flow(content)}"]


def _outputs(graph: Graph, named: frozenset[str], labels: tuple[str, ...]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for output in graph.outputs:
        about: dict[str, Any] = {}
        if output.value in named:
            about["from"] = output.value
        if output.activation != "none":
            about["activation"] = output.activation
        if labels and graph.types[output.value].shape == (len(labels),):
            about["labels"] = list(labels)
        result[output.name] = about
    return result


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes steps as plain data. Layers with weights keep their name, but not within a repeat."""

    types: Mapping[str, TensorType]
    named: frozenset[str]

    def steps(self, items: tuple[SpecStep, ...], *, repeated: bool = False) -> list[Any]:
        return [self._item(item, repeated=repeated) for item in items]

    def _item(self, item: SpecStep, *, repeated: bool) -> Any:
        match item:
            case RepeatStep(turns):
                body = self.steps(turns[0], repeated=True)
                return {"repeat": {"times": len(turns), "body": body}}
            case OpStep():
                return self._step(item, repeated=repeated)

    def _step(self, step: OpStep, *, repeated: bool) -> Any:
        node = step.node
        word, arguments = written(node.op, *(self.types[v] for v in node.inputs))
        given: Any = arguments
        if step.branches:
            given = [
                b if isinstance(b, str) else self.steps(b, repeated=repeated) for b in step.branches
            ]
        options = {
            # Names matter to weights alone; what a repeat makes is numbered by its turns.
            "id": node.name if node.params and not repeated else "",
            "as": node.name if node.name in self.named else "",
            "from": step.source,
        }
        kept = {name: value for name, value in options.items() if value}
        return {word: given, **kept} if kept or given else word


def _flow(value: Any) -> str:
    """Return data as YAML in brackets."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            # Quotes and escapes of JSON, all of which YAML 1.2 reads alike.
            plain = _BARE.fullmatch(value) and value.lower() not in _RESERVED
            return value if plain else json.dumps(value, ensure_ascii=False)
        case dict():
            return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_flow, value)) + "]"
    # Shortest digits that give the same number.
    return repr(value)
