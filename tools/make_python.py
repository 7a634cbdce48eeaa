"""Write the functions of the Python package, with what their docstrings say, into docs/python.md.

    python tools/make_python.py [--check]

`--check` writes nothing and fails when the file is out of date.
"""

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path

from generated import settle

import tcc

PATH = Path(__file__).resolve().parents[1] / "docs" / "python.md"
BEGIN, END = "<!-- functions: generated -->", "<!-- functions: end -->"
FUNCTIONS: tuple[Callable[..., object], ...] = (
    tcc.load,
    tcc.check,
    tcc.lower,
    tcc.torch,
    tcc.save_weights,
    tcc.train,
    tcc.calibrate,
    tcc.build,
    tcc.run,
    tcc.verify,
    tcc.evaluate,
)


def text(before: str) -> str:
    """Return the file with its functions brought up to date."""
    head, rest = before.split(BEGIN)
    parts = "\n".join(map(_function, FUNCTIONS))
    return f"{head}{BEGIN}\n{parts}{END}{rest.split(END)[1]}"


def _function(function: Callable[..., object]) -> str:
    """Return a function's heading, signature, summary, and lists of what goes in and comes out."""
    summary, _, rest = inspect.cleandoc(function.__doc__ or "").partition("\n\n")
    signed = inspect.signature(function)
    parameters = [_parameter(p) for p in signed.parameters.values()]
    keyword = [p.kind is inspect.Parameter.KEYWORD_ONLY for p in signed.parameters.values()]
    if True in keyword:
        parameters.insert(keyword.index(True), "*")
    returns = str(signed.return_annotation).replace("'", "")
    listed = "\n".join(f"    {each}," for each in parameters)
    signature = f"```text\ntcc.{function.__name__}(\n{listed}\n) -> {returns}\n```"
    return f"### tcc.{function.__name__}\n\n{signature}\n\n{summary}\n\n{_lists(rest)}"


def _parameter(one: inspect.Parameter) -> str:
    stars = "**" if one.kind is inspect.Parameter.VAR_KEYWORD else ""
    kind = (
        one.annotation
        if isinstance(one.annotation, str)
        else inspect.formatannotation(one.annotation)
    )
    default = "" if one.default is inspect.Parameter.empty else f" = {one.default!r}"
    return f"{stars}{one.name}: {kind.replace('os.', '')}{default}"


def _lists(sections: str) -> str:
    """Return the sections of a docstring as headed lists."""
    lines = []
    for section in filter(None, re.split(r"\n\n", sections)):
        title, *body = section.splitlines()
        items = re.split(r"\n(?=    \S)", "\n".join(body))
        lines.append(f"**{title.removesuffix(':')}**\n")
        lines += [f"- {_item(' '.join(item.split()))}" for item in items]
        lines.append("")
    return "\n".join(lines)


def _item(item: str) -> str:
    name, colon, said = item.partition(": ")
    return f"`{name}`: {said}" if colon and " " not in name else item


def main() -> int:
    """Write or check the file; return the exit code."""
    return settle({PATH: text(PATH.read_text())})


if __name__ == "__main__":
    sys.exit(main())
