"""Imported checkpoints: matched layers and refused files."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from foreign_states import (
    State,
    assert_complete,
    catch_refusal,
    count_methods,
    list_layers,
    make_block_graph,
    make_state,
    make_twin_graph,
    save_state,
)
from safetensors.numpy import save_file

from tcc.compiler.data import images
from tcc.compiler.frontend.spec import load
from tcc.compiler.importers.checkpoint import import_checkpoint
from tcc.compiler.ir import preprocess
from tcc.compiler.ir.graph import Graph, Model
from tcc.compiler.lower.onnx import lower
from tcc.compiler.lower.torch import create_module
from tcc.compiler.ops import Conv, Linear
from tcc.testing.nets import NetBuilder, build_dense, build_gated
from tcc.testing.op_cases import sample_weights


@pytest.mark.parametrize(
    "graph", [build_dense(), build_gated(), make_twin_graph()], ids=["dense", "gated", "twins"]
)
def test_modules_in_the_order_of_the_layers_match(tmp_path: Path, graph: Graph) -> None:
    imported = import_checkpoint(save_state(tmp_path, make_state(graph)), graph)
    assert_complete(imported, graph)
    assert set(count_methods(imported)) <= {"order", "ignored"}
    first_row, *_ = imported.rows
    assert (first_row.source, first_row.name, first_row.how) == (
        "net.0.weight",
        next(iter(graph.params)),
        "order",
    )
    tracked = [row for row in imported.rows if row.how == "ignored"]
    assert {row.source.rpartition(".")[2] for row in tracked} == {"num_batches_tracked"}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {"state": {}}},
        lambda s: {"model_state_dict": s, "best": 0.5},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"state_dict": {f"module._orig_mod.{k}": v for k, v in s.items()}},
        dict,
    ],
)
def test_wrappers_of_training_programs_are_removed(
    tmp_path: Path, wrap: Callable[[State], object]
) -> None:
    imported = import_checkpoint(
        save_state(tmp_path, wrap(make_state(make_twin_graph()))), make_twin_graph()
    )
    assert_complete(imported, make_twin_graph())
    assert imported.rows[0].source == "net.0.weight"


def test_the_old_format_of_pytorch_is_read(tmp_path: Path) -> None:
    path = save_state(tmp_path, make_state(make_twin_graph()), _use_new_zipfile_serialization=False)
    assert_complete(import_checkpoint(path, make_twin_graph()), make_twin_graph())


def test_tcc_names_take_precedence_over_order(tmp_path: Path) -> None:
    graph = make_twin_graph()
    own_names = {layer: layer for layer in list_layers(graph)}
    state = make_state(graph, own_names, order=list_layers(graph)[::-1])
    imported = import_checkpoint(save_state(tmp_path, state), graph)
    assert_complete(imported, graph)
    assert count_methods(imported) == {"name": len(graph.params), "ignored": 3}


def test_tcc_state_dicts_and_files_are_read(tmp_path: Path) -> None:
    graph = build_gated()
    network = create_module(graph, sample_weights(graph))
    assert_complete(import_checkpoint(save_state(tmp_path, network.state_dict()), graph), graph)
    path = tmp_path / "w.safetensors"
    save_file(sample_weights(graph), path)
    assert_complete(import_checkpoint(path, graph), graph)


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    state = {
        k: v.half() if v.is_floating_point() else v
        for k, v in make_state(make_twin_graph()).items()
    }
    imported = import_checkpoint(save_state(tmp_path, state), make_twin_graph())
    for name, values in sample_weights(make_twin_graph()).items():
        np.testing.assert_array_equal(
            imported.weights[name], values.astype(np.float16).astype(np.float32)
        )


@pytest.mark.parametrize("clone", [False, True])
@pytest.mark.parametrize("position", ["first", "last"])
def test_a_module_registered_twice_counts_once(tmp_path: Path, clone: bool, position: str) -> None:
    graph = make_twin_graph()
    state = make_state(graph)
    copies = {
        k.replace("net.", "again."): v.clone() if clone else v
        for k, v in state.items()
        if k.startswith(("net.0.", "net.1."))
    }
    both = {**copies, **state} if position == "first" else {**state, **copies}
    imported = import_checkpoint(save_state(tmp_path, both), graph)
    assert_complete(imported, graph)
    assert count_methods(imported) == {"order": len(graph.params), "duplicate": 6, "ignored": 4}
    names = {row.name for row in imported.rows if row.how == "duplicate"}
    assert names == {n for n in graph.params if n.startswith(("a.", "a_bn."))}


def test_layers_with_equal_initial_statistics_are_no_copies(tmp_path: Path) -> None:
    graph = make_twin_graph()
    state = make_state(graph)
    for name in state:
        if "running_" in name:
            state[name] = torch.ones(4)
    imported = import_checkpoint(save_state(tmp_path, state), graph)
    assert count_methods(imported) == {"order": len(graph.params), "ignored": 3}


def test_copies_with_an_ambiguous_order_are_refused(tmp_path: Path) -> None:
    graph = make_block_graph(("a", Conv(4, (1, 1))), ("b", Conv(4, (1, 1))))
    state = make_state(graph)
    copied_tensors = {
        k.replace("net.", "again."): v for k, v in state.items() if k.startswith("net.0.")
    }
    copied_tensors |= {
        k.replace("net.", "again."): v for k, v in state.items() if k.startswith("net.1.")
    }
    text = catch_refusal(save_state(tmp_path, {**state, **copied_tensors}), graph)
    # net.0 net.1 net.2 net.3 again.0 again.1 may run in the order 0 1 2 3 or 2 3 0 1.
    assert text == (
        "error[E0512]: 4 layers match several modules of the checkpoint\n"
        "  --> net.pth\n"
        "   = copies of modules appear in more than one order\n"
        "   = weight 4x4x1x1, bias 4: net.0, net.2 <-> a, b\n"
        "   = weight 4, bias 4, mean 4, var 4: net.1, net.3 <-> a_bn, b_bn\n"
        "   = help: name some of these in a rule file (`--rules`); the order then decides"
        " the rest"
    )


def test_a_different_number_of_classes_is_reported(tmp_path: Path) -> None:
    graph = build_dense()
    state = make_state(graph)
    state["net.5.weight"], state["net.5.bias"] = torch.ones(7, 16), torch.ones(7)
    aux = [k for k in state if k.startswith("net.6.")]
    assert len(aux) == 2
    assert catch_refusal(save_state(tmp_path, state), graph) == (
        "error[E0511]: 1 modules of the checkpoint have no layer, 1 layers have no module\n"
        "  --> net.pth\n"
        "   = first difference: net.5 (weight 7x16, bias 7) in the checkpoint, fc (weight 5x16, bias 5)"
        " in the graph\n"
        "   = weight 5x16, bias 5: 0 in the checkpoint, 1 in the graph: none <-> fc\n"
        "   = weight 7x16, bias 7: 1 in the checkpoint, 0 in the graph: net.5 <-> none\n"
        "   = help: check the parameters of the spec (`--set`); exclude train-only modules with"
        " a rule file: `rules: [{ignore: aux.**}]`"
    )


def test_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    state = make_state(make_twin_graph())
    del state["net.3.running_var"]
    text = catch_refusal(save_state(tmp_path, state), make_twin_graph())
    assert "1 modules of the checkpoint have no layer, 1 layers have no module" in text
    assert "weight 4, bias 4, mean 4: 1 in the checkpoint, 0 in the graph: net.3 <-> none" in text


def test_an_order_that_contradicts_the_graph_is_refused(tmp_path: Path) -> None:
    graph = make_twin_graph()
    order = ["b", "b_bn", "a", "a_bn", "c", "c_bn"]
    path = save_state(tmp_path, make_state(graph, order=order))
    assert catch_refusal(path, graph) == (
        "error[E0512]: 5 layers match several modules of the checkpoint\n"
        "  --> net.pth\n"
        "   = the modules are not in the order of the layers: first difference:"
        " net.2 (weight 4x4x1x1, bias 4) in the checkpoint,"
        " a (weight 4x4x3x3, bias 4) in the graph\n"
        "   = weight 4, bias 4, mean 4, var 4: net.3, net.1, net.5 <-> a_bn, b_bn, c_bn\n"
        "   = weight 4x4x1x1, bias 4: net.2, net.4 <-> b, c\n"
        "   = help: name some of these in a rule file (`--rules`); the order then decides"
        " the rest"
    )


def test_shapes_that_occur_once_need_no_order(tmp_path: Path) -> None:
    add = NetBuilder(4, 6, 6)
    add("a", Conv(5, (3, 3)))
    add("b", Conv(6, (1, 1)))
    add("c", Conv(7, (1, 1), bias=False))
    graph = add.build()
    imported = import_checkpoint(
        save_state(tmp_path, make_state(graph, order=["c", "a", "b"])), graph
    )
    assert_complete(imported, graph)
    assert count_methods(imported) == {"shape": 5}


def test_safetensors_are_ordered_by_the_numbers_in_names(tmp_path: Path) -> None:
    graph = build_gated()
    path = tmp_path / "net.pth"
    state = {k: v.numpy() for k, v in make_state(graph).items()}
    save_file({f"0.{k}": v for k, v in state.items()}, path)
    imported = import_checkpoint(path, graph)
    assert_complete(imported, graph)


def test_numbered_names_give_the_order_of_copies(tmp_path: Path) -> None:
    graph = make_twin_graph()
    state = make_state(graph)
    stem = {
        k.replace("net.", "stem."): v
        for k, v in state.items()
        if k.startswith(("net.0.", "net.1."))
    }
    path = tmp_path / "net.safetensors"
    save_file({k: v.numpy() for k, v in {**state, **stem}.items()}, path)
    imported = import_checkpoint(path, graph)
    assert_complete(imported, graph)
    assert {row.source for row in imported.rows if row.how == "duplicate"} == {
        name for name in stem if "num_batches" not in name
    }


def test_long_lists_of_modules_are_shortened(tmp_path: Path) -> None:
    text = catch_refusal(
        save_state(tmp_path, {f"m{i}.weight": torch.ones(1) for i in range(3000)}),
        make_twin_graph(),
    )
    assert "m48, m49 and 2,950 more <-> none" in text


def test_sorted_names_without_numbers_are_not_trusted(tmp_path: Path) -> None:
    add = NetBuilder(4)
    for name in ("query", "value", "key"):
        add(name, Linear(4))
    graph = add.build()
    names = {"query": "attention.q", "value": "attention.v", "key": "attention.k"}
    path = tmp_path / "net.pth"
    save_file({k: v.numpy() for k, v in make_state(graph, names).items()}, path)
    expected = (
        "error[E0512]: 3 layers match several modules of the checkpoint\n"
        "  --> net.pth\n"
        "   = the file does not store the order of its modules\n"
        "   = weight 4x4, bias 4: attention.k, attention.q, attention.v <-> query, value, key\n"
        "   = help: name some of these in a rule file (`--rules`); the order then decides"
        " the rest"
    )
    assert catch_refusal(path, graph) == expected
    # The same after saving the sorted state as a PyTorch file.
    state = make_state(graph, names)
    assert (
        catch_refusal(save_state(tmp_path, {k: state[k] for k in sorted(state)}), graph) == expected
    )


def test_non_finite_values_are_reported_with_their_layer(tmp_path: Path) -> None:
    state = make_state(make_twin_graph())
    state["net.1.running_mean"] = torch.tensor([0, float("nan"), 1, 1])
    text = catch_refusal(save_state(tmp_path, state), make_twin_graph())
    assert text.startswith("error[E0506]: 1 of 4 values of a_bn.mean are not finite")


def test_unrelated_tensors_are_ignored(tmp_path: Path) -> None:
    state: dict[str, torch.Tensor] = dict(make_state(make_twin_graph()))
    state["mask.sparse"] = torch.eye(3).to_sparse()
    state["mask.meta"] = torch.empty(3, device="meta")
    state["mask.complex"] = torch.ones(2, dtype=torch.complex64)
    state["mask.index"] = torch.arange(9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = save_state(tmp_path, state)
    imported = import_checkpoint(path, make_twin_graph())
    assert_complete(imported, make_twin_graph())
    ignored = {row.source for row in imported.rows if row.how == "ignored"}
    assert {"mask.sparse", "mask.meta", "mask.complex", "mask.index"} <= ignored


AUTHORS = [("GC", "GC.png", 6), ("Sipak", "Sipak.bmp", 5)]


@pytest.mark.parametrize(("name", "picture", "classes"), AUTHORS)
def test_ddsnet_checkpoints_give_their_logits(
    shared: Path, root: Path, name: str, picture: str, classes: int
) -> None:
    folder = shared / "data" / "ddsnet_checkpoints"
    facts = json.loads((shared / "facts" / "ddsnet_reference.json").read_text())[name]
    graph = load(root / "spec" / "ddsnet.yaml", {"classes": str(classes)}).graph
    imported = import_checkpoint(folder / facts["checkpoint"], graph)
    assert count_methods(imported) == {"order": 222, "duplicate": 6, "ignored": 38}
    source = graph.inputs[0]
    assert source.preprocess is not None
    x = preprocess.apply(source.preprocess, images.read_image(folder / picture), source.type.shape)[
        None
    ]
    expected = np.array(facts["runs"]["resize224_bilinear"]["logits"])
    with torch.no_grad():
        y = create_module(graph, imported.weights).eval()(torch.from_numpy(x))["logits"].numpy()
    np.testing.assert_allclose(y[0], expected, atol=1e-4)
    session = onnxruntime.InferenceSession(
        lower(Model(graph, imported.weights)).SerializeToString()
    )
    (y,) = session.run(["logits"], {"image": x})
    np.testing.assert_allclose(y[0], expected, atol=1e-4)


def test_a_ddsnet_checkpoint_with_other_classes_is_refused(shared: Path, root: Path) -> None:
    path = shared / "data" / "ddsnet_checkpoints" / "Sipak_DDS_0.0064.pth"
    graph = load(root / "spec" / "ddsnet.yaml").graph
    text = catch_refusal(path, graph)
    assert "net.12 (weight 5x248, bias 5) in the checkpoint, linear (weight 6x248, bias 6)" in text
