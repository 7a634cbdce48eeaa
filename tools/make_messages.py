"""Write docs/messages.md: the message texts of tcc, by source file.

    python tools/make_messages.py [--check]

With `--check`, write nothing and fail if the file is out of date. The texts are the strings of
three words or more in the code. Docstrings, templates of several lines and the help of options are
excluded; docs/commands.md has the help of options.
"""

import ast
import re
import sys
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
SKIPPED_CALLS = {"Option", "Argument", "compile", "sub", "fullmatch", "match", "search", "findall"}
"""Calls with the help of commands, or with patterns."""
CODE_TEXT = re.compile(r"\w\[\w|\\[a-z(]|^\s*(#|/[/*]|typedef|static|%)|[;{]\s*$|\w\(\{")
"""Matches types of Python, patterns, and code that tcc writes."""
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
    """Collects the messages of a syntax tree."""

    messages: list[Message] = field(default_factory=list)

    def visit_Expr(self, node: ast.Expr) -> None:
        """Skip docstrings."""
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Add a string that is a message."""
        if is_message(_read_text(node)):
            self.messages.append(Message(_read_text(node)))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Add an f-string that is a message, and the messages in its values."""
        if is_message(_read_text(node)):
            self.messages.append(Message(_read_text(node)))
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)

    def visit_Call(self, node: ast.Call) -> None:
        """Add a message with its code and its fix, if the call has them."""
        if getattr(node.func, "attr", getattr(node.func, "id", "")) in SKIPPED_CALLS:
            return
        code, *arguments = [a for a in node.args if _read_text(a)] or [node.func]
        if not CODE.fullmatch(_read_text(code)):
            code, arguments = node.func, [a for a in node.args if _read_text(a)]
        fixes = [k.value for k in node.keywords if k.arg in FIXES and _read_text(k.value)]
        if arguments and (fixes or code is not node.func):
            fix = _read_text(fixes[0]) if fixes else ""
            self.messages.append(Message(_read_text(arguments[0]), _read_text(code), fix))
            parts = {id(arguments[0]), *map(id, fixes)}
        else:
            parts = set()
        for child in (node.func, *node.args, *(k.value for k in node.keywords)):
            if id(child) not in parts:
                self.visit(child)


def read_messages(source: str) -> list[Message]:
    """Return the messages in a Python file."""
    reader = MessageReader()
    reader.visit(ast.parse(source))
    return reader.messages


def is_message(text: str) -> bool:
    """Return whether a string is a message or a part of one: no key, template, pattern or type."""
    words = re.findall(r"[A-Za-z][a-z']*", re.sub(r"\{\w+\}", "", text))
    return (
        len(words) >= MIN_WORDS <= text.count(" ") + 1
        and text.count("\n") <= MAX_LINES
        and not CODE_TEXT.search(text)
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
