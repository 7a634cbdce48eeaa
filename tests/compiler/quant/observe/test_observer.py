"""Observation: held against a run in which every value is an output."""

from dataclasses import replace

import numpy as np
import pytest
from quant_sets import ready, tensors, with_weights

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


def every_value(model, data):
    """All values of all images, each (images, *shape)."""
    names = {f"out {name}": name for name in model.graph.types}
    ends = tuple(Output(out, name) for out, name in names.items())
    source = model.graph.inputs[0]
    # an input cannot be an output under another name
    ends = tuple(end for end in ends if end.value != source.name)
    whole = Model(replace(model.graph, outputs=ends), model.weights)
    images = [data.tensor(i, source) for i in range(len(data))]
    found = float_program.run(whole, images)
    table = {names[end.name]: np.stack([f[end.name] for f in found]) for end in ends}
    return table | {source.name: np.stack(images)}


@nets
def test_extremes_are_those_of_all_elements(net, tmp_path):
    model = ready(net())
    data = tensors(tmp_path, model.graph.inputs[0].type.shape)
    found = observe(model, data)
    assert found.images == data.digests
    assert tuple(found.by_value) == list_unfused_values(model.graph)
    for name, values in every_value(model, data).items():
        if name not in found.by_value:
            continue
        seen = found.by_value[name]
        flat = values.reshape(len(data), values.shape[1], -1)
        close = {"rtol": 1e-5, "atol": 1e-5}
        np.testing.assert_allclose(seen.high, flat.max((1, 2)), **close)
        np.testing.assert_allclose(seen.channel_high, flat.max((0, 2)), **close)
        if flat.min() < 0:
            np.testing.assert_allclose(seen.low, flat.min((1, 2)), **close)
            np.testing.assert_allclose(seen.channel_low, flat.min((0, 2)), **close)


@nets
def test_samples_are_columns_of_the_values(net, tmp_path):
    model = ready(net())
    data = tensors(tmp_path, model.graph.inputs[0].type.shape)
    found = observe(model, data, positions=48)
    inside = find_concat_offsets(model.graph)
    chosen = build_sampling_plan(model.graph, data.digests, 48).samples
    values = every_value(model, data)
    for name, seen in found.by_value.items():
        choice = chosen[inside.get(name, (name, 0))[0]]
        count = len(choice.images)
        there = values[name].reshape(len(data), values[name].shape[1], -1)
        for row, sample in enumerate(seen.sample):
            columns = there[choice.images[row // (len(seen.sample) // count)]]
            assert np.abs(columns - sample[:, None]).max(0).min() < 1e-4
        assert len(seen.sample) == count * choice.size[0] * choice.size[1]


@nets
def test_windows_give_outputs_of_the_convolution(net, tmp_path):
    model = ready(net())
    data = tensors(tmp_path, model.graph.inputs[0].type.shape)
    found = observe(model, data)
    values = every_value(model, data)
    for node in model.graph.nodes:
        if node.name not in found.windows:
            continue
        windows = found.windows[node.name]
        mine = compute_outputs(
            windows.op, windows.extract_patches(), *(model.weights[p] for p in node.params)
        )
        mine = mine.transpose(1, 0, 2).reshape(mine.shape[1], -1)
        theirs = values[node.name].reshape(len(data), values[node.name].shape[1], -1)
        theirs = theirs.transpose(0, 2, 1).reshape(-1, theirs.shape[1])
        for row in mine[:: max(1, len(mine) // 50)]:
            assert np.abs(theirs - row).max(1).min() < 1e-4
        if node.op.kernel != (1, 1):  # the maps are small: every output is in a window
            assert len(mine) == len(theirs)


@nets
def test_nothing_depends_on_order_threads_or_batch(net, tmp_path):
    model = ready(net())
    shape = model.graph.inputs[0].type.shape
    one = observe(model, tensors(tmp_path, shape, 9), RunOptions(threads=1), positions=70)
    order = np.random.default_rng(1).permutation(9)
    again = tensors(tmp_path, shape, 9, order=order, name="again")
    for threads, batch in ((3, 1), (2, 4), (1, 100)):
        two = observe(model, again, RunOptions(threads, batch), positions=70)
        assert one.images == two.images
        for name, seen in one.by_value.items():
            for field in ("low", "high", "channel_low", "channel_high", "sample"):
                assert np.array_equal(getattr(seen, field), getattr(two.by_value[name], field))
        for name, windows in one.windows.items():
            assert np.array_equal(windows.parts, two.windows[name].parts)
        for name, rows in one.outputs.items():
            assert np.array_equal(rows, two.outputs[name])


def test_samples_stay_small_however_many_images(tmp_path):
    model = ready(build_dense())
    shape = model.graph.inputs[0].type.shape
    few = observe(model, tensors(tmp_path, shape, 4), positions=64)
    many = observe(model, tensors(tmp_path, shape, 40), positions=64)
    for seen in many.by_value.values():
        assert len(seen.sample) <= 2 * 64
        assert len(seen.low) == 40
    assert few.windows.keys() == many.windows.keys()
    for windows in many.windows.values():
        assert len(windows.parts) <= 64


def test_the_outputs_are_the_models(tmp_path):
    model = ready(build_gated())
    data = tensors(tmp_path, model.graph.inputs[0].type.shape)
    found = observe(model, data)
    values = every_value(model, data)
    for output in model.graph.outputs:
        whole = values[output.value].reshape(len(data), -1)
        np.testing.assert_allclose(found.outputs[output.name], whole, atol=1e-5)


@pytest.mark.parametrize("huge", [3e38, -3e38])
def test_the_first_layer_that_overflows_is_named(huge, tmp_path):
    model = ready(build_dense())
    weight = model.graph.nodes[0].params[0]
    broken = with_weights(model, weight, lambda w: np.full_like(w, huge))
    data = tensors(tmp_path, model.graph.inputs[0].type.shape)
    with pytest.raises(UserError) as caught:
        observe(broken, data)
    (found,) = caught.value.diagnostics
    assert found.code == "E0720"
    assert f"the values of `{model.graph.nodes[0].name}` are not finite" in found.message


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
    model = ready(replace(add.build(), inputs=(kind,)))
    for number in range(4):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / f"{number}.png")
    bad = tmp_path / "2.png"
    bad.write_bytes(bad.read_bytes()[:50])
    with pytest.raises(UserError) as caught:
        observe(model, read_dataset(tmp_path))
    assert [d.at.file for d in caught.value.diagnostics] == [str(bad)]


def test_without_positions_there_are_extremes_alone(tmp_path):
    model = ready(build_dense(), INT8)
    data = tensors(tmp_path, model.graph.inputs[0].type.shape, 4)
    whole, bare = observe(model, data), observe(model, data, positions=0)
    assert not bare.windows
    for name, seen in bare.by_value.items():
        assert not seen.sample.size
        assert np.array_equal(seen.lows, whole.by_value[name].lows)
        assert np.array_equal(seen.highs, whole.by_value[name].highs)
    assert not bare.select_images((1, 2)).by_value[name].sample.size
