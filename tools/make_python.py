"""Write the functions of the Python package, with what their docstrings say, into docs/python.md.

    python tools/make_python.py [--check]

`--check` writes nothing and fails when the file is out of date.
"""

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path

from generated import write_or_check

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


def update_page(page: str) -> str:
    """Return the file with its functions brought up to date."""
    head, text_below = page.split(BEGIN)
    parts = "\n".join(map(_format_function, FUNCTIONS))
    return f"{head}{BEGIN}\n{parts}{END}{text_below.split(END)[1]}"


def _format_function(function: Callable[..., object]) -> str:
    """Return a function's heading, signature, summary, and lists of what goes in and comes out."""
    summary, _, sections = inspect.cleandoc(function.__doc__ or "").partition("\n\n")
    signature_object = inspect.signature(function)
    parameters = [_format_parameter(p) for p in signature_object.parameters.values()]
    keyword = [
        p.kind is inspect.Parameter.KEYWORD_ONLY for p in signature_object.parameters.values()
    ]
    if True in keyword:
        parameters.insert(keyword.index(True), "*")
    returns = str(signature_object.return_annotation).replace("'", "")
    parameter_lines = "\n".join(f"    {parameter}," for parameter in parameters)
    signature = f"```text\ntcc.{function.__name__}(\n{parameter_lines}\n) -> {returns}\n```"
    return (
        f"### tcc.{function.__name__}\n\n{signature}\n\n{summary}\n\n{_format_sections(sections)}"
    )


def _format_parameter(parameter: inspect.Parameter) -> str:
    stars = "**" if parameter.kind is inspect.Parameter.VAR_KEYWORD else ""
    kind = (
        parameter.annotation
        if isinstance(parameter.annotation, str)
        else inspect.formatannotation(parameter.annotation)
    )
    default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
    return f"{stars}{parameter.name}: {kind.replace('os.', '')}{default}"


def _format_sections(sections: str) -> str:
    """Return the sections of a docstring as headed lists."""
    lines = []
    for section in filter(None, re.split(r"\n\n", sections)):
        title, *body = section.splitlines()
        blocks = re.split(r"\n(?=    \S)", "\n".join(body))
        lines.append(f"**{title.removesuffix(':')}**\n")
        lines += [f"- {_format_argument(' '.join(block.split()))}" for block in blocks]
        lines.append("")
    return "\n".join(lines)


def _format_argument(block: str) -> str:
    name, colon, description = block.partition(": ")
    return f"`{name}`: {description}" if colon and " " not in name else block


def main() -> int:
    """Write or check the file; return the exit code."""
    return write_or_check({PATH: update_page(PATH.read_text())})


if __name__ == "__main__":
    sys.exit(main())
