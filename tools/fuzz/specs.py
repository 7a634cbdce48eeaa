"""Fuzz hostile specs: damaged, rebuilt from wrong parts, very long, in many files.

A spec gives at most 50 messages, each with a code and a location; with `--json`, it gives one
document. Formatting must not change a spec's content. A wrong spec of 64 KiB is answered in 5 s of
CPU time, a valid one of 20,000 nodes in 8 s.
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
ODD_VALUES: tuple[Any, ...] = (
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
MAX_MESSAGES, MAX_WRONG_SECONDS, MAX_VALID_SECONDS = 50, 5.0, 8.0
"""The maximum number of messages, and the CPU seconds for a wrong spec and for a valid one."""


def check_answer(outcome: Outcome, _: Path) -> str:
    """Return what is wrong with an answer about a spec."""
    messages = re.findall(r"^error\[", outcome.err, re.MULTILINE)
    if len(messages) > MAX_MESSAGES:
        return f"{len(messages)} messages"
    if outcome.code == 2 and not re.search(
        r"^(error\[E\d{4}\]|error|Usage|usage)", outcome.err, re.M
    ):
        return "the answer has no message"
    if outcome.seconds > (MAX_VALID_SECONDS if outcome.code == 0 else MAX_WRONG_SECONDS):
        return f"{outcome.seconds:.1f} s for an answer with exit code {outcome.code}"
    return ""


def check_document(outcome: Outcome, folder: Path) -> str:
    """Return what is wrong with an answer that should be a JSON document."""
    try:
        document = json.loads(outcome.out)
    except ValueError:
        return "standard output is not a JSON document"
    if outcome.code == 2 and len(document["diagnostics"]) > MAX_MESSAGES:
        return f"more than {MAX_MESSAGES} diagnostics"
    return check_answer(outcome, folder)


def check_formatted(outcome: Outcome, folder: Path) -> str:
    """Return what is wrong with a spec after formatting in place."""
    original_path, formatted_path = (folder / name for name in ("before.yaml", "spec.yaml"))
    if outcome.code == 0:
        texts = [
            repr(to_plain(parse(path.read_bytes(), path.name)))
            for path in (original_path, formatted_path)
        ]
        if sorted(texts[0]) != sorted(texts[1]):  # top-level keys may be reordered
            return "formatting changed the content of the spec"
    return check_answer(outcome, folder)


def _remove_line(lines: list[str], at: int, _: str) -> list[str]:
    return lines[:at] + lines[at + 1 :]


def _copy_line(lines: list[str], at: int, _: str) -> list[str]:
    return [*lines[:at], lines[at], *lines[at:]]


def _add_indent(lines: list[str], at: int, _: str) -> list[str]:
    return [*lines[:at], "  " + lines[at], *lines[at + 1 :]]


def _remove_indent(lines: list[str], at: int, _: str) -> list[str]:
    return [*lines[:at], lines[at].removeprefix("  "), *lines[at + 1 :]]


def _move_line(lines: list[str], at: int, piece: str) -> list[str]:
    other_lines = lines[:at] + lines[at + 1 :]
    target = (at * 7 + len(piece)) % (len(other_lines) + 1)
    return [*other_lines[:target], lines[at], *other_lines[target:]]


def _trim_lines(lines: list[str], at: int, _: str) -> list[str]:
    return lines[:at]


def _insert_piece(lines: list[str], at: int, piece: str) -> list[str]:
    middle = len(lines[at]) // 2
    return [*lines[:at], lines[at][:middle] + piece + lines[at][middle:], *lines[at + 1 :]]


def _replace_key(lines: list[str], at: int, piece: str) -> list[str]:
    head, colon, _ = lines[at].rpartition(":")
    return [*lines[:at], f"{head}{colon} {piece}", *lines[at + 1 :]]


CHANGES: tuple[Callable[[list[str], int, str], list[str]], ...] = (
    _remove_line,
    _copy_line,
    _add_indent,
    _remove_indent,
    _move_line,
    _trim_lines,
    _insert_piece,
    _replace_key,
)


def _read_shipped(numbers: Random) -> str:
    return Path(numbers.choice(sorted(list_specs().values()))).read_text()


def _make_spec_case(
    numbers: Random, content: bytes, name: str = "spec.yaml", *extra_arguments: str
) -> Case:
    command, *options = numbers.choice(COMMANDS)
    check = check_document if "--json" in options else check_answer
    return Case((command, name, *options, *extra_arguments), {name: content}, check=check)


def _make_damaged(numbers: Random) -> Case:
    """Lines that are dropped, repeated, moved, cut or replaced with wrong text."""
    lines = _read_shipped(numbers).split("\n")
    for _ in range(numbers.randint(1, 4)):
        change, piece = numbers.choice(CHANGES), numbers.choice(PIECES)
        lines = change(lines, numbers.randrange(len(lines)), piece) or [""]
    return _make_spec_case(numbers, "\n".join(lines).encode())


def _make_flipped(numbers: Random) -> Case:
    """Bytes that are changed, dropped, repeated or in another encoding."""
    content = bytearray(_read_shipped(numbers).encode())
    for _ in range(numbers.randint(1, 20)):
        at = numbers.randrange(len(content))
        content[at : at + numbers.choice((0, 1, 1, 9))] = numbers.randbytes(
            numbers.choice((0, 1, 4))
        )
    encoded = bytes(content)
    if numbers.random() < 0.1:
        encoded = encoded.decode(errors="replace").encode(
            numbers.choice(("utf-16", "utf-8-sig", "utf-32"))
        )
    return _make_spec_case(numbers, encoded)


def _replace_parts(tree: Any, numbers: Random, chance: float) -> Any:
    """Return a tree with replaced, removed, repeated or moved parts."""
    if numbers.random() < chance:
        return numbers.choice(ODD_VALUES)
    if isinstance(tree, list):
        branches = [_replace_parts(branch, numbers, chance) for branch in tree]
        if branches and numbers.random() < chance * 4:
            branches.insert(
                numbers.randrange(len(branches)), numbers.choice((branches[0], *ODD_VALUES))
            )
        return branches
    if isinstance(tree, dict):
        mapping = {key: _replace_parts(subtree, numbers, chance) for key, subtree in tree.items()}
        if mapping and numbers.random() < chance * 4:
            key = numbers.choice(sorted(mapping))
            subtree = mapping.pop(key)
            if numbers.random() < 0.7:
                mapping[numbers.choice((f"{key}s", key.upper(), "from", "as", "x", "", "é"))] = (
                    subtree
                )
        return mapping
    return tree


def _make_rebuilt(numbers: Random) -> Case:
    """A spec's tree with wrong parts, as JSON, which is also YAML."""
    path = numbers.choice(sorted(list_specs().values()))
    tree = _replace_parts(
        to_plain(parse(path.read_bytes(), path.name)), numbers, numbers.choice((0.002, 0.02, 0.1))
    )
    text = json.dumps(tree, ensure_ascii=numbers.random() < 0.5, indent=numbers.choice((None, 1)))
    if numbers.random() < 0.2:
        at = numbers.randrange(len(text))
        text = text[:at] + numbers.choice(PIECES) + text[at + numbers.choice((0, 1, 5)) :]
    return _make_spec_case(numbers, text.encode(), numbers.choice(("spec.json", "spec.yaml")))


def _make_settings(numbers: Random) -> Case:
    """Settings of known and unknown parameters to wrong values."""
    name = numbers.choice(sorted(list_specs()))
    params = to_plain(parse(list_specs()[name].read_bytes(), name)) or {}
    param_names = (
        [*(params.get("params") or {}), "other", "C", "", "a b"] if isinstance(params, dict) else []
    )
    options: list[str] = []
    for _ in range(numbers.randint(1, 3)):
        setting = numbers.choice((*SETTINGS, *PIECES)).replace("\0", "\\0")
        options += ["--set", f"{numbers.choice(param_names)}={setting}"]
    return Case(("check", name, *options), check=check_answer)


def _make_libraries(numbers: Random) -> Case:
    """Files that use each other, themselves, missing files, and files outside the folder."""
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

    return Case(("check", "spec.yaml"), files, prepare=link, check=check_answer)


def _make_formatted(numbers: Random) -> Case:
    """A spec, sometimes damaged, that is formatted in place."""
    lines = _read_shipped(numbers).split("\n")
    for _ in range(numbers.randint(0, 2)):
        change, piece = numbers.choice(CHANGES), numbers.choice((" # note", *PIECES))
        lines = change(lines, numbers.randrange(len(lines)), piece) or [""]
    content = "\n".join(lines).encode()
    return Case(
        ("fmt", "spec.yaml"), {"spec.yaml": content, "before.yaml": content}, check=check_formatted
    )


def _make_giant(numbers: Random) -> Case:
    """A spec of up to 64 KiB."""
    content = GIANTS[numbers.choice(sorted(GIANTS))](numbers).encode()
    command = numbers.choice((("check",), ("check",), ("check", "--json"), ("fmt",)))
    check = check_document if "--json" in command else check_answer
    return Case((command[0], "spec.yaml", *command[1:]), {"spec.yaml": content}, check=check)


KINDS = (
    *(_make_damaged,) * 6,
    *(_make_rebuilt,) * 6,
    _make_flipped,
    _make_flipped,
    _make_settings,
    _make_settings,
    _make_libraries,
    _make_libraries,
    _make_formatted,
    _make_formatted,
    _make_giant,
)


def _make_case(numbers: Random) -> Case:
    return numbers.choice(KINDS)(numbers)


def _prepare() -> None:
    pass


SPECS = Front("specs", 5000, _make_case, _prepare)
