"""Meaning of a spec: the graph of its steps and the names of its nodes."""

import json
from pathlib import Path
from textwrap import dedent

import pytest

from tcc.compiler.frontend.spec import Spec, load
from tcc.compiler.ir.printer import print_graph

HEAD = """\
tcc: 1
name: net
input: {image: {shape: [4, 8, 8]}}
output: {y: {}}
"""


def load_spec(tmp_path: Path, text: str, head: str = HEAD, **settings: str) -> Spec:
    path = tmp_path / "net.yaml"
    path.write_text(head + dedent(text))
    return load(path, settings)


def list_names(built: Spec) -> list[str]:
    return [node.name for node in built.graph.nodes]


def test_graph_is_printed(tmp_path: Path) -> None:
    text = """
        graph:
          - conv: {filters: 8, kernel: 3, stride: 2, padding: same}
          - batch_norm
          - add: [[], [conv: {filters: C, kernel: [1, 3], padding: [0, 1], bias: false}, relu6]]
    """
    assert print_graph(load_spec(tmp_path, text).graph) == dedent("""\
        graph net {
          input %image : float32[4x8x8]
          %conv_1 = conv(%image) {filters=8, kernel=[3, 3], stride=[2, 2], padding=[0, 0, 1, 1], dilation=[1, 1], groups=1, bias=true} : float32[8x4x4]
          %batch_norm = batch_norm(%conv_1) {eps=1e-05, momentum=0.1} : float32[8x4x4]
          %conv_2 = conv(%batch_norm) {filters=8, kernel=[1, 3], stride=[1, 1], padding=[0, 1, 0, 1], dilation=[1, 1], groups=1, bias=false} : float32[8x4x4]
          %relu6 = relu6(%conv_2) : float32[8x4x4]
          %add = add(%batch_norm, %relu6) : float32[8x4x4]
          output y = %add
        }
    """)


def test_paths_contain_ids_op_names_blocks_and_iterations(tmp_path: Path) -> None:
    text = """
        blocks:
          cell: {body: [relu, conv: {filters: C, kernel: 1}, relu]}
        graph:
          - cell
          - repeat: {times: 2, body: [cell]}
          - {relu: , id: gate}
          - each: {of: [1, 2], as: n, body: [sigmoid]}
          - {seq: [tanh], id: tail}
          - {repeat: {times: 1, body: [tanh]}, id: stage}
    """
    cell = ["relu_1", "conv", "relu_2"]
    assert list_names(load_spec(tmp_path, text)) == [
        *(f"cell/{n}" for n in cell),
        *(f"repeat_{i}/cell/{n}" for i in (1, 2) for n in cell),
        "gate",
        "sigmoid_1",
        "sigmoid_2",
        "tail/tanh",
        "stage_1/tanh",
    ]


def test_a_step_added_in_another_block_changes_no_path(tmp_path: Path) -> None:
    text = """
        blocks:
          a: {body: [relu, BODY]}
          b: {body: [conv: {filters: 4, kernel: 1}, relu]}
        graph: [a, b, a, b]
    """
    original_names = list_names(load_spec(tmp_path, text.replace("BODY", "tanh")))
    extended_names = list_names(load_spec(tmp_path, text.replace("BODY", "tanh, sigmoid")))
    assert set(original_names) < set(extended_names)


def test_squeeze_and_excite(tmp_path: Path) -> None:
    text = """
        graph:
          - let: {full: C}
          - mul: [[], [global_avg_pool, conv: {filters: full // 2, kernel: 1}, relu,
                       conv: {filters: full, kernel: 1}, sigmoid]]
    """
    built = load_spec(tmp_path, text)
    mul = built.graph.nodes[-1]
    assert mul.inputs == ("image", "sigmoid")
    assert mul.type.shape == (4, 8, 8)


def test_inception_cell_and_named_values(tmp_path: Path) -> None:
    text = """
        graph:
          - {relu: , as: early}
          - concat:
              - [conv: {filters: 2, kernel: 1}]
              - - conv: {filters: 2, kernel: 1}
                - conv: {filters: 3, kernel: [1, 7], padding: [0, 3]}
              - [max_pool: {kernel: 3, stride: 1, padding: 1}, conv: {filters: 1, kernel: 1}]
              - early
            as: cell
          - {concat: , from: [cell, early]}
    """
    assert load_spec(tmp_path, text).graph.nodes[-1].type.shape == (14, 8, 8)


def test_channel_shuffle_by_slices(tmp_path: Path) -> None:
    text = """
        graph:
          - concat: {times: 2, branch: [slice: {start: i, step: 2}]}
    """
    assert [n.op.keyword for n in load_spec(tmp_path, text).graph.nodes] == [
        "slice",
        "slice",
        "concat",
    ]


def test_block_with_two_inputs(tmp_path: Path) -> None:
    text = """
        blocks:
          merge: {inputs: [x, skip], body: [conv: {filters: channels(skip), kernel: 1}, add: [[], skip]]}
        graph:
          - {conv: {filters: 6, kernel: 1}, as: a}
          - {conv: {filters: 9, kernel: 1}, as: b}
          - {merge: , from: [b, a]}
    """
    built = load_spec(tmp_path, text)
    assert built.graph.nodes[-1].inputs == ("merge/conv", "conv_1")


def test_a_block_sees_only_its_parameters_and_input(tmp_path: Path) -> None:
    text = """
        params: {width: 3}
        blocks:
          grow:
            params: {by: {type: int, default: 2}, filters: {type: int, default: C * by}}
            body: [conv: {filters: filters, kernel: 1}]
        graph: [grow: {by: width}, grow]
    """
    built = load_spec(tmp_path, text)
    assert built.shapes["grow_1"] == (12, 8, 8)
    assert built.shapes["grow_2"] == (24, 8, 8)


def test_loop_variables(tmp_path: Path) -> None:
    text = """
        graph:
          - repeat:
              times: 3
              body:
                - when: {if: first or last, then: [conv: {filters: i + 1, kernel: 1}], else: [relu]}
    """
    assert [n.type.shape[0] for n in load_spec(tmp_path, text).graph.nodes] == [1, 1, 3]


def test_no_op_activations_and_pools_make_no_node(tmp_path: Path) -> None:
    text = """
        graph: [relu, activation: {kind: none}, adaptive_avg_pool: {size: 8}, adaptive_avg_pool: {size: 4}]
    """
    assert list_names(load_spec(tmp_path, text)) == ["relu", "adaptive_avg_pool_2"]


def test_outputs(tmp_path: Path) -> None:
    head = HEAD.replace(
        "output: {y: {}}",
        "output: {y: {activation: softmax, labels: [a, b]}, aux: {train_only: true}, mid: {from: m}}",
    )
    text = """
        graph:
          - {relu: , as: m}
          - side: {as: aux, body: [global_max_pool]}
          - global_avg_pool
          - flatten
          - linear: {units: 2}
    """
    outputs = load_spec(tmp_path, text, head).graph.outputs
    assert [(o.name, o.value, o.train_only) for o in outputs] == [
        ("y", "linear", False),
        ("aux", "global_max_pool", True),
        ("mid", "relu", False),
    ]
    assert outputs[0].labels == ("a", "b")


def test_defaults_can_depend_on_settings(tmp_path: Path) -> None:
    text = """
        params: {names: {type: names, default: [a, b]}, classes: len(names), half: classes // 2}
        graph: [conv: {filters: classes, kernel: 1}]
    """
    built = load_spec(tmp_path, text, names="[x, y, z, w]")
    assert built.params == {"names": ("x", "y", "z", "w"), "classes": 4, "half": 2}
    assert load_spec(tmp_path, text, classes="5").graph.nodes[0].type.shape[0] == 5


def test_json_specs_mean_the_same(tmp_path: Path) -> None:
    body = {
        "tcc": 1,
        "name": "net",
        "input": {"image": {"shape": [4, 8, 8]}},
        "graph": ["relu", {"conv": {"filters": "C * 2", "kernel": 3}}],
        "output": {"y": None},
    }
    path = tmp_path / "net.json"
    path.write_text(json.dumps(body, indent=2))
    text = "graph: [relu, conv: {filters: C * 2, kernel: 3}]\n"
    assert print_graph(load(path).graph) == print_graph(load_spec(tmp_path, text).graph)


def test_the_input_has_the_preprocessing(tmp_path: Path) -> None:
    head = HEAD.replace(
        "{shape: [4, 8, 8]}",
        "{shape: [1, 8, 6], preprocess: {color: gray, resize: {size: [8, 6], mode: cover}, mean: [0.5], std: [2]}}",
    )
    (source,) = load_spec(tmp_path, "graph: [relu]", head).graph.inputs
    assert source.preprocess is not None
    assert source.preprocess.resize is not None
    assert (source.preprocess.resize.size, source.preprocess.std) == ((8, 6), (2.0,))


def test_used_libraries_are_recorded_with_their_digest(tmp_path: Path) -> None:
    library = tmp_path / "lib.yaml"
    library.write_text("tcc: 1\nblocks: {twice: {body: [relu, relu]}}\n")
    text = "use: [lib.yaml, blocks/separable.yaml]\ngraph: [twice, ds_conv: {filters: 3}]\n"
    original = load_spec(tmp_path, text)
    library.write_text("tcc: 1\nblocks: {twice: {body: [relu, tanh]}}\n")
    assert load_spec(tmp_path, text).digest != original.digest
    assert load_spec(tmp_path, text, head=HEAD).shapes["ds_conv"] == (3, 8, 8)


@pytest.mark.parametrize("depth", [30, 80])
def test_deep_nesting_compiles(tmp_path: Path, depth: int) -> None:
    nest = "relu"
    for _ in range(depth):
        nest = f"{{add: [[], [{nest}]]}}"
    assert len(load_spec(tmp_path, f"graph: [{nest}]").graph.nodes) == depth + 1


def test_a_thousand_layers_compile(tmp_path: Path) -> None:
    body = "\n".join("  - conv: {filters: C, kernel: 3, padding: 1}" for _ in range(1000))
    assert len(load_spec(tmp_path, f"graph:\n{body}\n").graph.nodes) == 1000
