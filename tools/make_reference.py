"""Write the JSON Schema of specs, and the lists of the reference, from the op tables.

    python tools/make_reference.py [--check]

With `--check`, write nothing and fail if a file is out of date.
"""

import json
import sys
from pathlib import Path

from generated import write_or_check

from tcc.compiler.frontend.framework_aliases import FrameworkAlias, list_aliases
from tcc.compiler.frontend.language_schema import build_schema
from tcc.compiler.frontend.warnings.warning_kinds import WARNING_KINDS
from tcc.compiler.ir.argument_declarations import Parameter, Required, list_parameters
from tcc.compiler.ops import OPS, Op

SPEC = Path(__file__).resolve().parents[1] / "spec"
NAMES = {
    "op": "Operations",
    "argument": "Arguments",
    "key": "Keys of a file",
    "value": "Values",
}
"""The kinds of other frameworks' names, with their headings in the reference."""


def make_schema() -> str:
    """Return the text of the JSON Schema file."""
    return json.dumps(build_schema(), indent=1) + "\n"


def update_reference(page: str) -> str:
    """Return the reference with current lists."""
    lists = {"ops": format_ops(), "names": format_names(), "warnings": format_warnings()}
    for name, text in lists.items():
        begin, end = f"<!-- {name}: generated -->", f"<!-- {name}: end -->"
        head, text_below = page.split(begin)
        page = f"{head}{begin}\n{text}{end}{text_below.split(end)[1]}"
    return page


def format_names() -> str:
    """Return other frameworks' names and their equivalents as a Markdown table."""
    rows = ["| other frameworks | tcc |", "|---|---|"]
    for kind, heading in NAMES.items():
        rows.append(f"| **{heading}** | |")
        rows += [
            f"| {', '.join(e.names)} | {_format_meaning(e, kind)} |" for e in list_aliases(kind)
        ]
    return "\n".join(rows) + "\n"


def _format_meaning(foreign_name: FrameworkAlias, kind: str) -> str:
    """Return the advice of the diagnostic, without a leading "write"."""
    meaning = (
        foreign_name.help if kind in ("op", "value") or foreign_name.ours else foreign_name.note
    )
    return meaning.removeprefix("write ").replace("|", "\\|")


def format_warnings() -> str:
    """Return the list of warnings as a Markdown table."""
    rows = [f"| `{kind.name}` | {kind.code} | {kind.doc} |" for kind in WARNING_KINDS]
    return "| kind | code | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def format_ops() -> str:
    """Return the list of ops as a Markdown table."""
    rows = [f"| `{op.keyword}` | {_format_arguments(op)} | {_get_summary(op)} |" for op in OPS]
    return "| op | arguments | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _format_arguments(op: type[Op]) -> str:
    return "<br>".join(map(_format_argument, list_parameters(op))) or "-"


def _format_argument(p: Parameter) -> str:
    default = ""
    if not isinstance(p.default, Required) and p.default is not None:
        default = f" = {json.dumps(p.default)}"
    kind = " / ".join(p.choices) or p.kind
    return f"`{p.name}` {kind}{default}: {p.doc}"


def _get_summary(op: type[Op]) -> str:
    return " ".join((op.__doc__ or "").split("\n\n")[0].split()).replace("|", "\\|")


def main() -> int:
    """Write or check both files; return the exit code."""
    reference = SPEC / "reference.md"
    return write_or_check(
        {
            SPEC / "schema" / "spec.schema.json": make_schema(),
            reference: update_reference(reference.read_text()),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
