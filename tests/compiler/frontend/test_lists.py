"""Lists of values that loops collect: their readers, and errors of wrong uses."""

import json
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from torch.nn import functional as f

from tcc.compiler.frontend.formatter import format_spec
from tcc.compiler.frontend.spec import Spec, load
from tcc.compiler.ir.cost import compute_cost
from tcc.compiler.ir.printer import print_graph
from tcc.compiler.lower.torch import create_module
from tcc.compiler.support.diagnostics import Diagnostic, UserError

HEAD = """\
tcc: 1
name: net
input: {image: {shape: [4, 8, 8]}}
output: {y: {}}
"""
LOOP = "repeat: {times: 3, collect: ys, body: [conv: {filters: C + 1, kernel: 1}]}"


def load_spec(tmp_path: Path, text: str) -> Spec:
    path = tmp_path / "net.yaml"
    path.write_text(HEAD + dedent(text))
    return load(path)


def read_errors(tmp_path: Path, text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(UserError) as caught:
        load_spec(tmp_path, text)
    return caught.value.diagnostics


CONVS = tuple(f"repeat_{n}/conv" for n in (1, 2, 3))


@pytest.mark.parametrize(
    ("final_step", "input_names"),
    [
        ("{concat: , from: ys}", CONVS),
        ("concat: [ys]", CONVS),
        ("concat: [[], ys, image]", (CONVS[2], *CONVS, "image")),
        ("{concat: , from: [image, ys]}", ("image", *CONVS)),
        ('concat: ["ys[1:]"]', CONVS[1:]),
        ('concat: ["ys[::-1]"]', CONVS[::-1]),
        ('{concat: , from: ["ys[:2]", "ys[-1]"]}', CONVS),
        ('{relu: , from: "ys[0]"}', CONVS[:1]),
        ('{relu: , from: "ys[len(ys) - 2]"}', CONVS[1:2]),
        ('{relu: , from: "ys[:1]"}', CONVS[:1]),
        ('repeat: {times: 1, body: [{relu: , from: "ys[i]"}]}', CONVS[:1]),
        ('{both: , from: "ys[:2]"}', (CONVS[1], CONVS[0])),
        ('conv: {filters: "channels(ys[0]) + len(ys)", kernel: 1}', (CONVS[2],)),
    ],
)
def test_nodes_that_read_a_list_get_all_its_values(
    tmp_path: Path, final_step: str, input_names: tuple[str, ...]
) -> None:
    block = "blocks: {both: {inputs: [a, b], body: [concat: [b, a]]}}\n"
    built = load_spec(tmp_path, f"{block}graph: [{LOOP}, {final_step}]\n")
    assert built.graph.nodes[-1].inputs == input_names


def test_each_collects_the_last_value_of_every_iteration(tmp_path: Path) -> None:
    text = """
        graph:
          - each:
              of: [8, 16, 32]
              as: width
              collect: skips
              body:
                - when: {if: not first, then: [max_pool: {kernel: 2}]}
                - conv: {filters: width, kernel: 3, padding: same}
          - repeat:
              times: len(skips) - 1
              body:
                - let: {skip: -2 - i}
                - resize: {scale: 2}
                - conv: {filters: "channels(skips[skip])", kernel: 1}
                - add:
                    - []
                    - skips[skip]
    """
    built = load_spec(tmp_path, text)
    adds = [n.inputs for n in built.graph.nodes if n.op.keyword == "add"]
    assert adds == [("repeat_1/conv", "conv_2"), ("repeat_2/conv", "conv_1")]
    assert built.graph.nodes[-1].type.shape == (8, 8, 8)


def test_a_list_of_an_inner_loop_is_new_in_each_iteration(tmp_path: Path) -> None:
    inner = "repeat: {times: 2, collect: ys, body: [relu]}"
    text = f"graph: [repeat: {{times: 2, body: [{inner}, concat: [ys]]}}]\n"
    assert [
        n.inputs for n in load_spec(tmp_path, text).graph.nodes if n.op.keyword == "concat"
    ] == [(f"repeat_{n}/repeat_1/relu", f"repeat_{n}/repeat_2/relu") for n in (1, 2)]


def test_a_list_from_before_a_loop_is_carried(tmp_path: Path) -> None:
    inner = "repeat: {times: 2, collect: ys, body: [concat: [ys]]}"
    text = f"graph: [{LOOP}, repeat: {{times: 2, body: [{inner}]}}, concat: [ys]]\n"
    nodes = load_spec(tmp_path, text).graph.nodes[:-1]
    joins = [n for n in nodes if n.op.keyword == "concat"]
    assert [n.inputs for n in joins] == [
        *[CONVS] * 2,
        *[("repeat_4/repeat_1/concat", "repeat_4/repeat_2/concat")] * 2,
    ]


WRONG = {
    "an op of one value": ("{relu: , from: ys}", "E0218", "relu", "`relu` takes one value"),
    "beyond the end": ('{relu: , from: "ys[3]"}', "E0222", "3]", "index 3 is outside a list of 3"),
    "slice beyond the end": ('concat: ["ys[1:9]"]', "E0222", "9]", "9 is outside a list of 3"),
    "no list": (
        '{relu: , from: "image[0]"}',
        "E0222",
        '"image[0]',
        "`image` is one value, not a list",
    ),
    "a sum": ("{relu: , from: 1 + 2}", "E0220", "1 + 2", "this is not the name of a value"),
    "unknown": ('{relu: , from: "zs[0]"}', "E0217", '"zs[0]', "no value is called `zs`"),
    "empty": ('{concat: , from: "ys[3:]"}', "E0230", '"ys[3:]', "`concat` reads no value"),
    "empty branches": ('concat: ["ys[3:]"]', "E0230", "concat", "`concat` has no branch"),
    "a block of one value": (
        "{one: , from: ys}",
        "E0218",
        "one",
        "`one` takes 1 value (one value)",
    ),
    "as a number": ("conv: {filters: ys, kernel: 1}", "E0221", "ys, kernel", "unknown name `ys`"),
}


@pytest.mark.parametrize(
    ("final_step", "code", "pointed", "message"), WRONG.values(), ids=WRONG.keys()
)
def test_wrong_uses_of_a_list_are_reported(
    tmp_path: Path, final_step: str, code: str, pointed: str, message: str | None
) -> None:
    text = f"blocks: {{one: {{body: [relu]}}}}\ngraph: [{LOOP}, {final_step}]\n"
    (diagnostic,) = read_errors(tmp_path, text)
    assert (diagnostic.code, diagnostic.at.line) == (code, 6)
    assert diagnostic.at.text[diagnostic.at.column - 1 :].startswith(pointed)
    assert message is None or diagnostic.message == message


def test_an_output_must_be_one_value(tmp_path: Path) -> None:
    def head(source: str) -> str:
        return HEAD.replace("{y: {}}", f"{{y: {{from: {source}}}}}")

    path = tmp_path / "net.yaml"
    path.write_text(f"{head(chr(34) + 'ys[1]' + chr(34))}graph: [{LOOP}]\n")
    assert load(path).graph.outputs[0].value == CONVS[1]
    path.write_text(f"{head('ys')}graph: [{LOOP}]\n")
    with pytest.raises(UserError) as caught:
        load(path)
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.at.line, diagnostic.at.column) == ("E0218", 4, 20)
    assert diagnostic.help == "name one of them, such as `ys[0]`, or join them: `concat: [ys]`"


def test_a_failed_loop_causes_no_errors_about_its_list(tmp_path: Path) -> None:
    loop = LOOP.replace("times: 3", "times: many")
    (diagnostic,) = read_errors(
        tmp_path, f'graph: [{loop}, concat: [ys, "ys[7]"], {{relu: , from: ys}}]\n'
    )
    assert (diagnostic.code, diagnostic.message) == ("E0221", "unknown name `many`")


TEXT = f"""{HEAD}graph:
  - {LOOP}
  - concat:
      - []
      - ys[1:]
      - [{{relu: , from: "ys[0]"}}]
"""


def test_canonical_text_and_json_mean_the_same(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(TEXT)
    graph = print_graph(load(path).graph)
    tidy = format_spec(TEXT, "net.yaml")
    assert format_spec(tidy, "net.yaml") == tidy
    path.write_text(tidy)
    assert print_graph(load(path).graph) == graph
    body = {
        "tcc": 1,
        "name": "net",
        "input": {"image": {"shape": [4, 8, 8]}},
        "output": {"y": {}},
        "graph": [
            {
                "repeat": {
                    "times": 3,
                    "collect": "ys",
                    "body": [{"conv": {"filters": "C + 1", "kernel": 1}}],
                }
            },
            {"concat": [[], "ys[1:]", [{"relu": None, "from": "ys[0]"}]]},
        ],
    }
    path = tmp_path / "net.json"
    path.write_text(json.dumps(body))
    assert print_graph(load(path).graph) == graph


# --- Res2Net, as the shipped block and as a second definition ------------------------------

RES2NET = """
    use: [blocks/res2net.yaml]
    graph: [res2net_bottleneck: {filters: FILTERS, width: WIDTH, scales: SCALES}]
"""


def compute_conv_bn(x, w, path, act=True):
    """Return the output of a size-preserving convolution, batch norm and ReLU."""
    kernel = torch.tensor(w[f"{path}/conv.weight"])
    mean, var, weight, bias = (
        torch.tensor(w[f"{path}/batch_norm.{role}"]) for role in ("mean", "var", "weight", "bias")
    )
    y = f.conv2d(x, kernel, padding=kernel.shape[-1] // 2)
    y = f.batch_norm(y, mean, var, weight, bias, eps=1e-5)
    return f.relu(y) if act else y


def compute_res2net(x, w, scales):
    """Compute equation 1 of the paper directly."""
    top = "res2net_bottleneck"
    xs = compute_conv_bn(x, w, f"{top}/conv_bn_1").chunk(scales, dim=1)
    ys = [xs[0]]
    for i, part in enumerate(xs[1:], 1):
        path = f"{top}/res2net_scales/repeat_{i}/conv_bn"
        ys.append(compute_conv_bn(part if i == 1 else part + ys[-1], w, path))
    y = compute_conv_bn(torch.cat(ys, dim=1), w, f"{top}/conv_bn_2", act=False)
    short = f"{top}/conv_bn_3"
    return f.relu(
        y + (compute_conv_bn(x, w, short, act=False) if f"{short}/conv.weight" in w else x)
    )


@pytest.mark.parametrize(("filters", "width", "scales"), [(4, 3, 4), (12, 2, 2), (10, 2, 7)])
def test_res2net_equals_its_definition(
    tmp_path: Path, filters: int, width: int, scales: int
) -> None:
    text = RES2NET
    for placeholder, number in {"FILTERS": filters, "WIDTH": width, "SCALES": scales}.items():
        text = text.replace(placeholder, str(number))
    graph = load_spec(tmp_path, text).graph
    numbers = np.random.default_rng(0)
    weights = {
        name: abs(numbers.normal(size=p.shape)).astype(np.float32) + (p.role == "var")
        for name, p in graph.params.items()
    }
    x = numbers.normal(size=(2, 4, 8, 8)).astype(np.float32)
    net = create_module(graph, weights).eval()
    with torch.no_grad():
        actual = net(torch.tensor(x))
        expected = compute_res2net(torch.tensor(x), weights, scales)
    (actual,) = actual.values() if isinstance(actual, dict) else (actual,)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    middle = width * scales
    shortcut = 4 * filters + 2 * filters if filters != 4 else 0
    assert compute_cost(graph).params == (
        4 * middle + 2 * middle + (scales - 1) * (9 * width**2 + 2 * width)
        + middle * filters + 2 * filters + shortcut
    )  # fmt: skip


def test_res2net_refuses_unequal_splits(tmp_path: Path) -> None:
    (diagnostic,) = read_errors(
        tmp_path, "use: [blocks/res2net.yaml]\ngraph: [res2net_scales: {scales: 3}]\n"
    )
    assert (diagnostic.code, diagnostic.at.line, diagnostic.at.column) == ("E0219", 6, 9)
