"""Children of a module are torch layers, so that tools of torch work, and compute the ops."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from tcc.compiler.ir.graph import Graph, Node
from tcc.compiler.lower.torch import copy_trained_weights, create_module
from tcc.compiler.ops import BatchNorm, Conv, Dropout, Linear, MaxPool, ScaleShift
from tcc.compiler.support.diagnostics import UnhandledError
from tcc.testing.nets import NetBuilder, build_dense, build_gated
from tcc.testing.op_cases import CASES, build_op_model, sample_inputs, sample_weights


def create_image(graph: Graph, batch: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, *graph.inputs[0].type.shape, generator=generator)


def run_calls(graph, weights, xs, training):
    """Return the outputs of repeated calls of the only op."""
    (node,) = graph.nodes
    types = graph.get_input_types(node)
    values = {f"x{i}": x for i, x in enumerate(xs)}
    for param, name in zip(node.op.params(*types), node.params, strict=True):
        values[param.role] = weights[name]
    for call in node.op.torch(*types):
        function = getattr(functional, call.function, None) or getattr(torch, call.function)
        tensors = [values[name] for name in call.inputs]
        mode = {"training": training} if call.trains else {}
        values[call.output] = function(
            *([tensors] if call.packed else tensors), **call.attributes, **mode
        )
    return values["y"]


def compute_gradients(function, *leaves):
    torch.manual_seed(0)
    y = function()
    (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
    return [y, *(x.grad for x in leaves)]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_layer_equals_the_functional_calls_of_its_op(name, training):
    model = build_op_model(CASES[name])
    network = create_module(model.graph, model.weights).train(training)
    first_inputs, second_inputs = (
        [torch.from_numpy(x).requires_grad_() for x in sample_inputs(model)] for _ in "ab"
    )
    weights_by_name = {n: torch.tensor(v) for n, v in model.weights.items()}
    for parameter, _ in network.named_parameters():
        weights_by_name[parameter].requires_grad_()
    leaves = [*first_inputs, *network.parameters()]
    second_leaves = [*second_inputs, *(weights_by_name[n] for n, _ in network.named_parameters())]
    actual = compute_gradients(lambda: network(*first_inputs)["y"], *leaves)
    expected = compute_gradients(
        lambda: run_calls(model.graph, weights_by_name, second_inputs, training), *second_leaves
    )
    for a, b in zip(actual, expected, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)
    for n, tensor in network.named_weights().items():
        assert torch.equal(tensor, weights_by_name[n]), "running statistics"


def test_layers_have_torch_classes():
    kinds = {path: type(layer) for path, layer in create_module(build_dense()).named_children()}
    assert kinds["stem"] is kinds["layer/depthwise"] is nn.Conv2d
    assert issubclass(kinds["stem_bn"], nn.BatchNorm2d)
    assert {nn.ReLU, nn.ReLU6, nn.AvgPool2d, nn.Flatten, nn.Dropout, nn.Linear} <= {*kinds.values()}
    assert list(kinds) == [node.name for node in build_dense().nodes]


def test_uneven_padding_keeps_the_layer_class():
    add = NetBuilder(3, 8, 8)
    add("conv", Conv(4, (3, 3), (2, 2), "same"))
    add("pool", MaxPool((3, 3), (2, 2), (0, 0, 1, 1)))
    layers = dict(create_module(add.build()).named_children())
    assert isinstance(layers["conv"], nn.Conv2d)
    assert isinstance(layers["pool"], nn.MaxPool2d)
    assert "border=(0, 1, 0, 1)" in str(layers["conv"])


@pytest.mark.parametrize("graph", [build_dense(), build_gated()], ids=lambda g: g.name)
def test_hooks_receive_the_values_of_the_graph(graph):
    network, values_by_path = create_module(graph).train(), {}
    for path, layer in network.named_children():
        layer.register_forward_hook(
            lambda _, x, y, path=path: values_by_path.update({path: (x, y)})
        )
    network(create_image(graph))
    assert list(values_by_path) == [node.name for node in graph.nodes]
    for node in graph.nodes:
        inputs, y = values_by_path[node.name]
        assert tuple(y.shape[1:]) == node.type.shape
        assert tuple(len(x) for x in inputs) == (4,) * len(node.inputs)


def test_batch_norms_convert_to_sync_batch_norm():
    graph = build_gated()
    network = create_module(graph, sample_weights(graph)).eval()
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
    kinds = {path: type(layer) for path, layer in synced.named_children()}
    norms = {node.name for node in graph.nodes if isinstance(node.op, BatchNorm)}
    assert {path for path, kind in kinds.items() if kind is nn.SyncBatchNorm} == norms
    assert torch.equal(
        synced(create_image(graph))["features"], network(create_image(graph))["features"]
    )
    original, converted = copy_trained_weights(network), copy_trained_weights(synced)
    assert list(original) == list(converted)
    assert all((original[name] == converted[name]).all() for name in original)


def test_batch_norm_statistics_can_be_recomputed():
    graph = build_dense()
    network = create_module(graph).eval()
    x = create_image(graph, 8)
    update_bn(x.split(4), network)
    stem = network.get_submodule("stem")(x)
    halves = torch.stack([half.mean((0, 2, 3)) for half in stem.split(4)])
    torch.testing.assert_close(network.get_buffer("stem_bn.mean"), halves.mean(0))
    assert int(network.get_submodule("stem_bn").num_batches_tracked) == 2
    assert not network.training


def test_weights_can_be_averaged():
    graph = build_dense()
    network = create_module(graph).train()
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    average.update_parameters(network)
    with torch.no_grad():
        for tensor in network.named_weights().values():
            tensor.add_(1.0)
    original = {name: t.clone() for name, t in average.module.named_weights().items()}
    average.update_parameters(network)
    for name, tensor in average.module.named_weights().items():
        torch.testing.assert_close(tensor, original[name] + 0.5)


def copy_by_pickle(network):
    return pickle.loads(pickle.dumps(network))  # noqa: S301 - our own


def copy_by_file(network):
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copy_module", [copy_by_pickle, copy_by_file])
def test_a_module_can_be_saved_and_loaded(copy_module):
    graph = build_gated()
    network = create_module(graph, sample_weights(graph)).eval()
    restored = copy_module(network)
    assert restored.graph == graph
    for name, y in network(create_image(graph)).items():
        assert torch.equal(restored(create_image(graph))[name], y)


def test_a_state_dict_needs_no_version():
    graph = build_dense()
    network = create_module(graph)
    assert network.load_state_dict(dict(create_module(graph).state_dict())) == ([], [])


def test_a_module_can_be_exported():
    graph = build_gated()
    network = create_module(graph, sample_weights(graph)).eval()
    exported = torch.export.export(network, (create_image(graph),))
    assert set(exported.state_dict) == set(graph.params)
    for name, y in network(create_image(graph)).items():
        assert torch.equal(exported.module()(create_image(graph))[name], y)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_module_compiles_without_graph_breaks(backend):
    graph = build_dense()
    network = create_module(graph, sample_weights(graph)).train()
    network.get_submodule("drop").p = 0.0
    copied = copy.deepcopy(network)
    compiled = torch.compile(copied, backend=backend, fullgraph=True)
    for variant in (network, compiled):
        sum(y.square().sum() for y in variant(create_image(graph)).values()).backward()
    for a, b in zip(network.parameters(), copied.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    for a, b in zip(network.buffers(), copied.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_channels_last_and_bfloat16_work():
    graph = build_gated()
    network = create_module(graph, sample_weights(graph)).eval()
    x = create_image(graph)
    expected = network(x)["features"]
    channels_last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    y = channels_last(x.contiguous(memory_format=torch.channels_last))["features"]
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, expected)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(x)["features"]
    torch.testing.assert_close(rounded.float(), expected, rtol=0.05, atol=0.1)


def test_no_random_numbers_are_drawn():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    create_module(build_dense())
    assert torch.equal(torch.rand(4), expected)


def test_dropout_follows_the_mode_of_its_layer():
    add = NetBuilder(100)
    add("drop", Dropout(0.5))
    network = create_module(add.build()).train()
    network.get_submodule("drop").eval()
    x = torch.ones(1, 100)
    assert torch.equal(network(x)["logits"], x)


def test_only_equal_operations_share_weights():
    add = NetBuilder(4)
    add("first", Linear(4))
    graph = add.build()
    (first_node,) = graph.nodes
    second_node = Node("second", ScaleShift(), ("first",), first_node.params, first_node.type)
    with pytest.raises(UnhandledError, match="second"):
        create_module(Graph("tied", graph.inputs, (first_node, second_node), graph.outputs))
