"""The searches of kl-cosine-literal against the paper: each scale runs the network."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
from quant_sets import make_lowered_model, write_tensors

from tcc.compiler.ir.graph import Model, Output
from tcc.compiler.ops import Conv, Relu, Sigmoid
from tcc.compiler.passes import INT8
from tcc.compiler.quant.methods import weight_scale_search
from tcc.compiler.quant.methods.cosine_search import generate_candidates
from tcc.compiler.quant.methods.kl_cosine_literal import KL_COSINE_LITERAL
from tcc.compiler.quant.methods.weight_scale_search import BINS, SHARES, compute_divergence
from tcc.compiler.quant.observe.observer import observe
from tcc.compiler.quant.run_options import RunOptions
from tcc.compiler.reference import float_program
from tcc.testing.nets import NetBuilder


def build_graph(final_op=None):
    add = NetBuilder(3, 6, 6)
    add("a", Conv(4, (3, 3), (2, 2), 1))
    add("ra", Relu())
    add("b", Conv(4, (3, 3), groups=2, padding=2, dilation=(2, 2)))
    if final_op:
        add("rb", final_op)
    add("c", Conv(3, (1, 1)))
    return add.build()


def round_to_scale(values, scale, limits):
    return np.float32(scale) * np.clip(np.rint(values / np.float32(scale)), *limits)


def quantize_at_share(weight, share):
    top = np.abs(weight).reshape(len(weight), -1).max(1) / np.float32(127)
    scale = (top * np.float32(share)).reshape(-1, 1, 1, 1)
    return scale * np.clip(np.rint(weight / scale), -127, 127)


def run_whole(model, ranges, weights, images, *, quantised):
    """Return all values of the network for images, node by node, as quantized."""
    values = {"image": np.stack(images)}
    if quantised:
        values["image"] = round_to_scale(
            values["image"], ranges["image"].scale, ranges["image"].limits
        )
    for node in model.graph.nodes:
        graph = replace(model.graph, outputs=(Output("r", node.name),), nodes=(node,))
        node_inputs = {name: values[name] for name in node.inputs}
        sources = tuple(
            replace(model.graph.inputs[0], name=name, type=model.graph.types[name], preprocess=None)
            for name in node_inputs
        )
        single_node_model = Model(replace(graph, inputs=sources), weights)
        values[node.name] = float_program.evaluate(single_node_model, node_inputs)["r"]
        if quantised and node.name in ranges:
            tensor_range = ranges[node.name]
            values[node.name] = round_to_scale(
                values[node.name], tensor_range.scale, tensor_range.limits
            )
    return values


def run_unrounded(model, weights, values, node):
    """Return the output of a convolution and its activation on stored inputs."""
    stages, reader = [], node
    activations = values[node.inputs[0]]
    while reader is not None:
        source = replace(
            model.graph.inputs[0],
            name=reader.inputs[0],
            type=model.graph.types[reader.inputs[0]],
            preprocess=None,
        )
        single_node_model = Model(
            replace(
                model.graph, inputs=(source,), nodes=(reader,), outputs=(Output("r", reader.name),)
            ),
            weights,
        )
        activations = float_program.evaluate(single_node_model, {source.name: activations})["r"]
        stages.append(activations)
        reader_op = model.graph.find_sole_reader(reader.name)
        reader = (
            reader_op
            if reader_op is not None and isinstance(reader_op.op, Relu | Sigmoid)
            else None
        )
    return stages


def compute_equation_9(real, approximation):
    p, q = (count_bins(numbers, np.abs(real).max()) for numbers in (real, approximation))
    total, other_total = sum(p.values()), sum(q.values()) + BINS
    return sum(
        count / total * math.log(count / total / ((q[bin_key] + 0.5) / other_total))
        for bin_key, count in p.items()
    )


def count_bins(numbers, top):
    bin_numbers = np.minimum(np.abs(numbers) * np.float32(BINS / float(top)), BINS - 1).astype(int)
    signed = zip(bin_numbers.ravel().tolist(), np.sign(numbers).ravel().tolist(), strict=True)
    return Counter((bin_number, sign) for bin_number, sign in signed if sign)


def compute_equation_10(pairs):
    return np.mean(
        [
            np.dot(a.ravel().astype(float), b.ravel()) / np.linalg.norm(a) / np.linalg.norm(b)
            for a, b in pairs
        ]
    )


def search_by_definition(model, ranges, images):
    """Return the shares of all layers. Each tried scale runs the complete network."""
    weights, shares_by_node = dict(model.weights), {}
    for node in model.graph.nodes:
        if not isinstance(node.op, Conv):
            continue
        floats = run_whole(model, ranges, model.weights, images, quantised=False)
        real = run_unrounded(model, model.weights, floats, node)

        def outputs(share, node=node):
            tried = weights | {
                node.params[0]: quantize_at_share(model.weights[node.params[0]], share)
            }
            values = run_whole(model, ranges, tried, images, quantised=True)
            return run_unrounded(model, tried, values, node)

        coarse = [compute_equation_9(real[-1], outputs(share)[-1]) for share in SHARES]
        start = SHARES[max(i for i, score in enumerate(coarse) if score <= min(coarse) + 1e-12)]
        shares = generate_candidates(float(start), 1.0)
        fine = [compute_equation_10(zip(real, outputs(share), strict=True)) for share in shares]
        best = max(i for i, score in enumerate(fine) if score >= max(fine) - 1e-6)
        shares_by_node[node.name] = float(shares[best])
        weights[node.params[0]] = quantize_at_share(model.weights[node.params[0]], shares[best])
    return shares_by_node


def test_layerwise_search_equals_running_the_network_per_scale(tmp_path):
    model = make_lowered_model(build_graph(Sigmoid()), INT8)
    shape = model.graph.inputs[0].type.shape
    data = write_tensors(tmp_path, shape, 3)
    calibrated = weight_scale_search.search(model, observe(model, data), data)
    images = [data.read_tensor(index, model.graph.inputs[0]) for index in range(len(data))]
    for name, share in search_by_definition(model, calibrated.ranges, images).items():
        weight = model.weights[next(n.params[0] for n in model.graph.nodes if n.name == name)]
        top = np.abs(weight).reshape(len(weight), -1).max(1) / np.float32(127)
        np.testing.assert_allclose(calibrated.rounded[name].scale / top, share, rtol=1e-6)


def test_activations_keep_minmax_ranges_and_weights_get_new_scales(tmp_path):
    from tcc.compiler.quant.methods.minmax import MINMAX

    model = make_lowered_model(build_graph(Relu()), INT8)
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, 5)
    calibrated = KL_COSINE_LITERAL.remove_guard().find(model, data, RunOptions())
    safe = MINMAX.find(model, data, RunOptions())
    assert calibrated.used == "kl-cosine-literal"
    assert calibrated.held_out == 0
    assert calibrated.calibration.ranges == safe.calibration.ranges
    assert set(calibrated.calibration.rounded) == {"a", "b", "c"}
    assert {name for name, trace in calibrated.traces.items() if trace.cosine} == {"ra", "rb", "c"}


def test_only_images_of_the_fit_set_are_run(tmp_path):
    model = make_lowered_model(build_graph(Relu()), INT8)
    data = write_tensors(tmp_path, model.graph.inputs[0].type.shape, 9)
    fit_images, _ = data.split()
    statistics = observe(model, fit_images)
    from_all, from_fit = (
        weight_scale_search.search(model, statistics, images) for images in (data, fit_images)
    )
    assert from_all.traces == from_fit.traces
    assert {n: r.weight.tobytes() for n, r in from_all.rounded.items()} == {
        n: r.weight.tobytes() for n, r in from_fit.rounded.items()
    }


def test_an_empty_bin_has_a_finite_divergence():
    actual_counts, other_counts = np.array([4, 0, 4]), np.array([8, 0, 0])
    assert (
        compute_divergence(actual_counts, actual_counts)
        < compute_divergence(actual_counts, other_counts)
        < 2
    )
    assert compute_divergence(actual_counts, np.zeros(3, int)) > 0
