"""Write docs/messages.md: the message texts of tcc, by source file.

    python tools/make_messages.py [--check]

With `--check`, write nothing and fail if the file is out of date. The texts are the strings of
three words or more in the code. Docstrings, templates of several lines and the help of options are
excluded; docs/commands.md has the help of options.
"""

import ast
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generated import write_or_check

ROOT = Path(__file__).resolve().parents[1]
PATH = ROOT / "docs" / "messages.md"
FOLDERS = ("compiler", "backends", "src")
MIN_WORDS = 3
MAX_LINES = 3
CODE = re.compile(r"[EW]\d{4}")
FIXES = {"help", "remedy"}
"""Arguments that describe how to fix what the message reports."""
FIX_POSITIONS = {"OpError": 3, "ExpressionError": 4}
"""The position of this argument, where it has one."""
SKIPPED_CALLS = {"Option", "Argument", "compile", "sub", "fullmatch", "match", "search", "findall"}
"""Calls with the help of commands, or with patterns."""
CODE_TEXT = re.compile(
    r"\w\[[\w\[]|\\[a-z(]|^\s*(#|/[/*]|\*|\.\w+ =|typedef|static|const |%|-----|from tcc\.)"
    r"|[;{]\s*$|\w\(\{|\) \{ return |^[\w.]+( \| [\w.]+)+$|^camera=|_run\(|NULL"
    r"|^(mkdir|umask|chmod|trap|pulsar2?|onnx|default-src|tcc (operating point|runner signature)) "
)
"""Matches types of Python, patterns, and code and commands that tcc writes."""
MARKUP = re.compile(r"<[a-zA-Z/][^<>]*>|\b[\w-]+=\"[^\"]*\"")
"""Matches tags of HTML and SVG, and their attributes."""
SKIPPED_NAMES = {"_RULES", "SHORTAGE_PHRASES"}
"""Constants with parts of the messages of libraries."""
PLACEMENT = re.compile(r"outside( \w+){2}|([A-Z]\w+ ?)+")
"""Matches positions in a figure, and lists of operators."""
TEXT = """\
# Messages

Search here for a message to see which part of tcc writes it. If the message has a code,
[errors](errors.md) explains it. `{{...}}` is the place of a value. `tools/make_messages.py` writes
this file from the source code, so that all messages can be reviewed together.

{sections}
"""


@dataclass(frozen=True)
class Message:
    """A message, or one part of a composed message."""

    text: str
    code: str = ""
    fix: str = ""

    def format_row(self) -> str:
        """Return a line of the table."""
        return f"| {self.code} | {_escape(self.text)} | {_escape(self.fix)} |"


@dataclass
class MessageReader(ast.NodeVisitor):
    """Collects the messages of a syntax tree, by the identity of their nodes."""

    messages: list[tuple[int, Message]] = field(default_factory=list)
    paired: set[int] = field(default_factory=set)
    """Strings that are part of a message with a code or a fix."""
    variables: Mapping[str, list[ast.expr]] = field(default_factory=dict)
    """The values of names in the current function and in the module."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Visit a function, and resolve the names that it gives to strings."""
        outer_variables = self.variables
        self.variables = {**outer_variables, **find_variables(ast.walk(node))}
        self.generic_visit(node)
        self.variables = outer_variables

    def visit_Module(self, node: ast.Module) -> None:
        """Visit a module, and resolve its constants."""
        self.variables = find_variables(node.body)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Skip constants without messages."""
        if getattr(node.target, "id", "") not in SKIPPED_NAMES:
            self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Skip constants without messages."""
        if not any(getattr(target, "id", "") in SKIPPED_NAMES for target in node.targets):
            self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        """Skip docstrings."""
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Add a string that is a message."""
        if is_message(_read_text(node)):
            self.messages.append((id(node), Message(_read_text(node))))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Add an f-string that is a message, and the messages in its values."""
        if is_message(_read_text(node)):
            self.messages.append((id(node), Message(_read_text(node))))
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)

    def visit_Call(self, node: ast.Call) -> None:
        """Add a message with its code and its fix, if the call has them."""
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in SKIPPED_CALLS:
            return
        resolved = [self._resolve(argument) for argument in node.args]
        fixes = [self._resolve(k.value) for k in node.keywords if k.arg in FIXES]
        fixes += resolved[FIX_POSITIONS.get(name, len(resolved)) :][:1]
        fixes = [fix for fix in fixes if _read_text(fix)]
        position = next(
            (i for i, a in enumerate(resolved) if CODE.fullmatch(_read_text(a))), len(resolved)
        )
        if texts := [a for a in resolved[position + 1 :][:1] if _read_text(a)]:
            self._add_pair(node, _read_text(resolved[position]), texts[0], fixes)
        elif fixes and (texts := [a for a in resolved[:position] if _read_text(a)]):
            self._add_pair(node, "", texts[0], fixes)
        for child in (node.func, *node.args, *(k.value for k in node.keywords)):
            self.visit(child)

    def _add_pair(self, node: ast.Call, code: str, text: ast.expr, fixes: list[ast.expr]) -> None:
        fix = _read_text(fixes[0]) if fixes else ""
        self.messages.append((id(node), Message(_read_text(text), code, fix)))
        self.paired |= {id(text), *map(id, fixes)}

    def _resolve(self, node: ast.expr) -> ast.expr:
        """Return the value of a name: the last one that is assigned before its use."""
        values = self.variables.get(node.id, []) if isinstance(node, ast.Name) else []
        return next((value for value in reversed(values) if value.lineno < node.lineno), node)


def find_variables(nodes: Iterable[ast.AST]) -> dict[str, list[ast.expr]]:
    """Return the expressions that are assigned to each name, in the order of the text."""
    values_by_name: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = [*zip(target.elts, node.value.elts, strict=False)]
                for name, value in pairs:
                    if isinstance(name, ast.Name):
                        values_by_name.setdefault(name.id, []).append(value)
    for values in values_by_name.values():
        values.sort(key=lambda value: value.lineno)
    return values_by_name


def read_messages(source: str) -> list[Message]:
    """Return the messages in a Python file."""
    reader = MessageReader()
    reader.visit(ast.parse(source))
    return [message for node, message in reader.messages if node not in reader.paired]


def is_message(text: str) -> bool:
    """Return whether a string is a message or a part of one: no key, template, pattern or type."""
    unmarked = MARKUP.sub("", text)
    words = re.findall(r"[A-Za-z][a-z']*", re.sub(r"\{\w+\}", "", unmarked))
    return (
        len(words) >= MIN_WORDS <= unmarked.count(" ") + 1
        and text.count("\n") <= MAX_LINES
        and not CODE_TEXT.search(text)
        and not PLACEMENT.fullmatch(text)
    )


def _read_text(node: Any) -> str:
    """Return a string, with an f-string's values in braces; empty if the node is not a string."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if not isinstance(node, ast.JoinedStr):
        return ""
    return "".join(_read_text(part) or _name_value(part) for part in node.values)


def _name_value(part: Any) -> str:
    value = part.value if isinstance(part, ast.FormattedValue) else None
    return f"{{{getattr(value, 'attr', getattr(value, 'id', '...'))}}}"


def _escape(text: str) -> str:
    return re.sub(r"[|<>*_\[\]\\]", lambda match: "\\" + match[0], " ".join(text.split()))


def make_page() -> str:
    """Return the text of the page."""
    sections = []
    for path in sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        rows = [message.format_row() for message in read_messages(path.read_text())]
        table = "\n".join(["| code | message | fix |", "|---|---|---|", *dict.fromkeys(rows)])
        if rows:
            sections.append(f"## {path.relative_to(ROOT).as_posix()}\n\n{table}")
    return TEXT.format(sections="\n\n".join(sections))


def main() -> int:
    """Write or check the file; return the exit code."""
    return write_or_check({PATH: make_page()})


if __name__ == "__main__":
    sys.exit(main())
