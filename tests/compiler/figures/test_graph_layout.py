"""Figures of graphs: no overlaps, and every text fits, for any spec."""

import xml.etree.ElementTree as ET
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import pytest

from tcc.compiler.figures import Direction, Level
from tcc.compiler.figures.graph_image import FigureOptions, draw, plan_drawing
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Graph, Input, Node, Output, make_node, verify
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import Add, Concat, Conv, GlobalAvgPool, Relu
from tcc.testing.nets import NetBuilder, build_dense

ROOT = Path(__file__).resolve().parents[3]
SPECS = sorted(p for p in (ROOT / "spec").rglob("*.yaml") if "\ngraph:" in p.read_text())
SVG = "{http://www.w3.org/2000/svg}"
BOTH = pytest.mark.parametrize("level", list(Level))


@pytest.fixture(scope="module", params=SPECS, ids=lambda p: p.stem)
def graph(request):
    return load(request.param).graph


def get_rectangle(frame):
    return frame.x, frame.y, frame.x + frame.width, frame.y + frame.height


def is_overlapping(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def contains_rectangle(outer, inner):
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and inner[2] <= outer[2]
        and inner[3] <= outer[3]
    )


def compute_extent(text):
    """Return the largest rectangle that a text can take."""
    width = text.font.measure_width(text.text)
    left_edge = text.x - width // 2 if text.centred else text.x
    return left_edge, text.y - text.font.size, left_edge + width, text.y + 3


def check(drawing, flows_right=False):
    """Nothing overlaps, everything is inside its container, and lines are horizontal or vertical."""
    page = (0, 0, drawing.width, drawing.height)
    siblings = defaultdict(list)
    for frame in drawing.frames:
        siblings[frame.parent].append(get_rectangle(frame))
        outer = page if frame.parent < 0 else get_rectangle(drawing.frames[frame.parent])
        assert contains_rectangle(outer, get_rectangle(frame)), frame.box.path
        for text in frame.texts:
            assert contains_rectangle(get_rectangle(frame), compute_extent(text)), text
    for boxes in siblings.values():
        assert not [pair for pair in combinations(boxes, 2) if is_overlapping(*pair)]
    check_texts(drawing, page)
    check_apart(drawing.wires)
    for wire in drawing.wires:
        check_wire(wire, siblings[wire.parent], page, flows_right)


def check_texts(drawing, page):
    """No box covers a block header or a shape, and shapes do not overlap."""
    for frame in drawing.frames:
        if frame.parent >= 0:
            for text in drawing.frames[frame.parent].texts:
                assert not is_overlapping(get_rectangle(frame), compute_extent(text)), text
    leaves = [get_rectangle(f) for f in drawing.frames if not f.box.children]
    shapes = [compute_extent(text) for text in drawing.shapes]
    for shape in shapes:
        assert contains_rectangle(page, shape)
        assert not [box for box in leaves if is_overlapping(box, shape)], shape
    assert not [pair for pair in combinations(shapes, 2) if is_overlapping(*pair)]


def check_apart(wires):
    """Lines overlap only if they carry one value or enter one box."""
    tracks = defaultdict(list)
    for wire in wires:
        for a, b in zip(wire.points, wire.points[1:], strict=False):
            axis = 0 if a[0] == b[0] else 1
            tracks[axis, a[axis]].append((*sorted((a[1 - axis], b[1 - axis])), wire))
    for segments in tracks.values():
        for (low, high, first_wire), (low_2, high_2, second_wire) in combinations(segments, 2):
            if low < high_2 and low_2 < high:
                shared_ends = {first_wire.points[0], first_wire.points[-1]} & {
                    second_wire.points[0],
                    second_wire.points[-1],
                }
                assert shared_ends, (first_wire, second_wire)


def check_wire(wire, boxes, page, flows_right):
    for (x, y), (to_x, to_y) in zip(wire.points, wire.points[1:], strict=False):
        assert x == to_x or y == to_y
        assert to_x >= x if flows_right else to_y >= y, "lines must follow the flow"
        line = (min(x, to_x), y, max(x, to_x), to_y)
        assert contains_rectangle(page, line)
        assert not [box for box in boxes if is_overlapping(box, line)], wire


@BOTH
@pytest.mark.parametrize("direction", list(Direction))
def test_every_spec_is_drawn_without_overlaps(graph, level, direction):
    check(plan_drawing(graph, level, direction), direction is Direction.RIGHT)


@BOTH
def test_figures_of_every_spec_are_valid_and_reproducible(graph, level):
    text = draw(graph, FigureOptions(level))
    assert text == draw(graph, FigureOptions(level))
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert "href" not in text
    assert "script" not in text


def test_every_operation_is_shown_at_op_level(graph):
    paths = [
        f.box.path
        for f in plan_drawing(graph, Level.OP).frames
        if f.box.nodes and not f.box.children
    ]
    assert sorted(paths) == sorted(node.name for node in graph.nodes)


def test_block_level_costs_add_up_to_the_graph(graph):
    """The costs of the top-level boxes add up to those of the graph."""
    from tcc.compiler.ir.cost import compute_cost

    top = [f.box for f in plan_drawing(graph, Level.BLOCK).frames if f.parent < 0]
    assert sum(box.params for box in top) == compute_cost(graph).params
    assert sum(box.macs for box in top) == sum(row.macs for row in compute_cost(graph).rows)


def test_the_number_of_blocks_is_bounded(graph):
    assert len(plan_drawing(graph, Level.BLOCK).frames) < 150


def list_titles(drawing):
    return [frame.texts[0].text for frame in drawing.frames]


class TestDenseNet:
    @pytest.fixture
    def drawing(self):
        return plan_drawing(load(ROOT / "spec/baselines/densenet121.yaml").graph)

    def test_equal_layers_share_one_box(self, drawing):
        layer_titles = [title for title in list_titles(drawing) if title.startswith("dense_layer")]
        assert layer_titles == [f"dense_layer \u00d7 {n}" for n in (6, 12, 24, 16)]

    def test_the_box_shows_the_total_cost(self, drawing):
        [stage] = [f for f in drawing.frames if f.box.path == "stage_1/repeat_6/dense_layer"]
        assert [t.text for t in stage.texts][1:] == [
            "335,040 params, 1.04 G MACs in total",
            "shown: the last one",
        ]

    def test_the_main_line_is_straight(self, drawing):
        """Every arrow into an outermost box ends at the same horizontal position."""
        end_columns = {
            wire.points[-1][0]
            for wire in drawing.wires
            for frame in drawing.frames
            if frame.parent < 0 and wire.points[-1][1] == frame.y
        }
        assert len(end_columns) == 1


def test_different_blocks_are_not_merged():
    names = list_titles(plan_drawing(load(ROOT / "spec/baselines/resnet18.yaml").graph))
    assert "basic_block \u00d7 2" in names
    assert [f"repeat_{n}/basic_block" in names for n in range(3, 9)] == [True] * 6


def test_equal_branches_share_one_box():
    """FastNet has 2, 4 and 8 branches in its stages."""
    names = list_titles(plan_drawing(load(ROOT / "spec/fastnet.yaml").graph))
    assert [name for name in names if "\u00d7" in name] == ["branch_conv_1..8 \u00d7 8"]
    assert names.count("branch_conv_3") == 4


def test_boxes_describe_their_operations():
    add = NetBuilder(3, 32, 32)
    add("stem", Conv(8, (3, 3), (2, 2), 1))
    add("down/conv", Conv(16, (1, 7), padding=(0, 3, 0, 3), groups=4))
    add("down/relu", Relu())
    drawing = plan_drawing(add.build(), Level.OP)
    box_texts = {f.box.path: [t.text for t in f.texts] for f in drawing.frames}
    assert box_texts["stem"] == ["stem: conv", "3x3, 8 filters, stride 2, pad 1"]
    assert box_texts["down/conv"] == ["conv", "1x7, 16 filters, pad 0x3, 4 groups"]
    assert box_texts["down/relu"] == ["relu"]
    assert box_texts["down"] == ["down", "240 params, 57.34 k MACs"]
    assert [s.text for s in drawing.shapes] == ["3x32x32", "8x16x16", "16x16x16", "16x16x16"]


def test_outputs_show_that_they_are_training_only():
    drawing = plan_drawing(build_dense())
    box_texts = [[t.text for t in f.texts] for f in drawing.frames if f.box.kind == "output"]
    assert any("training only" in lines[-1] for lines in box_texts)


def test_mutually_dependent_blocks_are_drawn_as_operations():
    """No box order could draw two mutually dependent blocks."""
    add = NetBuilder(4, 8, 8)
    add("a/first", Relu())
    add("b/first", Relu())
    add("a/second", Relu())
    add("b/second", Relu())
    drawing = plan_drawing(add.build(), Level.OP)
    check(drawing)
    assert set(list_titles(drawing)) >= {
        f"{block}/{n}: relu" for block in "ab" for n in ("first", "second")
    }


def build_woven_graph(count):
    """Return a graph in which each value is read at once, a little later and much later."""
    add = NetBuilder(4, 8, 8)
    names = ["image"]
    for n in range(count // 2):
        add(f"block_{n // 10}/relu_{n}", Relu(), names[-1])
        distant_name = names[(n * 7919) % len(names)]
        names.append(
            add(f"block_{n // 10}/add_{n}", Add(), f"block_{n // 10}/relu_{n}", distant_name)
        )
    return add.build()


@BOTH
def test_a_thousand_nodes_in_any_order_are_drawn(level):
    drawing = plan_drawing(build_woven_graph(1000), level)
    check(drawing)
    if level is Level.OP:
        assert len([f for f in drawing.frames if not f.box.children]) == 1002


@BOTH
def test_values_with_many_readers_are_drawn(level):
    """A flat DenseNet: every step reads the last twenty values."""
    add = NetBuilder(4, 8, 8)
    names = [add("stem", Relu())]
    for n in range(60):
        if n:
            add(f"concat_{n}", Concat(), *names[-20:], "image")
        names.append(add(f"conv_{n}", Conv(4, (1, 1))))
    check(plan_drawing(add.build(), level))


def test_a_graph_without_operations_is_drawn():
    graph = Graph("none", (Input("image", TensorType((3, 4, 4))),), (), (Output("image", "image"),))
    drawing = plan_drawing(verify(graph))
    check(drawing)
    assert [f.box.kind for f in drawing.frames] == ["input", "output"]


def test_many_inputs_and_outputs_are_drawn():
    image = TensorType((4, 8, 8))
    nodes: list[Node] = []
    types = {"one": image, "two": image}
    for name, op, reads in (
        ("mix/add", Add(), ("one", "two")),
        ("mix/relu", Relu(), ("two",)),
        ("mix/concat", Concat(), ("mix/add", "mix/relu", "one")),
        ("gap", GlobalAvgPool(), ("mix/concat",)),
    ):
        node = make_node(name, op, reads, tuple(types[r] for r in reads))
        nodes.append(node)
        types[name] = node.type
    outputs = tuple(Output(f"o{n}", v) for n, v in enumerate(("gap", "mix/add", "mix/relu")))
    inputs = (Input("one", image), Input("two", image))
    graph = verify(Graph("many", inputs, tuple(nodes), outputs))
    for level in Level:
        check(plan_drawing(graph, level))
        assert ET.fromstring(draw(graph, FigureOptions(level))) is not None


HOSTILE = "</text><script>alert(1)</script>&amp;\"'\x00\x1b[31m\u202e]]>" + "W字🧪" * 400


@BOTH
def test_hostile_names_are_escaped(level):
    image = TensorType((4, 8, 8))
    inner = make_node(f"{HOSTILE}/relu", Relu(), ("image",), (image,))
    outer = make_node(f"{HOSTILE}/{HOSTILE}", Conv(4, (1, 1)), (inner.name,), (image,))
    graph = Graph(HOSTILE, (Input("image", image),), (inner, outer), (Output(HOSTILE, outer.name, labels=(HOSTILE, "a")),))  # fmt: skip
    check(plan_drawing(graph, level))
    root = ET.fromstring(draw(graph, FigureOptions(level), HOSTILE))
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg", "title", "desc", "style", "rect", "g", "text", "path",
    }  # fmt: skip
    svg_text = "".join(root.itertext())
    assert "<script>alert(1)</script>&amp;" in svg_text
    assert not set(svg_text) & set("\x00\x1b\u202e")
