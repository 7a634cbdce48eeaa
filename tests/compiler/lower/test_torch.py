"""The PyTorch module of a graph: trainable, with the names of the spec."""

import copy
import gc
import weakref

import numpy as np
import pytest
import torch

from tcc.compiler.data import weights
from tcc.compiler.ir.graph import Graph, Output
from tcc.compiler.lower.torch import create_module
from tcc.compiler.ops import BatchNorm, Concat, Conv, Dropout, Flatten, Linear, Relu
from tcc.testing.nets import NetBuilder, build_chain, build_dense, build_gated
from tcc.testing.op_cases import sample_weights

graphs = pytest.mark.parametrize("graph", [build_dense(), build_gated()], ids=lambda g: g.name)


def create_image(graph: Graph, batch: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, *graph.inputs[0].type.shape, generator=generator)


@graphs
def test_the_state_dict_has_the_names_and_shapes_of_the_spec(graph: Graph) -> None:
    state = create_module(graph).state_dict()
    assert {n: tuple(t.shape) for n, t in state.items()} == {
        n: p.shape for n, p in graph.params.items()
    }
    assert list(state) == list(graph.params)


@graphs
def test_parameters_train_and_buffers_do_not(graph: Graph) -> None:
    network = create_module(graph)
    trainable = {n for n, p in graph.params.items() if p.trainable}
    assert {n for n, _ in network.named_parameters()} == trainable
    counters = {f"{n.name}.num_batches_tracked" for n in graph.nodes if isinstance(n.op, BatchNorm)}
    assert {n for n, _ in network.named_buffers()} - counters == set(graph.params) - trainable


def test_a_module_starts_with_seeded_random_weights() -> None:
    graph = build_dense()
    expected = weights.initialize_random(graph)
    state = create_module(graph).state_dict()
    for name, values in expected.items():
        np.testing.assert_array_equal(state[name].numpy(), values)


def test_given_weights_are_copied() -> None:
    graph = build_gated()
    values = sample_weights(graph)
    network = create_module(graph, values)
    original_weight = values["conv.weight"].copy()
    with torch.no_grad():
        network.get_parameter("conv.weight").zero_()
    np.testing.assert_array_equal(values["conv.weight"], original_weight)


def test_layers_may_have_names_of_module_methods() -> None:
    add = NetBuilder(3, 4, 4)
    for name in ("train", "type", "forward", "eval", "half", "_modules", "training"):
        add(name, Conv(3, (1, 1)))
    graph = add.build()
    network = create_module(graph).eval()
    assert list(network.state_dict()) == list(graph.params)
    copied = copy.deepcopy(network).train()
    assert copied.training
    assert torch.equal(
        network(create_image(graph))["logits"], copied(create_image(graph))["logits"]
    )


def test_training_only_outputs_exist_only_in_training() -> None:
    graph = build_dense()
    network = create_module(graph)
    assert set(network.train()(create_image(graph))) == {"logits", "aux"}
    assert set(network.eval()(create_image(graph))) == {"logits"}


def test_batch_norm_updates_statistics_with_its_momentum() -> None:
    add = NetBuilder(3, 5, 5)
    add("bn", BatchNorm(momentum=0.25))
    graph = add.build()
    network = create_module(graph)
    x = create_image(graph) * 3 + 2
    network.train()(x)
    state = network.state_dict()
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=True)
    torch.testing.assert_close(state["bn.mean"], 0.25 * mean)
    torch.testing.assert_close(state["bn.var"], 0.75 + 0.25 * var)
    original = {n: t.clone() for n, t in state.items()}
    network.eval()(x)
    assert all(torch.equal(original[n], t) for n, t in network.state_dict().items())


def test_dropout_acts_only_in_training() -> None:
    add = NetBuilder(1000)
    add("drop", Dropout(0.25))
    graph = add.build()
    x = torch.ones(1, 1000)
    network = create_module(graph)
    torch.manual_seed(0)
    dropped = network.train()(x)["logits"]
    assert dropped.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert 150 < int((dropped == 0).sum()) < 350
    assert torch.equal(network.eval()(x)["logits"], x)


def test_training_lowers_the_loss_and_moves_every_weight() -> None:
    graph = build_dense()
    torch.manual_seed(0)
    network = create_module(graph).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    labels = torch.arange(20) % 5
    x = create_image(graph, 20) + labels[:, None, None, None]
    start = {n: t.clone() for n, t in network.state_dict().items()}
    losses = []
    for _ in range(20):
        outputs = network(x)
        loss = sum(torch.nn.functional.cross_entropy(y, labels) for y in outputs.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] * 0.9
    # A bias before a batch norm has no effect: its gradient is only rounding noise.
    inert = {"stem.bias"}
    changed_names = {n for n, t in network.state_dict().items() if not torch.equal(t, start[n])}
    assert changed_names | inert == set(graph.params)


def test_a_state_dict_goes_from_one_module_to_another(tmp_path) -> None:
    graph = build_gated()
    source, target = create_module(graph, sample_weights(graph)), create_module(graph)
    torch.save(source.state_dict(), tmp_path / "state.pt")
    target.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    x = create_image(graph)
    for name, y in source.eval()(x).items():
        assert torch.equal(target.eval()(x)[name], y)


def test_a_copy_is_independent() -> None:
    graph = build_gated()
    network = create_module(graph).eval()
    copied = copy.deepcopy(network)
    original = network(create_image(graph))["logits"].clone()
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    assert torch.equal(network(create_image(graph))["logits"], original)
    assert torch.equal(copied(create_image(graph))["logits"], torch.zeros(4, 3))


def test_a_module_moves_to_another_type_and_device() -> None:
    graph = build_gated()
    network = create_module(graph, sample_weights(graph)).eval()
    double = copy.deepcopy(network).to(torch.float64)
    x = create_image(graph)
    torch.testing.assert_close(double(x.double())["logits"].float(), network(x)["logits"])
    meta = copy.deepcopy(network).to("meta")
    assert meta(x.to("meta"))["features"].shape == (4, 4, 4, 4)


def test_tied_layers_share_one_tensor() -> None:
    add = NetBuilder(4)
    add("first", Linear(4))
    add("second", Linear(4))
    graph = add.build()
    first_node, second_node = graph.nodes
    tied = Graph(
        "tied",
        graph.inputs,
        (
            first_node,
            type(second_node)(
                "second", second_node.op, ("first",), first_node.params, second_node.type
            ),
        ),
        graph.outputs,
    )
    network = create_module(tied)
    assert list(network.state_dict()) == ["first.weight", "first.bias"]
    x = create_image(tied)
    w, b = network.state_dict().values()
    torch.testing.assert_close(network(x)["logits"], (x @ w.T + b) @ w.T + b)


def test_several_inputs_are_passed_in_order() -> None:
    from tcc.testing.op_cases import CASES, build_op_model, sample_inputs

    model = build_op_model(CASES["concat-3"])
    a, b, c = map(torch.from_numpy, sample_inputs(model))
    y = create_module(model.graph).eval()(a, b, c)["y"]
    assert torch.equal(y, torch.cat([a, b, c], 1))


def test_values_are_freed_after_their_last_use() -> None:
    add = NetBuilder(2, 3, 3)
    add("first", Relu())
    add("second", Relu())
    skip = add("third", Relu())
    add("fourth", Relu())
    add("join", Concat(), skip, "fourth")
    graph = add.build(Output("y", "join"), Output("skip", skip))
    references: list[weakref.ref[torch.Tensor]] = []
    max_alive = 0

    class Watched(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            nonlocal max_alive
            result = super().__torch_function__(function, types, args, kwargs or {})
            gc.collect()
            max_alive = max(max_alive, sum(ref() is not None for ref in references))
            references.append(weakref.ref(result))
            return result

    with torch.no_grad():
        outputs = create_module(graph).eval()(create_image(graph).as_subclass(Watched))
    assert set(outputs) == {"y", "skip"}
    assert max_alive == 2  # the inputs of each call and the skip connection


def test_a_thousand_layers_run_without_recursion() -> None:
    graph = build_chain(1200)
    network = create_module(graph).eval()
    with torch.no_grad():
        y = copy.deepcopy(network)(create_image(graph, 1))["logits"]
    assert torch.isfinite(y).all()
    assert len(network.state_dict()) == len(graph.params)


def test_a_vector_network_takes_vectors() -> None:
    add = NetBuilder(2, 2, 2)
    add("flat", Flatten())
    add("bn", BatchNorm())
    graph = add.build()
    x = create_image(graph)
    torch.testing.assert_close(
        create_module(graph).eval()(x)["logits"], x.flatten(1) / (1 + 1e-5) ** 0.5
    )
