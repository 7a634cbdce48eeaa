"""What each error or warning code means, from the table in error_codes.toml."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TABLE_PATH = Path(__file__).with_suffix(".toml")
DEFAULT_KEYS = {
    "tcc": "tcc: 1",
    "name": "name: net",
    "input": "input: {image: {shape: [3, 8, 8], preprocess: {resize: {size: [8, 8]}}}}",
    "graph": "graph: [conv: {filters: 4, kernel: 3}, relu, global_avg_pool, flatten,"
    " linear: {units: 3}]",
    "output": "output: {scores: {}}",
}
"""The keys that a spec needs; an example gets each one that it does not have itself."""


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """A code: what is wrong in one line, why it is an error, how to fix it, and an example.

    `spec` is the part of an example spec that differs from `DEFAULT_KEYS`. `command` is shell
    lines; the last one fails with the code. `text` describes a situation.
    """

    code: str
    what: str
    why: str
    remedy: str
    spec: str = ""
    command: str = ""
    text: str = ""

    def __str__(self) -> str:
        """Return the entry as paragraphs, the example indented."""
        parts = [f"{self.code}: {self.what}", self.why]
        if self.spec:
            parts.append(f"Example spec (excerpt):\n\n{_indent(self.spec)}")
        if self.command:
            head = "This command fails with this spec:" if self.spec else "Example:"
            parts.append(f"{head}\n\n{_indent(self.command)}")
        if self.text:
            parts.append(f"Example: {self.text}")
        return "\n\n".join([*parts, f"What to do: {self.remedy}"])


def load_error_codes() -> Mapping[str, ErrorCode]:
    """Return all entries by code, in the order of the table."""
    table = tomllib.loads(TABLE_PATH.read_text(encoding="utf-8"))
    return {code: ErrorCode(code, **_strip_texts(fields)) for code, fields in table.items()}


def find_code(typed_code: str, codes: Iterable[str]) -> str | None:
    """Return the code that a user typed: `E0607`, `e607` or `607`; None if it does not exist.

    A number alone means the error of that number, or else the warning.
    """
    code_match = re.fullmatch(r"([EW]?)(\d{1,4})", typed_code.strip("[]").upper(), re.ASCII)
    if code_match is None:
        return None
    letters = (code_match[1],) if code_match[1] else ("E", "W")
    candidates = [f"{letter}{int(code_match[2]):04}" for letter in letters]
    known_codes = set(codes)
    return next((code for code in candidates if code in known_codes), None)


def complete_spec(spec: str) -> str:
    """Return the complete example spec: the excerpt with the default keys added."""
    keys = set(re.findall(r"^(\w+):", spec, re.MULTILINE))
    lines = [line for key, line in DEFAULT_KEYS.items() if key not in keys]
    return "\n".join([*lines, spec, ""] if spec else [*lines, ""])


def _strip_texts(fields: Mapping[str, str]) -> dict[str, str]:
    return {key: text.strip("\n") for key, text in fields.items()}


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
