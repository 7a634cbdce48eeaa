"""Observation, compared with a run in which every value is an output."""

from dataclasses import replace

import numpy as np
import pytest
from quant_sets import make_lowered_model, replace_weights, write_tensors

from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.passes import INT8
from tcc.compiler.quant.observe.observer import observe
from tcc.compiler.quant.observe.sampling import build_sampling_plan, find_concat_offsets
from tcc.compiler.quant.observe.statistics import compute_outputs
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.quant.scale_groups import list_unfused_values
from tcc.compiler.reference import float_program
from tcc.compiler.support.diagnostics import UserError
from tcc.testing.nets import build_dense, build_gated

NETS = {"dense": build_dense, "gated": build_gated}
nets = pytest.mark.parametrize("net", NETS.values(), ids=NETS)


def run_all_values(model, data):
    """Return all values of all images, each (images, *shape)."""
    names = {f"out {name}": name for name in model.graph.types}
    outputs = tuple(Output(out, name) for out, name in names.items())
    source = model.graph.inputs[0]
    # an input cannot be an output with another name
    outputs = tuple(end for end in outputs if end.value != source.name)
    probed_model = Model(replace(model.graph, outputs=outputs), model.weights)
    images = [data.read_tensor(i, source) for i in range(len(data))]
    runs = float_program.run(probed_model, images)
    table = {names[end.name]: np.stack([f[end.name] for f in runs]) for end in outputs}
    return table | {source.name: np.stack(images)}


@nets
def test_extremes_are_those_of_all_elements(net, tmp_path):
    model = make_lowered_model(net())
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape)
    statistics = observe(model, data)
    assert statistics.images == data.digests
    assert tuple(statistics.by_value) == list_unfused_values(model.graph)
    for name, values in run_all_values(model, data).items():
        if name not in statistics.by_value:
            continue
        tensor_statistics = statistics.by_value[name]
        flat = values.reshape(len(data), values.shape[1], -1)
        tolerances = {"rtol": 1e-5, "atol": 1e-5}
        np.testing.assert_allclose(tensor_statistics.high, flat.max((1, 2)), **tolerances)
        np.testing.assert_allclose(tensor_statistics.channel_high, flat.max((0, 2)), **tolerances)
        if flat.min() < 0:
            np.testing.assert_allclose(tensor_statistics.low, flat.min((1, 2)), **tolerances)
            np.testing.assert_allclose(
                tensor_statistics.channel_low, flat.min((0, 2)), **tolerances
            )


@nets
def test_samples_are_columns_of_the_values(net, tmp_path):
    model = make_lowered_model(net())
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape)
    statistics = observe(model, data, positions=48)
    inside = find_concat_offsets(model.graph)
    samples = build_sampling_plan(model.graph, data.digests, 48).samples
    values = run_all_values(model, data)
    for name, tensor_statistics in statistics.by_value.items():
        choice = samples[inside.get(name, (name, 0))[0]]
        count = len(choice.images)
        flat_values = values[name].reshape(len(data), values[name].shape[1], -1)
        for row, sample in enumerate(tensor_statistics.sample):
            columns = flat_values[choice.images[row // (len(tensor_statistics.sample) // count)]]
            assert np.abs(columns - sample[:, None]).max(0).min() < 1e-4
        assert len(tensor_statistics.sample) == count * choice.size[0] * choice.size[1]


@nets
def test_windows_give_outputs_of_the_convolution(net, tmp_path):
    model = make_lowered_model(net())
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape)
    statistics = observe(model, data)
    values = run_all_values(model, data)
    for node in model.graph.nodes:
        if node.name not in statistics.windows:
            continue
        windows = statistics.windows[node.name]
        window_outputs = compute_outputs(
            windows.op, windows.extract_patches(), *(model.weights[p] for p in node.params)
        )
        window_outputs = window_outputs.transpose(1, 0, 2).reshape(window_outputs.shape[1], -1)
        model_outputs = values[node.name].reshape(len(data), values[node.name].shape[1], -1)
        model_outputs = model_outputs.transpose(0, 2, 1).reshape(-1, model_outputs.shape[1])
        for row in window_outputs[:: max(1, len(window_outputs) // 50)]:
            assert np.abs(model_outputs - row).max(1).min() < 1e-4
        if node.op.kernel != (1, 1):  # the maps are small, so every output is in a window
            assert len(window_outputs) == len(model_outputs)


@nets
def test_statistics_do_not_depend_on_order_threads_or_batch(net, tmp_path):
    model = make_lowered_model(net())
    shape = model.graph.inputs[0].type.shape
    single_threaded = observe(
        model, write_tensors(tmp_path, shape, 9), RunOptions(threads=1), positions=70
    )
    order = np.random.default_rng(1).permutation(9)
    shuffled_images = write_tensors(tmp_path, shape, 9, order=order, name="again")
    for threads, batch in ((3, 1), (2, 4), (1, 100)):
        reordered = observe(model, shuffled_images, RunOptions(threads, batch), positions=70)
        assert single_threaded.images == reordered.images
        for name, tensor_statistics in single_threaded.by_value.items():
            for field in ("low", "high", "channel_low", "channel_high", "sample"):
                assert np.array_equal(
                    getattr(tensor_statistics, field), getattr(reordered.by_value[name], field)
                )
        for name, windows in single_threaded.windows.items():
            assert np.array_equal(windows.parts, reordered.windows[name].parts)
        for name, rows in single_threaded.outputs.items():
            assert np.array_equal(rows, reordered.outputs[name])


def test_sample_size_is_bounded_for_many_images(tmp_path):
    model = make_lowered_model(build_dense())
    shape = model.graph.inputs[0].type.shape
    few = observe(model, write_tensors(tmp_path, shape, 4), positions=64)
    many = observe(model, write_tensors(tmp_path, shape, 40), positions=64)
    for tensor_statistics in many.by_value.values():
        assert len(tensor_statistics.sample) <= 2 * 64
        assert len(tensor_statistics.low) == 40
    assert few.windows.keys() == many.windows.keys()
    for windows in many.windows.values():
        assert len(windows.parts) <= 64


def test_observed_outputs_are_those_of_the_model(tmp_path):
    model = make_lowered_model(build_gated())
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape)
    statistics = observe(model, data)
    values = run_all_values(model, data)
    for output in model.graph.outputs:
        flat_outputs = values[output.value].reshape(len(data), -1)
        np.testing.assert_allclose(statistics.outputs[output.name], flat_outputs, atol=1e-5)


@pytest.mark.parametrize("huge", [3e38, -3e38])
def test_the_first_overflowing_layer_is_named(huge, tmp_path):
    model = make_lowered_model(build_dense())
    weight = model.graph.nodes[0].params[0]
    broken = replace_weights(model, weight, lambda w: np.full_like(w, huge))
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape)
    with pytest.raises(UserError) as caught:
        observe(broken, data)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E0720"
    assert f"the values of `{model.graph.nodes[0].name}` are not finite" in diagnostic.message


def test_a_damaged_image_ends_the_observation(tmp_path):
    from PIL import Image

    from tcc.compiler.data.dataset import read_dataset
    from tcc.compiler.ir.graph import Input
    from tcc.compiler.ir.preprocess import PixelResize, Preprocess
    from tcc.compiler.ops import Conv
    from tcc.testing.nets import NetBuilder

    add = NetBuilder(3, 8, 8)
    add("conv", Conv(2, (3, 3)))
    kind = Input("image", add.types["image"], Preprocess(resize=PixelResize((8, 8))))
    model = make_lowered_model(replace(add.build(), inputs=(kind,)))
    for number in range(4):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / f"{number}.png")
    bad = tmp_path / "2.png"
    bad.write_bytes(bad.read_bytes()[:50])
    with pytest.raises(UserError) as caught:
        observe(model, read_dataset(tmp_path))
    assert [d.at.file for d in caught.value.diagnostics] == [str(bad)]


def test_without_positions_only_extremes_are_observed(tmp_path):
    model = make_lowered_model(build_dense(), INT8)
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, 4)
    full_statistics, extremes_only = observe(model, data), observe(model, data, positions=0)
    assert not extremes_only.windows
    for name, tensor_statistics in extremes_only.by_value.items():
        assert not tensor_statistics.sample.size
        assert np.array_equal(tensor_statistics.lows, full_statistics.by_value[name].lows)
        assert np.array_equal(tensor_statistics.highs, full_statistics.by_value[name].highs)
    assert not extremes_only.select_images((1, 2)).by_value[name].sample.size
