"""Additional content of training checkpoints, and names in another order."""

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from foreign_states import (
    State,
    assert_complete,
    catch_refusal,
    count_methods,
    make_state,
    make_twin_graph,
    save_state,
)
from safetensors.torch import save_file

from tcc.compiler.frontend.spec import load
from tcc.compiler.importers.checkpoint import import_checkpoint
from tcc.compiler.ir.graph import Graph, Output
from tcc.compiler.ops import BatchNorm, Conv, Flatten, GlobalAvgPool, Linear
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.zoo import shipped
from tcc.testing.nets import NetBuilder


def average_weights(state: Mapping[str, torch.Tensor]) -> State:
    """Return weights as averaged over a training: close, but not equal."""
    return State({k: v + 0.125 if v.is_floating_point() else v for k, v in state.items()})


def add_prefix(prefix: str, state: Mapping[str, torch.Tensor]) -> State:
    return State({f"{prefix}{name}": value for name, value in state.items()})


RAW: dict[str, Callable[[State], object]] = {
    "ema_state_dict": lambda s: {"state_dict": s, "ema_state_dict": average_weights(s), "epoch": 1},
    "model_ema": lambda s: {"model_ema": average_weights(s), "model": s},
    "state_dict_ema": lambda s: {"state_dict_ema": add_prefix("module.", average_weights(s)), "state_dict": s},
    "ema": lambda s: {"net": s, "ema": {"decay": 0.9, "shadow": average_weights(s)}},
    "ema_model": lambda s: {"state_dict": {**add_prefix("model.", s), **add_prefix("ema_model.", average_weights(s))}},
    "swa_model": lambda s: {"swa_model": {"n_averaged": torch.tensor(3), **add_prefix("module.", average_weights(s))}, "model": s},
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_the_choice_of_raw_or_averaged_weights_is_reported(tmp_path: Path, name: str) -> None:
    graph = make_twin_graph()
    path = save_state(tmp_path, RAW[name](make_state(graph)))
    imported = import_checkpoint(path, graph)
    assert_complete(imported, graph)
    assert imported.notes[0].startswith("imported the weights of `")
    title = imported.notes[0].partition("other entries: `")[2].partition("`")[0]
    assert title.split(".")[-1] in (name, "shadow")
    averaged = import_checkpoint(path, graph, entry_name=title)
    for weight, values in imported.weights.items():
        np.testing.assert_array_equal(averaged.weights[weight], values + np.float32(0.125))


WRAPPERS: dict[str, Callable[[State], object]] = {
    "averaged alone": lambda s: {"model_ema": s},
    "torch's own average": lambda s: {"n_averaged": torch.tensor(3), **add_prefix("module.", s)},
    "Lightning": lambda s: {
        "state_dict": {**add_prefix("model.", s), "criterion.weight": torch.ones(5)},
        "optimizer_states": [torch.optim.Adam([torch.ones(2, requires_grad=True)]).state_dict()],
        "hyper_parameters": {"lr": 0.1},
        "pytorch-lightning_version": "2.4",
    },
    "compiled inside": lambda s: {"state_dict": add_prefix("model._orig_mod.", s)},
    "compiled and parallel": lambda s: add_prefix("module._orig_mod.module.", s),
    "a loss with weights": lambda s: {**s, "loss_fn.pos_weight": torch.ones(5)},
    "metrics": lambda s: {"train_metrics.acc.tp": torch.ones(5), **s},
    "a head for training": lambda s: {**s, "aux_head.0.weight": torch.ones(5, 4)},
    "one dict of an unknown name": lambda s: {"my_weights": s, "epoch": 3},
    "the same twice": lambda s: {"state_dict": s, "model": s},
    "no counters": lambda s: {k: v for k, v in s.items() if "num_batches" not in k},
    "next to an optimizer": lambda s: {
        "model": s,
        "optimizer": {"exp_avg": add_prefix("model.", s), "state": {0: {"exp_avg": torch.ones(3)}}},
    },
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers_of_training_programs_are_removed(tmp_path: Path, wrapper: str, old: bool) -> None:
    graph = make_twin_graph()
    state = WRAPPERS[wrapper](make_state(graph))
    path = save_state(tmp_path, state, _use_new_zipfile_serialization=not old)
    assert_complete(import_checkpoint(path, graph), graph)


def test_ignored_modules_are_named(tmp_path: Path) -> None:
    state = {
        **make_state(make_twin_graph()),
        "criterion.weight": torch.ones(5),
        "aux.fc.weight": torch.ones(2, 2),
    }
    imported = import_checkpoint(save_state(tmp_path, state), make_twin_graph())
    assert imported.notes == ("ignored, because only training uses them: criterion, aux.fc",)
    ignored_names = [
        row.source for row in imported.rows if row.how == "ignored" and "num_b" not in row.source
    ]
    assert ignored_names == ["criterion.weight", "aux.fc.weight"]


def test_unknown_extra_modules_are_refused(tmp_path: Path) -> None:
    state = {**make_state(make_twin_graph()), "attention.weight": torch.ones(5)}
    text = catch_refusal(save_state(tmp_path, state), make_twin_graph())
    assert "1 modules of the checkpoint have no layer, 0 layers have no module" in text
    assert "attention <-> none" in text


def test_a_layer_named_like_a_loss_is_used_if_it_fits(tmp_path: Path) -> None:
    state = {
        k.replace("net.4", "loss").replace("net.5", "aux"): v
        for k, v in make_state(make_twin_graph()).items()
    }
    imported = import_checkpoint(save_state(tmp_path, state), make_twin_graph())
    assert_complete(imported, make_twin_graph())
    assert imported.notes == ()


def test_several_entries_need_a_choice_by_the_user(tmp_path: Path) -> None:
    graph = make_twin_graph()
    state = make_state(graph)
    path = save_state(
        tmp_path, {"generator": average_weights(state), "discriminator": state, "epoch": 1}
    )
    assert catch_refusal(path, graph) == (
        "error[E0515]: several entries of the checkpoint contain weights\n"
        "  --> net.pth\n"
        "   = `generator`, `discriminator`\n"
        "   = help: choose one of them: `--entry NAME`"
    )
    assert_complete(import_checkpoint(path, graph, entry_name="discriminator"), graph)
    with pytest.raises(UserError) as caught:
        import_checkpoint(path, graph, entry_name="generater")
    assert "no entry is called `generater`" in str(caught.value)
    assert "entries with weights: `generator`, `discriminator`" in str(caught.value)
    path = save_state(
        tmp_path,
        {**add_prefix("student.", state), **add_prefix("teacher.", average_weights(state))},
    )
    assert catch_refusal(path, graph).startswith("error[E0511]")
    assert_complete(import_checkpoint(path, graph, entry_name="student"), graph)


def build_resnet() -> Graph:
    """Return a very small ResNet with the structure of torchvision."""
    return load(shipped.list_specs()["resnet18"], {"classes": "3"}).graph


def map_torchvision_names(graph: Graph) -> dict[str, str]:
    """Return the torchvision name of each layer of ResNet18."""
    order = ["conv1", "bn1"]
    for stage in range(1, 5):
        for number in range(2):
            inner = ["conv1", "bn1", "conv2", "bn2"]
            inner += ["downsample.0", "downsample.1"] if stage > 1 and not number else []
            order += [f"layer{stage}.{number}.{name}" for name in inner]
    layer_names = list(dict.fromkeys(name.rpartition(".")[0] for name in graph.params))
    return dict(zip(layer_names, [*order, "fc"], strict=True))


SHUFFLES: dict[str, Callable[[list[str]], list[str]]] = {
    "as it runs": lambda names: names,
    "sorted": sorted,
    "backwards": lambda names: names[::-1],
    "shuffled": lambda names: Random(1).sample(names, len(names)),
}


@pytest.mark.parametrize(
    ("order", "prefix"),
    [
        pytest.param(order, prefix, marks=[pytest.mark.slow] * ((number + i) % 3 > 0))
        for number, order in enumerate(SHUFFLES)
        for i, prefix in enumerate(("", "model.", "module.net.backbone."))
    ],
)
def test_known_names_need_no_order(tmp_path: Path, order: str, prefix: str) -> None:
    graph = build_resnet()
    state = add_prefix(prefix, make_state(graph, map_torchvision_names(graph)))
    names = SHUFFLES[order](list(state))
    imported = import_checkpoint(save_state(tmp_path, {name: state[name] for name in names}), graph)
    assert_complete(imported, graph)
    assert set(count_methods(imported)) == {"names", "ignored"}
    assert imported.notes[-1] == "the module names are those of resnet of torchvision and timm"
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "net.safetensors")
    assert_complete(import_checkpoint(tmp_path / "net.safetensors", graph), graph)


def test_known_names_with_a_changed_network_are_refused(tmp_path: Path) -> None:
    graph = build_resnet()
    state = make_state(graph, map_torchvision_names(graph))
    extended_state = {**state, "layer4.2.conv1.weight": torch.ones(512, 512, 3, 3)}
    assert catch_refusal(save_state(tmp_path, extended_state), graph).startswith("error[E0511]")
    fewer = {k: v for k, v in state.items() if not k.startswith("layer2.1.bn2")}
    assert catch_refusal(save_state(tmp_path, fewer), graph).startswith("error[E0511]")
    wide = {**state, "fc.weight": torch.ones(1000, 512), "fc.bias": torch.ones(1000)}
    text = catch_refusal(save_state(tmp_path, wide), graph)
    assert "weight 1000x512, bias 1000" in text
    assert "`--set`" in text


def test_training_only_layers_may_be_missing(tmp_path: Path) -> None:
    add = NetBuilder(4, 6, 6, name="net")
    add("conv", Conv(4, (3, 3)))
    bn = add("bn", BatchNorm())
    add("pool", GlobalAvgPool())
    add("flat", Flatten())
    end = add("fc", Linear(3))
    add("side_pool", GlobalAvgPool(), bn)
    add("side_flat", Flatten())
    side = add("side", Linear(3))
    graph = add.build()
    outputs = (Output("logits", end), Output("auxiliary", side, train_only=True))
    graph = Graph(graph.name, graph.inputs, graph.nodes, outputs)
    full_state = make_state(graph)
    assert_complete(import_checkpoint(save_state(tmp_path, full_state), graph), graph)
    part = {name: value for name, value in full_state.items() if not name.startswith("net.3.")}
    imported = import_checkpoint(save_state(tmp_path, part), graph)
    assert imported.notes == (
        "the checkpoint has no side: 2 train-only tensors are initialized at random",
    )
    assert set(imported.weights) == set(graph.params)
    reimported = import_checkpoint(save_state(tmp_path, part), graph)
    np.testing.assert_array_equal(
        imported.weights["side.weight"], reimported.weights["side.weight"]
    )


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda value: value.to(torch.int8), "int8"),
        (lambda value: torch.complex(value, value), "complex64"),
        (lambda value: value.to_sparse(), "sparse"),
    ],
    ids=["int8", "complex", "sparse"],
)
def test_integer_tensors_are_named_if_a_layer_needs_them(
    tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor], kind: str
) -> None:
    graph = make_twin_graph()
    state = make_state(graph)
    name = next(name for name in state if name.endswith(".weight"))
    text = catch_refusal(save_state(tmp_path, {**state, name: change(state[name])}), graph)
    assert text.startswith("error[E0511]")
    assert f"not imported, because they are not floating point: {name} ({kind})\n" in text
