"""Write what is generated from the op tables: the JSON Schema and the reference's list of ops.

    python tools/make_reference.py [--check]

`--check` writes nothing and fails when a file is out of date.
"""

import json
import sys
from pathlib import Path

from tcc.compiler.frontend.schema import schema
from tcc.compiler.ops import OPS, Op
from tcc.compiler.signature import Parameter, Required, signature

SPEC = Path(__file__).resolve().parents[1] / "spec"
BEGIN, END = "<!-- ops: generated -->", "<!-- ops: end -->"


def schema_text() -> str:
    """Return the JSON Schema as the file holds it."""
    return json.dumps(schema(), indent=1) + "\n"


def reference_text(before: str) -> str:
    """Return the reference with its list of ops brought up to date."""
    head, rest = before.split(BEGIN)
    tail = rest.split(END)[1]
    return f"{head}{BEGIN}\n{ops_table()}{END}{tail}"


def ops_table() -> str:
    """Return the list of ops as a markdown table."""
    rows = [f"| `{op.word}` | {_arguments(op)} | {_summary(op)} |" for op in OPS]
    return "| op | arguments | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _arguments(op: type[Op]) -> str:
    return "<br>".join(map(_argument, signature(op))) or "-"


def _argument(p: Parameter) -> str:
    default = ""
    if not isinstance(p.default, Required) and p.default is not None:
        default = f" = {json.dumps(p.default)}"
    kind = " / ".join(p.choices) or p.kind
    return f"`{p.name}` {kind}{default}: {p.doc}"


def _summary(op: type[Op]) -> str:
    return " ".join((op.__doc__ or "").split("\n\n")[0].split()).replace("|", "\\|")


def main() -> int:
    """Write or check both files; return the exit code."""
    reference = SPEC / "reference.md"
    wanted = {
        SPEC / "schema" / "spec.schema.json": schema_text(),
        reference: reference_text(reference.read_text()),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(f"{'out of date' if '--check' in sys.argv else 'written'}: {path.name}")
        if "--check" not in sys.argv:
            path.write_text(wanted[path])
    return int("--check" in sys.argv and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
