"""Write the reference of the Python package from its docstrings to docs/python.md.

    python tools/make_python.py [--check]

With `--check`, write nothing and fail if the file is out of date. Docstrings are in Google style: a
summary, paragraphs, and the sections of `LISTS`, `Returns` and `Example`. Other sections are an
error.
"""

import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from generated import write_or_check

import tcc
from tcc import plot

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
PLOTS: tuple[Callable[..., object], ...] = (
    plot.curves,
    plot.confusion,
    plot.reliability,
    plot.decision_curve,
    plot.tsne,
    plot.gradcam,
    plot.cam,
    plot.features,
    plot.filters,
    plot.weights,
    plot.errors,
)
ERRORS: tuple[type[object], ...] = (
    tcc.UserError,
    tcc.Diagnostic,
    tcc.MissingTool,
    tcc.BelowFloor,
    tcc.Disagreement,
    tcc.SpecWarning,
    tcc.CalibrationWarning,
)
LISTS = {"Args": "Parameters", "Warns": "Warns", "Raises": "Raises"}
"""Docstring sections that are lists of `name: text`, and their headings on the page."""
_SECTION = re.compile(r"(Args|Returns|Warns|Raises|Example):\n")
_ALIASES = {"File": "str | PathLike[str]"}
"""The types of aliases that only the modules of tcc define."""


def update_page(page: str) -> str:
    """Return the page with the current reference."""
    head, text_below = page.split(BEGIN)
    return f"{head}{BEGIN}\n{_render_reference()}{END}{text_below.split(END)[1]}"


def _render_reference() -> str:
    parts = [_render_function("tcc", function) for function in FUNCTIONS]
    parts.append(f"## tcc.plot\n\n{_render_text(inspect.cleandoc(plot.__doc__ or ''))}\n")
    parts += [_render_function("tcc.plot", function) for function in PLOTS]
    parts.append("## Errors and warnings\n")
    parts += [_render_class(value) for value in ERRORS]
    return "\n".join(parts)


def _render_function(module: str, function: Callable[..., object]) -> str:
    """Return the heading, summary, signature, paragraphs and sections of a function."""
    name = f"{module}.{function.__name__}"
    summary, _, rest = inspect.cleandoc(function.__doc__ or "").partition("\n\n")
    signature = f"```text\n{_render_signature(name, function)}\n```"
    parts = [f"### {name}", _join_lines(summary), signature]
    for block in filter(None, re.split(r"\n\n(?=\S)", rest)):
        section = _SECTION.match(block)
        parts.append(
            _render_section(section[1], textwrap.dedent(block[section.end() :]))
            if section
            else _render_text(block)
        )
    return "\n\n".join(parts) + "\n"


def _render_signature(name: str, function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    lines = [f"{name}("]
    is_keyword_only = False
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not is_keyword_only:
            is_keyword_only = True
            lines.append("    *,")
        lines.append(f"    {_render_parameter(parameter)},")
    return "\n".join([*lines, f") -> {_render_type(signature.return_annotation)}"])


def _render_parameter(parameter: inspect.Parameter) -> str:
    stars = "**" if parameter.kind is inspect.Parameter.VAR_KEYWORD else ""
    default = "" if parameter.default is inspect.Parameter.empty else f" = {parameter.default!r}"
    return f"{stars}{parameter.name}: {_render_type(parameter.annotation)}{default}"


def _render_type(annotation: object) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    for name, expansion in _ALIASES.items():
        text = re.sub(rf"\b{name}\b", expansion, text)
    return re.sub(r"\b(?:os|collections\.abc)\.", "", text).replace("'", "")


def _render_section(name: str, body: str) -> str:
    if name == "Example":
        return f"**Example**\n\n{_render_code(body)}"
    if name == "Returns":
        return f"**Returns**\n\n{_join_lines(body)}"
    entries = re.split(r"\n(?=\S)", body.strip())
    return "\n".join([f"**{LISTS[name]}**\n", *map(_render_entry, entries)])


def _render_entry(entry: str) -> str:
    """Return one `name: text` of a section as an entry of a list."""
    name, _, text = _join_lines(entry).partition(": ")
    if not text or " " in name:
        raise SystemExit(f"an entry must have the form `name: text`: {entry}")
    return f"- `{name}`: {text}"


def _render_class(value: type[object]) -> str:
    """Return the heading and the summary of a class."""
    summary = inspect.cleandoc(value.__doc__ or "").partition("\n\n")[0]
    return f"### tcc.{value.__name__}\n\n{_join_lines(summary)}\n"


def _render_text(text: str) -> str:
    """Return the paragraphs, lists and indented code of a text."""
    blocks: list[str] = []
    for block in text.split("\n\n"):
        if block.startswith("    ") and blocks and blocks[-1].startswith("    "):
            blocks[-1] += f"\n\n{block}"
        else:
            blocks.append(block)
    return "\n\n".join(map(_render_block, blocks))


def _render_block(block: str) -> str:
    if block.startswith("    "):
        return _render_code(textwrap.dedent(block))
    if re.match(r"[A-Z][a-z]+:\n", block):
        raise SystemExit(f"unknown section in a docstring: {block}")
    return "\n".join(map(_join_lines, re.split(r"\n(?=- )", block)))


def _render_code(code: str) -> str:
    lines = code.strip().removeprefix("import tcc\n\n")
    imports = "" if lines.startswith(("import ", "from ")) else "import tcc\n\n"
    return f"```python\n{imports}{lines}\n```"


def _join_lines(text: str) -> str:
    return " ".join(text.split())


def main() -> int:
    """Write or check the file; return the exit code."""
    return write_or_check({PATH: update_page(PATH.read_text())})


if __name__ == "__main__":
    sys.exit(main())
