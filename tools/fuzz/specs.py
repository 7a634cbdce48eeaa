"""Specs as strangers write them: damaged, rebuilt from hostile parts, endless, in many files.

Beside what holds of every command: at most 50 messages, each with a code and a place; with
`--json` one document; a formatted spec says what it said; and a wrong spec of 64 KiB is answered
in 5 s of processor time, a sound one of 20,000 nodes in 8 s.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from case import Case, Front, Outcome
from giants import GIANTS

from tcc.compiler.frontend.yaml import parse, to_plain
from tcc.compiler.zoo.shipped import list_specs

PIECES = (
    *"[]{}:,-'\"#&*!|>%@ \t\0é\u00a0\u200b\u2028\ufeff\r",
    *(
        "-1",
        "0",
        "1e9",
        "1e308",
        "null",
        "[]",
        "{}",
        "true",
        "9" * 20,
        ".nan",
        ".inf",
        "1e3",
        "0x1F",
    ),
    *("conv", "relu", "repeat", "body", "as: x", "from: x", "C", "layers", "- []", "each: {}"),
    *(
        "&a",
        "*a",
        "<<: *a",
        "!!int",
        "---\n",
        "...",
        "? x",
        "|\n",
        ">-\n",
        "%YAML 1.1\n",
        "\n\t",
        ": ",
    ),
    *("allow", "collect", "when: {if: 1}", "side: {}", "seq", "let: {C: 1}", "xs[1:]", "matmul"),
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 7, 1 << 31, 1 << 62, 1 << 64, 0.5, 1e308, -0.0, 1e3, "", " ",
    "C", "same", "relu", "conv", "x", "1/0", "range(4096)", "sum(range(4096)) ** 9",
    "divisible(1e308, 8)",
    "[1] * 5000", "lost", "channels(image)", "'text'", "a b", "\u00a0", "\u200bx", "../x", [], {},
    [[]], [1], [3, 3], [1, 2, 3, 4], ["a", "a"], [None], {"a": 1}, {"type": "int"}, {"conv": None},
    {"repeat": {"times": 10_000, "body": ["relu"]}}, {"add": [[], "x"]}, {"concat": {"times": 0}},
    {"relu": None, "as": "x"}, {"let": {"i": 1}}, {"seq": []}, [1e999], float("nan"), "é" * 300,
)  # fmt: skip
SETTINGS = (
    "1", "-1", "0", "[]", "{}", "x", "'x'", "[a, b]", "null", "1e999", "1e308", "*a", "&a 1", "- 1",
    "a: b", "# c", "", "range(10**9)", "9" * 400, "[" * 500, "\n", "\0", "é", "{n: 1}", "true",
    ".inf",
)  # fmt: skip
COMMANDS = (("check",), ("check", "--json"), ("check", "--strict"), ("show",))
MOST, WRONG, SOUND = 50, 5.0, 8.0
"""Messages of one spec; seconds for a wrong one, and for one that compiles."""


def checked(outcome: Outcome, _: Path) -> str:
    """Return what is wrong with an answer about a spec."""
    told = re.findall(r"^error\[", outcome.err, re.MULTILINE)
    if len(told) > MOST:
        return f"{len(told)} messages"
    if outcome.code == 2 and not re.search(
        r"^(error\[E\d{4}\]|error|Usage|usage)", outcome.err, re.M
    ):
        return "no message"
    if outcome.seconds > (SOUND if outcome.code == 0 else WRONG):
        return f"{outcome.seconds:.1f} s for an answer of code {outcome.code}"
    return ""


def one_document(outcome: Outcome, folder: Path) -> str:
    """Return what is wrong with an answer that was to be a JSON document."""
    try:
        found = json.loads(outcome.out)
    except ValueError:
        return "standard output is no JSON document"
    if outcome.code == 2 and len(found["diagnostics"]) > MOST:
        return "more diagnostics than are told"
    return checked(outcome, folder)


def still_says(outcome: Outcome, folder: Path) -> str:
    """Return what is wrong with a spec that was formatted in place."""
    before, after = (folder / name for name in ("before.yaml", "spec.yaml"))
    if outcome.code == 0:
        texts = [repr(to_plain(parse(path.read_bytes(), path.name))) for path in (before, after)]
        if sorted(texts[0]) != sorted(texts[1]):  # top-level keys may change their order
            return "formatting changed what a spec says"
    return checked(outcome, folder)


def _drop(lines: list[str], at: int, _: str) -> list[str]:
    return lines[:at] + lines[at + 1 :]


def _double(lines: list[str], at: int, _: str) -> list[str]:
    return [*lines[:at], lines[at], *lines[at:]]


def _indent(lines: list[str], at: int, _: str) -> list[str]:
    return [*lines[:at], "  " + lines[at], *lines[at + 1 :]]


def _outdent(lines: list[str], at: int, _: str) -> list[str]:
    return [*lines[:at], lines[at].removeprefix("  "), *lines[at + 1 :]]


def _move(lines: list[str], at: int, piece: str) -> list[str]:
    rest = lines[:at] + lines[at + 1 :]
    place = (at * 7 + len(piece)) % (len(rest) + 1)
    return [*rest[:place], lines[at], *rest[place:]]


def _cut(lines: list[str], at: int, _: str) -> list[str]:
    return lines[:at]


def _insert(lines: list[str], at: int, piece: str) -> list[str]:
    middle = len(lines[at]) // 2
    return [*lines[:at], lines[at][:middle] + piece + lines[at][middle:], *lines[at + 1 :]]


def _replace(lines: list[str], at: int, piece: str) -> list[str]:
    head, colon, _ = lines[at].rpartition(":")
    return [*lines[:at], f"{head}{colon} {piece}", *lines[at + 1 :]]


CHANGES: tuple[Callable[[list[str], int, str], list[str]], ...] = (
    _drop, _double, _indent, _outdent, _move, _cut, _insert, _replace,
)  # fmt: skip


def _shipped(numbers: Random) -> str:
    return Path(numbers.choice(sorted(list_specs().values()))).read_text()


def _case(numbers: Random, data: bytes, name: str = "spec.yaml", *more: str) -> Case:
    command, *options = numbers.choice(COMMANDS)
    check = one_document if "--json" in options else checked
    return Case((command, name, *options, *more), {name: data}, check=check)


def _damaged(numbers: Random) -> Case:
    """Lines dropped, doubled, moved, cut, and filled with what does not fit."""
    lines = _shipped(numbers).split("\n")
    for _ in range(numbers.randint(1, 4)):
        change, piece = numbers.choice(CHANGES), numbers.choice(PIECES)
        lines = change(lines, numbers.randrange(len(lines)), piece) or [""]
    return _case(numbers, "\n".join(lines).encode())


def _flipped(numbers: Random) -> Case:
    """Bytes changed, dropped, repeated or put in another encoding."""
    data = bytearray(_shipped(numbers).encode())
    for _ in range(numbers.randint(1, 20)):
        at = numbers.randrange(len(data))
        data[at : at + numbers.choice((0, 1, 1, 9))] = numbers.randbytes(numbers.choice((0, 1, 4)))
    made = bytes(data)
    if numbers.random() < 0.1:
        made = made.decode(errors="replace").encode(
            numbers.choice(("utf-16", "utf-8-sig", "utf-32"))
        )
    return _case(numbers, made)


def _changed(tree: Any, numbers: Random, chance: float) -> Any:
    """Return a tree some of whose parts are others, gone, doubled or in another place."""
    if numbers.random() < chance:
        return numbers.choice(VALUES)
    if isinstance(tree, list):
        items = [_changed(item, numbers, chance) for item in tree]
        if items and numbers.random() < chance * 4:
            items.insert(numbers.randrange(len(items)), numbers.choice((items[0], *VALUES)))
        return items
    if isinstance(tree, dict):
        made = {key: _changed(value, numbers, chance) for key, value in tree.items()}
        if made and numbers.random() < chance * 4:
            key = numbers.choice(sorted(made))
            value = made.pop(key)
            if numbers.random() < 0.7:
                made[numbers.choice((f"{key}s", key.upper(), "from", "as", "x", "", "é"))] = value
        return made
    return tree


def _rebuilt(numbers: Random) -> Case:
    """The tree of a spec with parts that do not fit, as JSON, which is YAML too."""
    path = numbers.choice(sorted(list_specs().values()))
    tree = _changed(
        to_plain(parse(path.read_bytes(), path.name)), numbers, numbers.choice((0.002, 0.02, 0.1))
    )
    text = json.dumps(tree, ensure_ascii=numbers.random() < 0.5, indent=numbers.choice((None, 1)))
    if numbers.random() < 0.2:
        at = numbers.randrange(len(text))
        text = text[:at] + numbers.choice(PIECES) + text[at + numbers.choice((0, 1, 5)) :]
    return _case(numbers, text.encode(), numbers.choice(("spec.json", "spec.yaml")))


def _set(numbers: Random) -> Case:
    """Settings of parameters that there are and are not, to what they cannot be."""
    name = numbers.choice(sorted(list_specs()))
    params = to_plain(parse(list_specs()[name].read_bytes(), name)) or {}
    known = (
        [*(params.get("params") or {}), "other", "C", "", "a b"] if isinstance(params, dict) else []
    )
    more: list[str] = []
    for _ in range(numbers.randint(1, 3)):
        value = numbers.choice((*SETTINGS, *PIECES)).replace("\0", "\\0")
        more += ["--set", f"{numbers.choice(known)}={value}"]
    return Case(("check", name, *more), check=checked)


def _libraries(numbers: Random) -> Case:
    """Files that use each other, themselves, what is not there, and what lies elsewhere."""
    count = numbers.choice((1, 2, 5, 70))
    names = [f"lib{n}.yaml" for n in range(count)]
    odd = (
        "../out.yaml",
        "/etc/passwd",
        "spec.yaml",
        ".",
        "",
        "blocks/conv.yaml",
        "x" * 300,
        "a\0b",
        "link.yaml",
    )
    files = {}
    for n, name in enumerate(names):
        used = [numbers.choice((*names, *odd)) for _ in range(numbers.randint(0, 3))]
        body = numbers.choice(("[relu]", f"[b{(n + 1) % count}]", "[unknown]", "relu", "[]"))
        key = numbers.choice((f"b{n}", f"b{n}", "conv", "b0"))
        files[name] = (
            f"tcc: 1\nuse: {json.dumps(used)}\nblocks: {{{key}: {{body: {body}}}}}\n".encode()
        )
    used = [numbers.choice((*names, *odd)) for _ in range(numbers.randint(1, 4))]
    head = "tcc: 1\nname: w\ninput: {image: {shape: [3, 8, 8]}}\noutput: {y: {}}\n"
    files["spec.yaml"] = f"{head}use: {json.dumps(used)}\ngraph: [b0, relu]\n".encode()

    def link(folder: Path) -> None:
        (folder / "link.yaml").symlink_to(numbers.choice(("link.yaml", "/dev/zero", "spec.yaml")))

    return Case(("check", "spec.yaml"), files, prepare=link, check=checked)


def _formatted(numbers: Random) -> Case:
    """A spec, damaged now and then, that is formatted in place."""
    lines = _shipped(numbers).split("\n")
    for _ in range(numbers.randint(0, 2)):
        change, piece = numbers.choice(CHANGES), numbers.choice((" # note", *PIECES))
        lines = change(lines, numbers.randrange(len(lines)), piece) or [""]
    data = "\n".join(lines).encode()
    return Case(("fmt", "spec.yaml"), {"spec.yaml": data, "before.yaml": data}, check=still_says)


def _giant(numbers: Random) -> Case:
    """A spec of up to 64 KiB."""
    made = GIANTS[numbers.choice(sorted(GIANTS))](numbers).encode()
    command = numbers.choice((("check",), ("check",), ("check", "--json"), ("fmt",)))
    check = one_document if "--json" in command else checked
    return Case((command[0], "spec.yaml", *command[1:]), {"spec.yaml": made}, check=check)


KINDS = (
    *(_damaged,) * 6, *(_rebuilt,) * 6, _flipped, _flipped, _set, _set, _libraries, _libraries,
    _formatted, _formatted, _giant,
)  # fmt: skip


def _any(numbers: Random) -> Case:
    return numbers.choice(KINDS)(numbers)


def _warm() -> None:
    pass


SPECS = Front("specs", 5000, _any, _warm)
