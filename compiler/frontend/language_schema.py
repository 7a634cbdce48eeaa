"""The JSON Schema of the language, generated from the op tables.

`spec/schema/spec.schema.json` contains its output for editors. The same schema checks the structure
of every spec. Calls of blocks are open here, because only a spec knows its blocks.
"""

from functools import cache
from typing import Any, get_args

from tcc.compiler.frontend.accuracy_bounds import BOUNDS
from tcc.compiler.frontend.parameter_declarations import TYPES
from tcc.compiler.frontend.warnings.warning_kinds import WARNING_KINDS
from tcc.compiler.ir.argument_declarations import Kind, Parameter, Required, list_parameters
from tcc.compiler.ir.types import OutputActivation, OutputKind
from tcc.compiler.ops import JOINS, OPS

Schema = dict[str, Any]

NAME = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}
NETWORK_NAME = "^[A-Za-z][A-Za-z0-9_.-]{0,63}$"
"""Pattern of the name of a network."""
VALUE_NAME = {"type": "string", "pattern": r"^[A-Za-z_][A-Za-z0-9_]*(\[.*\])?$"}
"""A named value, or an entry of a named list."""
TEXT = {"type": "string"}
STEPS = {"$ref": "#/$defs/steps"}
# Every number may be an expression, written as text; its value is checked at evaluation.
INT: Schema = {"type": ["integer", "string"]}
ANYTHING = ["string", "number", "boolean", "array"]
LIST: Schema = {"type": ["array", "string"]}


def _build_pair(*lengths: int) -> Schema:
    return {
        "type": ["integer", "string", "array"],
        "items": INT,
        "minItems": min(lengths),
        "maxItems": max(lengths),
    }


_KINDS: dict[Kind, Schema] = {
    Kind.INT: INT,
    Kind.FLOAT: {"type": ["number", "string"]},
    Kind.BOOL: {"type": ["boolean", "string"]},
    Kind.ENUM: {"type": "string"},
    Kind.PAIR: _build_pair(2),
    Kind.PADDING: _build_pair(2, 4),
    Kind.LIST: LIST,
    Kind.STRING: TEXT,
    Kind.NAMES: LIST,
    Kind.ANY: {"type": ANYTHING},
}


def _build_argument(p: Parameter) -> Schema:
    described: Schema = {"description": p.doc} if p.doc else {}
    examples: Schema = {"examples": list(p.choices)} if p.choices else {}
    if not isinstance(p.default, Required) and p.default is not None:
        # For editors, which show it; JSON Schema ignores a default.
        described["default"] = p.default
    return {**_KINDS[p.kind], **described, **examples}


def _build_object(properties: Schema, *required: str, open: bool = False) -> Schema:
    body: Schema = {"type": "object", "properties": properties}
    if not open:
        body["additionalProperties"] = False
    if required:
        body["required"] = list(required)
    return body


def build_arguments(params: tuple[Parameter, ...]) -> Schema:
    """Return the schema of a call's arguments."""
    needed = [p.name for p in params if isinstance(p.default, Required)]
    body = _build_object({p.name: _build_argument(p) for p in params}, *needed)
    # `relu` alone is a call without arguments.
    body["type"] = ["object", "null"]  # the error for missing arguments is at the keyword
    return body


def _build_controls() -> Schema:
    loop = {"collect": NAME, "body": STEPS}
    return {
        "repeat": _build_object({"times": INT, **loop}, "times", "body"),
        "each": _build_object({"of": LIST, "as": NAME, **loop}, "of", "as", "body"),
        "when": _build_object(
            {"if": {"type": ["boolean", "string"]}, "then": STEPS, "else": STEPS}, "if", "then"
        ),
        "seq": STEPS,
        "let": {
            "type": "object",
            "propertyNames": NAME,
            "additionalProperties": {"type": ANYTHING},
        },
        "side": _build_object({"as": NAME, "body": STEPS}, "as", "body"),
    }


def _build_join() -> Schema:
    return {
        # A list of branches, a mapping that computes them, or nothing if `from` lists the values.
        "type": ["array", "object", "null"],
        "items": {"$ref": "#/$defs/branch"},
        "minItems": 1,
        "properties": {"times": INT, "of": LIST, "as": NAME, "branch": STEPS},
        "additionalProperties": False,
        "required": ["branch"],
    }


def _build_step() -> Schema:
    calls: Schema = {
        op.keyword: build_arguments(list_parameters(op)) for op in OPS if op not in JOINS
    }
    calls |= {op.keyword: {"$ref": "#/$defs/join"} for op in JOINS}
    options: Schema = {
        "as": NAME,
        "from": {"type": ["string", "array"], "items": VALUE_NAME, "minItems": 1},
        "id": NAME,
        "doc": TEXT,
    }
    return {
        "type": ["string", "object"],
        "minProperties": 1,
        "properties": {**calls, **_build_controls(), **options},
    }


def _build_parameters() -> Schema:
    full = {
        "type": {"enum": list(TYPES)},
        "default": {"type": ANYTHING},
        "values": {"type": "array", "items": TEXT, "minItems": 1},
        "min": {"type": "number"},
        "max": {"type": "number"},
        "doc": TEXT,
    }
    declaration = {"type": [*ANYTHING, "object"], "properties": full, "additionalProperties": False}
    return {"type": ["object", "null"], "propertyNames": NAME, "additionalProperties": declaration}


def _build_block() -> Schema:
    rule = _build_object({"that": {"type": ["string", "boolean"]}, "else": TEXT}, "that")
    return _build_object(
        {
            "doc": TEXT,
            "params": {"$ref": "#/$defs/params"},
            "inputs": {"type": "array", "items": NAME, "minItems": 1},
            "require": {"type": "array", "items": rule},
            "body": STEPS,
        },
        "body",
    )


def _build_input() -> Schema:
    number = {"type": ["number", "string"]}
    resize = _build_object({"size": _KINDS[Kind.PAIR], "mode": TEXT}, "size")
    preprocess = _build_object(
        {
            "color": TEXT,
            "resize": resize,
            "crop": _KINDS[Kind.PAIR],
            "scale": {**number, "examples": [255, "max"]},
            "mean": {"type": ["array", "string"], "items": number, "minItems": 1},
            "std": {"type": ["array", "string"], "items": number, "minItems": 1},
        }
    )
    shape = {"type": ["array", "string"], "items": INT, "minItems": 3, "maxItems": 3}
    return {
        "type": "object",
        "propertyNames": NAME,
        "minProperties": 1,
        "maxProperties": 1,
        "additionalProperties": _build_object({"shape": shape, "preprocess": preprocess}, "shape"),
    }


def _build_outputs() -> Schema:
    output = _build_object(
        {
            "from": VALUE_NAME,
            "activation": {"enum": list(get_args(OutputActivation))},
            "kind": {"enum": list(get_args(OutputKind))},
            "labels": LIST,
            "train_only": {"type": ["boolean", "string"]},
        }
    )
    output["type"] = ["object", "null"]
    return {
        "type": "object",
        "propertyNames": NAME,
        "minProperties": 1,
        "additionalProperties": output,
    }


def _build_tests() -> Schema:
    count = {"type": ["number", "string"]}
    shapes = {
        "type": "object",
        "additionalProperties": {"type": ["array", "string"], "items": INT, "minItems": 1},
    }
    case = _build_object(
        {
            "set": {"type": "object", "additionalProperties": {"type": ANYTHING}},
            "params": count,
            "macs": count,
            "shape": shapes,
        }
    )
    return {**case, "type": ["object", "array"], "items": case}


def _build_accuracy() -> Schema:
    bound = {"type": ["number", "string"]}
    return _build_object(dict.fromkeys(BOUNDS, bound))


def _build_allow() -> Schema:
    kind_name = {"enum": [kind.name for kind in WARNING_KINDS]}
    return {
        "type": "array",
        "items": kind_name,
        "description": "kinds of warnings to silence",
    }


@cache
def build_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12)."""
    shared: Schema = {
        "tcc": {"const": 1, "description": "version of the language"},
        "doc": TEXT,
        "use": {"type": "array", "items": TEXT, "description": "block libraries"},
        "blocks": {
            "type": ["object", "null"],
            "propertyNames": NAME,
            "additionalProperties": {"$ref": "#/$defs/block"},
        },
    }
    spec = {
        **shared,
        "name": {"type": "string", "pattern": NETWORK_NAME},
        "params": {"$ref": "#/$defs/params"},
        "input": _build_input(),
        "graph": {"type": "array", "items": {"$ref": "#/$defs/step"}, "minItems": 1},
        "output": _build_outputs(),
        "accuracy": _build_accuracy(),
        "allow": _build_allow(),
        "tests": _build_tests(),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tcc model spec",
        # By the keys of a file instead of `oneOf`, which would report the errors of both kinds.
        "if": {"required": ["graph"]},
        "then": {"$ref": "#/$defs/spec"},
        "else": {"$ref": "#/$defs/library"},
        "$defs": {
            "spec": _build_object(spec, "tcc", "name", "input", "graph", "output"),
            "library": _build_object(shared, "tcc", "blocks"),
            "params": _build_parameters(),
            "block": _build_block(),
            "steps": {"type": "array", "items": {"$ref": "#/$defs/step"}},
            "branch": {"type": ["array", "string"], "items": {"$ref": "#/$defs/step"}},
            "join": _build_join(),
            "step": _build_step(),
        },
    }
