"""Check that names and prose use plain words: `python tools/check_words.py`.

`tools/plain_words.toml` lists the words, their replacements and the exceptions. The checks are:

- names that Python code binds: a name such as `found` does not describe its value;
- functions: how many in a package begin with a verb;
- prose of pages, docstrings and messages: words that a reader has to look up.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MAX_LOCATIONS = 12
"""The maximum number of locations that a message about a page or package lists."""
MIN_MESSAGE_WORDS = 4
"""A string constant with fewer words is a key or an option, not a sentence."""
MIN_OCCURRENCES = 2
"""Every page may have so many words of the list, however short it is."""

Location = tuple[Path, int, str]
"""A file, a line, and the name or word there."""

_NAME_FIELDS: dict[type[ast.AST], str] = {
    ast.ClassDef: "name",
    ast.FunctionDef: "name",
    ast.AsyncFunctionDef: "name",
    ast.ExceptHandler: "name",
    ast.MatchAs: "name",
    ast.MatchStar: "name",
    ast.MatchMapping: "rest",
    ast.Name: "id",
    ast.Attribute: "attr",
    ast.arg: "arg",
    ast.alias: "asname",
}
"""The field with the name, by the type of syntax tree node that binds one."""
_NOUN_DECORATORS = {"property", "cached_property", "setter", "fixture"}
_TOKEN = re.compile(r"[A-Za-z][a-z']*")
_QUOTED = re.compile(r"``[^`]+``|`[^`]+`|\]\([^)]*\)|<[^>]+>|https?://\S+")
"""Parts of a line that are not prose: code, link addresses, HTML."""


@dataclass
class SourceNames:
    """Names and texts of one Python file, each with its line."""

    bound: list[tuple[str, int]] = field(default_factory=list)
    functions: list[tuple[str, int]] = field(default_factory=list)
    texts: list[tuple[str, int]] = field(default_factory=list)
    """Docstrings and messages."""


def read_source(text: str) -> SourceNames:
    """Collect the names that a file binds, its functions and its texts."""
    source = SourceNames()
    docstrings: set[int] = set()
    nodes: list[ast.AST] = [ast.parse(text)]
    while nodes:
        node = nodes.pop()
        if type(node) in _NAME_FIELDS and (name := _get_bound_name(node)):
            source.bound.append((name, getattr(node, "lineno", 1)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_noun(node):
            source.functions.append((node.name, node.lineno))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docstrings.add(id(node.value))
        if isinstance(node, ast.Constant):
            constant = node.value
            if isinstance(constant, str) and (id(node) in docstrings or _is_message(constant)):
                source.texts.append((constant, node.lineno))
        nodes.extend(ast.iter_child_nodes(node))
    source.bound = sorted(set(source.bound), key=_get_line)
    source.texts.sort(key=_get_line)
    return source


def _get_line(located: tuple[str, int]) -> int:
    return located[1]


def _get_bound_name(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name | ast.Attribute) and not isinstance(node.ctx, ast.Store):
        return None
    if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") != "self":
        return None  # an attribute of another object
    name: str | None = getattr(node, _NAME_FIELDS[type(node)])
    return name


def _is_noun(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function is used like a field, or Python prescribes its name."""
    decorators = (d.func if isinstance(d, ast.Call) else d for d in function.decorator_list)
    names = {getattr(d, "id", getattr(d, "attr", "")) for d in decorators}
    return function.name.startswith("__") or bool(names & _NOUN_DECORATORS)


def _is_message(text: str) -> bool:
    return len(_TOKEN.findall(text)) >= MIN_MESSAGE_WORDS <= text.count(" ") + 1


def iterate_words(text: str, start_line: int, terms: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Yield each word of a Markdown text with its line, without code and without `terms`."""
    fence = ""
    for number, line in enumerate(text.splitlines(), start_line):
        mark = re.match(r"\s*(`{3,}|~{3,})", line)
        if mark and not fence:
            fence = mark[1]
        elif fence:
            fence = "" if line.strip() == fence else fence
        elif not line.lstrip().startswith((">>> ", "... ")):
            for word in _TOKEN.findall(terms.sub(" ", _QUOTED.sub(" ", line))):
                yield number, word.lower()


@dataclass(frozen=True)
class WordCheck:
    """The rules of `plain_words.toml`, applied to the files below `root`."""

    root: Path
    rules: dict[str, Any]

    def run(self) -> list[str]:
        """Return a message for each violation of a rule."""
        sources = {
            path: read_source(path.read_text())
            for folder in self.rules["names"]["folders"]
            for path in sorted((self.root / folder).rglob("*.py"))
        }
        return [
            *self._check_names(sources),
            *self._check_verbs(sources),
            *self._check_prose(sources),
        ]

    def _check_names(self, sources: dict[Path, SourceNames]) -> Iterator[str]:
        remedies = _index_remedies(self.rules["names"]["vague"])
        allowed = self.rules["names"]["allowed"]
        used = set()
        for path, source in sources.items():
            file = self._shorten(path)
            for name, line in source.bound:
                remedy = remedies.get(name.strip("_").lower())
                if remedy and f"{file}: {name}" in allowed:
                    used.add(f"{file}: {name}")
                elif remedy:
                    yield f"{file}:{line}: the name `{name}` is vague: {remedy}"
        yield from _report_unused("names.allowed", allowed.keys() - used)

    def _check_verbs(self, sources: dict[Path, SourceNames]) -> Iterator[str]:
        verbs = set(" ".join(self.rules["verbs"]["words"]).split())
        protocol_names = set(self.rules["verbs"]["protocol_names"])
        for package, share in self.rules["verbs"]["min_share"].items():
            functions = [
                (path, line, name)
                for path, source in sources.items()
                if path.is_relative_to(self.root / package)
                for name, line in source.functions
                if name not in protocol_names
            ]
            nouns = [f for f in functions if f[2].strip("_").split("_")[0].lower() not in verbs]
            if len(nouns) > (1 - share) * len(functions):
                yield (
                    f"{package}: {len(nouns)} of {len(functions)} functions do not begin with a "
                    f"verb; the limit is {1 - share:.0%}. Begin the name with what the function "
                    "does (get, find, compute, create, check, is, has, to), or make it a property. "
                    "tools/plain_words.toml lists the verbs. These are in the newest files:"
                )
                yield from self._list_locations(nouns)

    def _check_prose(self, sources: dict[Path, SourceNames]) -> Iterator[str]:
        prose = self.rules["prose"]
        counted, refused = _index_remedies(prose["counted"]), _index_remedies(prose["refused"])
        units, used = [], set()
        for unit, words in self._iterate_prose(sources):
            units.append(unit)
            for path, line, word in words:
                if word in refused and f"{self._shorten(path)}: {word}" in prose["allowed"]:
                    used.add(f"{self._shorten(path)}: {word}")
                elif word in refused:
                    yield f"{self._shorten(path)}:{line}: '{word}': write {refused[word]}"
            limit = prose["limits"].get(unit, prose["max_per_1000"])
            old = [(p, n, f"'{w}': write {counted[w]}") for p, n, w in words if w in counted]
            if len(old) > max(MIN_OCCURRENCES, limit * len(words) / 1000):
                yield (
                    f"{unit}: {len(old)} of {len(words)} words are not plain "
                    f"({1000 * len(old) / len(words):.1f} per 1,000); the limit is {limit} per "
                    "1,000. These are in the newest files:"
                )
                yield from self._list_locations(old)
        yield from _report_unused("prose.allowed", prose["allowed"].keys() - used)
        yield from _report_unused("prose.limits", prose["limits"].keys() - units)

    def _iterate_prose(
        self, sources: dict[Path, SourceNames]
    ) -> Iterator[tuple[str, list[Location]]]:
        """Yield each page and each package with the words of its prose."""
        prose = self.rules["prose"]
        terms = re.compile("|".join(map(re.escape, prose["terms"])) or "(?!)", re.IGNORECASE)
        skipped = self._glob(prose["skipped_pages"])
        for path in sorted(self._glob(prose["pages"]) - skipped):
            words = [(path, *word) for word in iterate_words(path.read_text(), 1, terms)]
            yield self._shorten(path), words
        for folder in sorted(self._glob(prose["packages"])):
            words = [
                (path, *word)
                for path, source in sources.items()
                if path.is_relative_to(folder)
                for text, line in source.texts
                for word in iterate_words(text, line, terms)
            ]
            yield self._shorten(folder), words

    def _list_locations(self, locations: list[Location]) -> Iterator[str]:
        newest = sorted(locations, key=lambda location: -location[0].stat().st_mtime)
        for path, line, text in newest[:MAX_LOCATIONS]:
            yield f"  {self._shorten(path)}:{line}: {text}"
        if len(newest) > MAX_LOCATIONS:
            yield f"  and {len(newest) - MAX_LOCATIONS} more"

    def _glob(self, patterns: list[str]) -> set[Path]:
        return {path for pattern in patterns for path in self.root.glob(pattern)}

    def _shorten(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _report_unused(table: str, keys: Iterable[str]) -> Iterator[str]:
    for key in sorted(keys):
        yield f"tools/plain_words.toml: [{table}]: {key!r} is unused: remove the line"


def _index_remedies(groups: list[dict[str, str]]) -> dict[str, str]:
    """Return the replacement of each word."""
    return {word: group["instead"] for group in groups for word in group["words"].split()}


def main() -> int:
    """Print the violations; return 1 if there are any."""
    rules = tomllib.loads((ROOT / "tools/plain_words.toml").read_text())
    messages = WordCheck(ROOT, rules).run()
    for message in messages:
        print(message)
    return int(bool(messages))


if __name__ == "__main__":
    sys.exit(main())
