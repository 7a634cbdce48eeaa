"""Generate wrong or slow specs of up to 64 KiB: many words, names, blocks, loops, lists."""

from collections.abc import Callable, Mapping
from random import Random

LARGEST = 1 << 16
"""The maximum size of a YAML spec in bytes."""
LIMIT = LARGEST - 4096
"""The size of a giant in bytes, with room for its head."""
HEAD = "tcc: 1\nname: giant\ninput: {image: {shape: [3, 8, 8]}}\noutput: {y: {}}\n"
LOOPS = ("repeat: {times: 4096, body: [BODY]}", "each: {of: range(4096), as: NAME, body: [BODY]}")
WORK = (
    "",
    "relu",
    "let: {v: sum(range(4096))}",
    "let: {v: '[1] * 4096 == [1] * 4096'}",
    "let: {v: max(range(4096)) + min(range(4096))}",
    "when: {if: first, then: [], else: []}",
    "seq: []",
    "side: {as: s, body: []}",
    "add: [[]]",
    "identity",
    "unknown",
    "conv: {filters: lost, kernel: 1}",
    "empty",
    "empty: {a: i + 1}",
    "let: {v: i + 1}",
    "let: {v: 'divisible(i * 3 + 7, 8)'}",
    "let: {v: channels(image) + height(image)}",
    "let: {v: '[[1]] * 2000 == [[1]] * 2000'}",
    "let: {v: '[true] * 4096 == [true] * 4096'}",
    "let: {v: 'sum([1.5] * 4096)'}",
    "let: {" + ", ".join(f"v{n}: {n}" for n in range(40)) + "}",
    "many: {" + ", ".join(f"a{n}: {n} + i" for n in range(40)) + "}",
)
MANY = "many: {params: {" + ", ".join(f"a{n}: {n}" for n in range(40)) + "}, body: []}"
"""A block with many parameters."""


def _join_lines(line: Callable[[int], str], numbers: Random, head: str = HEAD) -> str:
    """Return lines up to the limit, or fewer."""
    text, number, size = [head], 0, len(head)
    max_lines = numbers.choice((1000, 8000, 20_000, 60_000, 200_000))
    while size < LIMIT and number < max_lines:
        text.append(line(number))
        size += len(text[-1])
        number += 1
    return "".join(text)


def make_words(numbers: Random) -> str:
    """Unknown op names, all different or equal, some of them similar to known ones."""
    stem = numbers.choice(("word", "rel", "con", "gelu", "é", "x" * 200, "matmul", "Conv2d"))
    many = numbers.choice((1, 7, 100_000))
    return _join_lines(lambda n: f"  - {stem}{n % many}\n", numbers, HEAD + "graph:\n")


def make_names(numbers: Random) -> str:
    """Values with many names, and an unknown name."""
    step = numbers.choice(("relu:", "identity:", "conv: {filters: 3, kernel: 1}"))
    text = _join_lines(lambda n: f"  - {step}\n    as: a{n}\n", numbers, HEAD + "graph:\n")
    end = numbers.choice(("add: [[], zzz]", "add: [[], a1]", "conv: {filters: a, kernel: 1}"))
    return text + f"  - {end}\n"


def make_blocks(numbers: Random) -> str:
    """Many blocks, called or not, and names that are not blocks."""
    body = numbers.choice(("[relu]", "[]", "[b1]", "[wrong]", "[conv: {filters: w, kernel: 1}]"))
    params = numbers.choice(
        (
            "",
            "params: {w: 8}, ",
            "params: {w: int}, ",
            "inputs: [x, y], ",
            'params: {w: "[1] * 4096"}, ',
            'params: {w: "[1.5] * 4096"}, ',
            "params: {w: sum(range(4096))}, ",
        )
    )
    text = _join_lines(lambda n: f"  b{n}: {{{params}body: {body}}}\n", numbers, HEAD + "blocks:\n")
    call = numbers.choice(("b{}", "wor{}", "b{}: {{w: 3}}", "b{}: {{other: 3}}"))
    call_numbers = range(max(1, (LIMIT - len(text)) // 30))
    return text + "graph:\n" + "".join(f"  - {call.format(n)}\n" for n in call_numbers)


def make_calls(numbers: Random) -> str:
    """Blocks that call each other twice per level: very many calls without a node."""
    deep, wide = numbers.choice((20, 60, 90)), numbers.choice((1, 2, 3))
    final_body = numbers.choice(("[]", "[relu]", "[wrong]", "[b0]"))
    rows = [f"  b{n}: {{body: [{', '.join([f'b{n + 1}'] * wide)}]}}\n" for n in range(deep)]
    return f"{HEAD}blocks:\n{''.join(rows)}  b{deep}: {{body: {final_body}}}\ngraph: [b0]\n"


def make_keys(numbers: Random) -> str:
    """Duplicate or unknown keys."""
    section = numbers.choice(("params:\n", "input:\n", "tests:\n", "blocks:\n", "output:\n", ""))
    many = numbers.choice((1, 100, 1 << 20))
    margin = "  " if section else ""
    text = _join_lines(lambda n: f"{margin}key{n % many}: 1\n", numbers, HEAD + section)
    return text + "graph: [relu]\n"


def make_flow(numbers: Random) -> str:
    """One line with very many entries."""
    pattern = numbers.choice(
        ("a: 1, ", "a{}: 1, ", "'a{}': [], ", "{}, ", "[], ", "relu, ", "*a, ")
    )
    bracket = numbers.choice(("{}", "[]"))
    inner = "".join(pattern.format(n) if "{}" in pattern else pattern for n in range(80_000))[
        :LIMIT
    ]
    key = numbers.choice(("params", "graph", "blocks", "doc", "tests", "use", "allow"))
    return (
        f"{HEAD}{key}: {bracket[0]}{inner}{bracket[1] * numbers.choice((1, 1, 0))}\ngraph: [relu]\n"
    )


def make_loops(numbers: Random) -> str:
    """Nested loops with few nodes, or none."""
    body = numbers.choice(WORK)
    for level in range(numbers.choice((2, 3, 5, 30))):
        loop = numbers.choice(LOOPS).replace("NAME", f"n{level}")
        body = loop.replace("BODY", ", ".join([body] * numbers.choice((1, 1, 2))) or "")
    extra = numbers.choice(("", "".join(f"  - let: {{x{n}: {n}}}\n" for n in range(15_000))))
    empty = "empty: {params: {a: 1, b: a + 1}, body: []}"
    head = f"{HEAD}blocks: {{{empty}, {MANY}}}\ngraph:\n{extra}"
    return f"{head}  - {body or 'relu'}\n"[:LARGEST]


def make_deep(numbers: Random) -> str:
    """Nested lists and mappings."""
    depth = numbers.choice((90, 110, 250, 300, 5000, 100_000))
    opened, closed = numbers.choice((("[", "]"), ("{a: ", "}"), ("[seq: [", "]]"), ("- ", "")))
    return f"{HEAD}graph: {opened * depth}relu{closed * depth}\n"[:LARGEST]


def make_expressions(numbers: Random) -> str:
    """Parameters or lets with long computations."""
    text = numbers.choice(
        (
            "sum(range(4096)) + " * 40 + "1",
            "[1] * 4096 + [2] * {0}",
            "(" * 60 + "1" + ")" * 60,
            "2 ** 62 // {0}",
            "p{1}" + " + p{1}" * 100,
            "1 + " * 249 + "1",
            "'" + "x" * 900 + "'",
            "p{0}",
            "p{1} + 1",
            "[1] * 4096 == [1] * 4096",
            "[[1]] * 2000 == [[1]] * 2000",
            "sum([1.5] * 4096)",
        )
    )
    line = '  p{0}: "{1}"\n'
    param_lines = _join_lines(
        lambda n: line.format(n, text.format(n + 1, max(0, n - 1))), numbers, HEAD + "params:\n"
    )
    return param_lines + "graph: [relu]\n"


def make_lists(numbers: Random) -> str:
    """Very long labels, tests, contracts, outputs or parameter lists."""
    part = numbers.choice(
        (
            "output: {{y: {{labels: [{}]}}}}\n|a{0}, ",
            "tests: [{}]\n|{{params: {0}}}, ",
            "tests: [{}]\n|{{set: {{n: {0}}}, params: 0}}, ",
            "tests: {{shape: {{{}}}}}\n|relu_{0}: [3, 8, 8], ",
            "blocks: {{b: {{require: [{}], body: [relu]}}}}\n|{{that: true}}, ",
            "blocks: {{b: {{params: {{{}}}, body: [relu]}}}}\n|p{0}: {0}, ",
            "blocks: {{b: {{inputs: [{}], body: [relu]}}}}\n|i{0}, ",
            "use: [{}]\n|lib{0}.yaml, ",
            "allow: [{}]\n|kind{0}, ",
            "outputs: {{{}}}\n|o{0}: {{}}, ",
        )
    )
    frame, _, pattern = part.partition("|")
    count = numbers.choice((1000, 15_000, 45_000))
    inner = "".join(pattern.format(n) for n in range(count))
    head = HEAD.replace("output: {y: {}}\n", "") if frame.startswith("output:") else HEAD
    loop = numbers.choice(("b", "relu", "repeat: {times: 4096, body: [b]}"))
    return f"{head}params: {{n: 1}}\n{frame.format(inner)}graph: [{loop}]\n"[:LARGEST]


def make_anchors(numbers: Random) -> str:
    """Very many aliases, or aliases of aliases."""
    width = numbers.choice((2, 10, 100))
    rows = ["a0: &a0 [relu]\n"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]\n" for n in range(1, 60)]
    many = "".join(f"  - *s\n" for _ in range(numbers.choice((10, 30_000))))  # noqa: F541
    return HEAD + "".join(rows) + f"graph:\n  - &s {{relu: null, as: x}}\n{many}"


def make_long(numbers: Random) -> str:
    """One name, number, text or comment that fills the file."""
    piece = numbers.choice(
        ("x", "9", "é", "\\u0041", "# ", "a b ", "- ", "\t", "\n", "{", "'", "!")
    )
    frame = numbers.choice(("name: {}", "doc: {}", "graph: [{}]", 'doc: "{}"', "params: {{{}: 1}}"))
    return HEAD + frame.format(piece * (LIMIT // 2 // len(piece.encode()))) + "\ngraph: [relu]\n"


def make_comments(numbers: Random) -> str:
    """Comments after and between entries, and after the ends of nested lists."""
    deep = numbers.choice((1, 60, 200))
    line = numbers.choice(("relu, #\n", "relu,\n#\n", "relu, relu, # x\n"))
    count = numbers.choice((1000, 30_000))
    lists = "[" * deep + line * count + "] #\n" * deep + "#\n" * count
    steps = numbers.choice(("  - relu # c\n", "# c\n  - relu\n", "  - relu\n#\n"))
    return HEAD + numbers.choice((f"graph: {lists}", f"graph:\n{steps * count}"))


def make_faults(numbers: Random) -> str:
    """Very many valid values, with a fault or a YAML feature at the end or in each."""
    valid_step = numbers.choice(("[]", "relu", "{a: 1}", '"a"', "&é relu", "!!str relu", '{"a":1}'))
    end = numbers.choice(("  - 'x", "  - a: b: c\n", "\t- x", "  - [", "? x\n", "---\n", "...\n"))
    return HEAD + "graph:\n" + f"  - {valid_step}\n" * numbers.choice((1000, 30_000, 49_000)) + end


def make_sums(numbers: Random) -> str:
    """Different expressions, each near the maximum length."""
    part = numbers.choice(("1+", "C+", "(1)+", "1,", "-1*", "i+"))
    frame = "conv: {{filters: '{}{}', kernel: 1}}" if part != "1," else "let: {{a: '[{}{}]'}}"
    return _join_lines(
        lambda n: f"  - {frame.format(part * (960 // len(part)), n)}\n", numbers, HEAD + "graph:\n"
    )


def make_sound(numbers: Random) -> str:
    """Networks near the maximum number of nodes, which must compile."""
    text = numbers.choice(
        (
            "graph:\n" + "  - relu\n" * 19_990,
            "graph: [repeat: {times: 9990, body: [conv: {filters: 3, kernel: 1}, relu]}]\n",
            "graph:\n"
            + "".join(f"  - conv: {{filters: {n % 5 + 1}, kernel: 1}}\n" for n in range(9900)),
            "graph: [concat: {times: 9990, branch: [conv: {filters: 1, kernel: 1}, relu]}]\n",
            "graph: [repeat: {times: 9900, body: [concat: [[], [conv: "
            "{filters: 1, kernel: 1}]]]}]\n",
            "blocks: {b: {params: {f: 3}, body: [conv: {filters: f, kernel: 1}, relu]}}\n"
            "graph: [repeat: {times: 9990, body: [b: {f: 'i % 7 + 1'}]}]\n",
        )
    )
    return HEAD + text


GIANTS: Mapping[str, Callable[[Random], str]] = {
    function.__name__: function
    for function in (
        make_words,
        make_names,
        make_blocks,
        make_calls,
        make_keys,
        make_flow,
        make_loops,
        make_deep,
        make_expressions,
        make_lists,
        make_anchors,
        make_long,
        make_comments,
        make_faults,
        make_sums,
        make_sound,
    )
}
"""The generators of giants by name."""
