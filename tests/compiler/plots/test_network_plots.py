"""Plots are correct and reproducible: layers, class maps and int8 activations as real values."""

import json
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from matplotlib.backends.backend_agg import FigureCanvasAgg

from tcc import load
from tcc.compiler.driver import pipeline
from tcc.compiler.plots import drawing, int8_plots, layers, network_plots, training_curves
from tcc.compiler.quant.program.float_comparison import LayerLoss
from tcc.compiler.reference import float_program
from tcc.compiler.support.diagnostics import UserError

SPEC = """\
tcc: 1
name: net
input: {image: {shape: [3, 12, 12], preprocess: {resize: {size: [12, 12]}, mean: [.5, .4, .3], std: [.2, .3, .4]}}}
graph: [conv: {filters: 5, kernel: 3}, batch_norm, relu, conv: {filters: 6, kernel: 3}, relu, global_avg_pool, flatten, linear: {units: 3}]
output: {scores: {activation: softmax, labels: [a, b, c]}}
"""


@pytest.fixture
def net(tmp_path):
    (tmp_path / "net.yaml").write_text(SPEC)
    spec = load(tmp_path / "net.yaml")
    return network_plots.PlottedNetwork(spec, pipeline.create_random_weights(spec.graph))


@pytest.fixture
def quantised(net, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3), np.uint8)
    np.savez(tmp_path / "set.npz", images=pixels, labels=np.arange(8) % 3)
    from tcc.compiler.data.dataset import read_dataset

    data = read_dataset(tmp_path / "set.npz")
    return data, int8_plots.quantize_network(net, data, None)[0]


class TestClassMaps:
    """Before a mean of maps, class activation maps are the weighted maps, and so are gradients."""

    @pytest.mark.parametrize(
        "end",
        [
            "global_avg_pool, flatten, dropout: {rate: 0.2}, linear: {units: 3}",
            "global_avg_pool, dropout: {rate: 0.5}, flatten, identity, linear: {units: 3}",
            "dropout: {rate: 0.5}, global_avg_pool, flatten, linear: {units: 3}, identity",
            "avg_pool: {kernel: 8}, flatten, linear: {units: 3}",
        ],
    )
    def test_inference_identities_are_allowed_after_the_mean(self, tmp_path, end):
        class_maps = pytest.importorskip("tcc.compiler.plots.class_maps")
        text = SPEC.replace("global_avg_pool, flatten, linear: {units: 3}", end)
        (tmp_path / "net.yaml").write_text(text)
        spec = load(tmp_path / "net.yaml")
        net = network_plots.PlottedNetwork(spec, pipeline.create_random_weights(spec.graph))
        value, linear = class_maps.find_head(net.model, "scores")
        assert linear is not None
        tensor = np.random.default_rng(1).normal(size=(3, 12, 12)).astype(np.float32)
        maps = layers.create_float_runner(net.model, value)(tensor)
        raw = float_program.create_runner(net.model)(tensor)["scores"]
        bias = net.model.weights[linear.params[1]]
        for index in range(3):
            heat_map = class_maps.compute_activation_map(net.model, maps, linear, raw, index)
            # The mean of a class map is the class output without the bias.
            assert heat_map.heat.mean() + bias[index] == pytest.approx(raw[index], abs=1e-5)

    def test_class_maps_before_a_mean_are_weighted_maps(self, net):
        class_maps = pytest.importorskip("tcc.compiler.plots.class_maps")
        tensor = np.random.default_rng(1).normal(size=(3, 12, 12)).astype(np.float32)
        value, linear = class_maps.find_head(net.model, "scores")
        maps = layers.create_float_runner(net.model, value)(tensor)
        raw = float_program.create_runner(net.model)(tensor)["scores"]
        heat_map = class_maps.compute_activation_map(net.model, maps, linear, raw, 1)
        weights, bias = (net.weight_source.tensors[name] for name in linear.params)
        assert heat_map.heat.mean() + bias[1] == pytest.approx(raw[1], abs=1e-5)
        grad = class_maps.compute_gradcam(net.model, "scores", value, tensor, 1)
        pixel_count = maps.shape[1] * maps.shape[2]
        expected = np.maximum(np.tensordot(weights[1], maps, 1), 0) / pixel_count
        assert grad.heat == pytest.approx(expected, abs=1e-6)
        assert grad.logits == pytest.approx(raw, abs=1e-5)
        assert (
            class_maps.compute_gradcam(net.model, "scores", value, tensor, None).class_index
            == raw.argmax()
        )

    def test_class_maps_exist_for_any_layer_and_the_input(self, net):
        class_maps = pytest.importorskip("tcc.compiler.plots.class_maps")
        tensor = np.random.default_rng(1).normal(size=(3, 12, 12)).astype(np.float32)
        for node in net.spec.graph.nodes:
            if layers.is_map(node.type.shape):
                heat_map = class_maps.compute_gradcam(net.model, "scores", node.name, tensor, 0)
                assert heat_map.heat.shape == node.type.shape[1:]
                assert (heat_map.heat >= 0).all()
        assert class_maps.compute_gradcam(net.model, "scores", "image", tensor, 0).heat.shape == (
            12,
            12,
        )


class TestLayers:
    def test_an_unknown_layer_is_refused(self, net):
        with pytest.raises(UserError) as caught:
            layers.find_value(net.spec.graph, "batch_nrom", "net")
        assert caught.value.diagnostics[0].code == "E1281"
        assert "did you mean `batch_norm`?" in caught.value.diagnostics[0].help

    def test_int8_activations_are_close_to_fp32(self, net, quantised):
        data, int8_build = quantised
        names = [layers.find_compared_value(net.spec.graph, int8_build, node)
                 for node in layers.select_convolutions(net.spec.graph, "net")]  # fmt: skip
        assert len(set(names)) == 2
        int8_outputs = layers.compute_int8_values(
            int8_build, data.read_tensor(0, int8_build.lowered_model.graph.inputs[0])
        )
        for name in names:
            real = layers.create_float_runner(net.model, name)(data.read_tensor(0, net.source))
            assert int8_outputs[name].shape == real.shape
            assert np.abs(int8_outputs[name] - real).max() < 0.03 * np.abs(real).max()

    def test_int8_filters_are_close_to_fp32(self, net, quantised):
        _, int8_build = quantised
        filters = int8_plots._collect_weights(net, int8_build)
        assert [name for name, *_ in filters] == [
            node.name for node in layers.select_convolutions(net.spec.graph, "net")
        ]
        for _, floats, integers in filters:
            # the method may clip the largest weight of a filter, so single errors are larger
            off = np.sqrt(((floats - integers) ** 2).mean() / (floats**2).mean())
            assert 0 < off < 0.02
            assert len(np.unique(integers[0])) > 20

    def test_the_input_is_shown_as_an_image(self, net):
        from tcc.compiler.ir import preprocess

        image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), np.uint8)
        tensor = preprocess.apply(net.source.preprocess, image, (3, 12, 12))
        assert layers.to_image(net.source, tensor) == pytest.approx(image / 255, abs=1e-6)


def create_loss(name, snr):
    return LayerLoss(name, "conv", 0.1, True, 1.0, snr, 0.5, 0.0)


LONG = [f"a class of tissue with a long name, number {i} $x$" for i in range(100)]
FIGURES = {
    "one class": lambda: network_plots.draw_confusion([[7]], ["only"], "one", "random"),
    "many classes": lambda: network_plots.draw_confusion(np.eye(60, dtype=int).tolist(), LONG[:60], "many"),
    "points": lambda: network_plots.draw_embedding(np.eye(100)[:, :2], range(100), LONG, "points", "random"),
    "overlay": lambda: network_plots.draw_overlays([network_plots.Overlay(np.zeros((4, 4, 3), np.float32), np.eye(2, dtype=np.float32), "x" * 99, "$")], "one"),
    "errors": lambda: int8_plots.draw_errors([create_loss(f"block_{i}/conv", 10 + i) for i in range(3)], "net"),
    "scatter": lambda: int8_plots.draw_scatter(np.eye(3, dtype=np.float32), {"a": np.eye(3, dtype=np.float32)}, "net"),
}  # fmt: skip


@pytest.mark.parametrize("suffix", drawing.FORMATS)
@pytest.mark.parametrize("name", ["one class", "scatter", "errors"])
def test_plots_are_reproducible(name, suffix):
    first_bytes, second_bytes = (drawing.encode_figure(FIGURES[name], suffix) for _ in range(2))
    assert first_bytes == second_bytes
    assert b"20" + b"26-" not in first_bytes
    assert b"Matplotlib v" not in first_bytes


@pytest.mark.parametrize("name", FIGURES)
def test_labels_do_not_overlap(name):
    """Names along an axis or in a legend do not overlap, and nothing leaves the plot."""
    figure = drawing.draw_styled(FIGURES[name])
    FigureCanvasAgg(figure).draw()
    width, height = figure.bbox.width, figure.bbox.height
    for axes in (artist for artist in figure.axes if artist.axison):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
            boxes = [
                artist.get_window_extent()
                for position, artist in ticks
                if low <= position <= high and artist.get_text()
            ]
            assert not any(a.overlaps(b) for a, b in pairwise(boxes))
            assert all(box.x0 > -2 and box.y0 > -2 for box in boxes)
            assert all(box.x1 < width + 2 and box.y1 < height + 2 for box in boxes)
    for legend in figure.legends:
        boxes = [artist.get_window_extent() for artist in legend.get_texts()]
        assert len(boxes) == len({(round(box.x0), round(box.y0)) for box in boxes})
        assert max(box.x1 for box in boxes) < width + 2
        assert min(box.y0 for box in boxes) > -2


def test_axes_and_colour_bars_are_labelled():
    figure = drawing.draw_styled(FIGURES["one class"])
    axes, bar = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert bar.get_ylabel() == "fraction of true class"
    for name, request in FIGURES.items():
        figure = drawing.draw_styled(request)
        assert figure.dpi >= 150
        # A page shows figures 838 pixels wide: at 9.2 inches, text of 8 points has 10 pixels.
        assert figure.get_figwidth() < 9.2 or name in ("many classes", "points")
        for axes in (axes for axes in figure.axes if axes.axison):
            assert axes.get_ylabel()


def test_plots_of_many_layers_show_the_worst():
    losses = [create_loss(f"layer_{i}", float(i)) for i in range(int8_plots.MAX_LAYERS + 9)]
    figure = drawing.draw_styled(lambda: int8_plots.draw_errors(losses, "net"))
    names = [tick_label.get_text() for tick_label in figure.axes[0].get_yticklabels()]
    assert names == [f"layer_{i}" for i in range(int8_plots.MAX_LAYERS)]


class TestTsne:
    def test_groups_stay_together_and_the_seed_decides(self):
        rng = np.random.default_rng(0)
        rows = np.concatenate([rng.normal(size=(12, 5)) + 40 * k for k in range(3)])
        points = network_plots.compute_tsne(rows, 0)
        assert np.array_equal(points, network_plots.compute_tsne(rows, 0))
        group_labels = np.repeat(range(3), 12)
        middles = np.stack([points[group_labels == k].mean(axis=0) for k in range(3)])
        nearest = np.linalg.norm(points[:, None] - middles, axis=2).argmin(axis=1)
        assert (nearest == group_labels).all()

    @pytest.mark.parametrize(
        "rows", [np.zeros((4, 3)), np.arange(5.0)[:, None]], ids=["same", "one"]
    )
    def test_nearly_equal_values_are_accepted(self, rows):
        assert np.isfinite(network_plots.compute_tsne(rows, 0)).all()


class TestCurves:
    def log(self, folder, lines):
        (folder / "run").mkdir()
        (folder / "run/metrics.jsonl").write_text("".join(lines))
        return folder / "run"

    def test_curves_show_the_values_of_the_log(self, tmp_path):
        lines = [
            json.dumps(
                {"epoch": e, "learning_rate": 0.1 / e, "loss": 1 / e, "val": {"loss": 2 / e}}
            )
            + "\n"
            for e in (1, 2, 3)
        ]
        run = training_curves.read_log(self.log(tmp_path, [*lines, '{"epoch": 4, "lo']))
        figure = drawing.draw_styled(lambda: training_curves.draw([run]))
        assert [axes.get_title() for axes in figure.axes] == ["loss", "learning rate"]
        training, validation = figure.axes[0].get_lines()
        assert training.get_ydata().tolist() == [1, 1 / 2, 1 / 3]
        assert validation.get_xydata().tolist() == [[1, 2], [2, 1], [3, 2 / 3]]

    @pytest.mark.parametrize("lines", [[], ["[1]\n"], ["x\n"], ['{"loss": 1}\n'], ["\n"]], ids=repr)
    def test_an_invalid_log_is_refused(self, tmp_path, lines):
        with pytest.raises(UserError, match="E1282"):
            training_curves.read_log(self.log(tmp_path, lines))
