"""Files of PyTorch are read without PyTorch. Nothing in them is run, hashed or expanded."""

import argparse
import os
import pickle
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_states import (
    State,
    assert_complete,
    catch_refusal,
    count_methods,
    list_layers,
    make_state,
    make_twin_graph,
    save_state,
)

from tcc.compiler.importers.checkpoint import import_checkpoint
from tcc.testing.op_cases import sample_weights


def write_packed(folder: Path, pickled: bytes, **storages: bytes) -> Path:
    """Return a zip checkpoint with that pickle and the storages of a real one."""
    source_path = save_state(folder, make_state(make_twin_graph()))
    path = folder / "packed.pth"
    with zipfile.ZipFile(source_path) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            inner = entry.filename.partition("/")[2]
            data = pickled if inner == "data.pkl" else source.read(entry)
            target.writestr(f"net/{inner}", storages.pop(inner, data))
        for inner, data in storages.items():
            target.writestr(f"net/{inner}", data)
    return path


def encode_text(string: str) -> bytes:
    return b"X" + len(string).to_bytes(4, "little") + string.encode()


def encode_doubled(times: int) -> bytes:
    """Return pickle code of a tuple that contains a tuple twice, nested that many times."""
    return b")" + b"q\x00h\x00\x86" * times


def encode_tensor(
    offset: bytes = b"K\x00", shape: bytes = b"K\x04\x85", stride: bytes = b"K\x01\x85"
):
    """Return pickle code of a tensor in storage 1 with an offset, shape and stride."""
    storage = (
        b"("
        + encode_text("storage")
        + b"ctorch\nFloatStorage\n"
        + encode_text("1")
        + encode_text("cpu")
        + b"K\x04tQ"
    )
    instructions = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + stride
    return instructions + b"\x89ccollections\nOrderedDict\n)RtR"


HOSTILE = {
    "a key of 2^28": (b"\x80\x02}" + encode_doubled(28) + b"K\x01s.", "its keys are a tuple"),
    "a key of 2^60": (b"\x80\x02}" + encode_doubled(60) + b"K\x01s.", "its keys are a tuple"),
    "a tensor under it": (
        b"\x80\x02}" + encode_doubled(60) + encode_tensor() + b"s.",
        "a tensor's name must be text, not a tuple",
    ),
    "a tensor under a number": (
        b"\x80\x02}K\x05" + encode_tensor() + b"s.",
        "a tensor's name must be text, not a int",
    ),
    "a name twice": (
        b"\x80\x02}" + 2 * (encode_text("a.weight") + encode_tensor() + b"s") + b".",
        "it contains a.weight twice",
    ),
    "a dict in itself": (
        b"\x80\x02}q\x00" + encode_text("state_dict") + b"h\x00s.",
        "no state dict",
    ),
    "a list in itself": (b"\x80\x02]q\x00h\x00a.", "no state dict"),
    "nested too deep": (b"\x80\x02" + b"]" * 90_000 + b"a" * 89_999 + b".", "no state dict"),
    "without an end": (b"\x80\x02" + b"]" * 3_000_001, "has more than 3,000,000 instructions"),
    "an empty stack": (b"\x80\x02\x85.", "the stack is empty"),
    "nothing stored": (b"\x80\x02h\x07.", "it reads a memo entry that was never stored"),
    "an extension": (b"\x80\x02\x82\x07.", "unsupported pickle instruction"),
    "a long text": (b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f.", ""),
    "an offset beyond": (
        b"\x80\x02}" + encode_text("a") + encode_tensor(offset=b"K\x01") + b"s.",
        "a is larger than its storage",
    ),
    "an offset before": (
        b"\x80\x02}" + encode_text("a") + encode_tensor(offset=b"J\xff\xff\xff\xff") + b"s.",
        "a has invalid sizes or strides",
    ),
    "a stride backwards": (
        b"\x80\x02}" + encode_text("a") + encode_tensor(stride=b"J\xff\xff\xff\xff\x85") + b"s.",
        "a has invalid sizes or strides",
    ),
    "a huge stride": (
        b"\x80\x02}" + encode_text("a") + encode_tensor(stride=b"J\xff\xff\xff\x7f\x85") + b"s.",
        "a is larger than its storage",
    ),
    "a huge number": (
        b"\x80\x02}"
        + encode_text("a")
        + encode_tensor(stride=b"\x8a\xff" + b"\x7f" * 255 + b"\x85")
        + b"s.",
        "a has invalid sizes or strides",
    ),
    "a shape of truths": (
        b"\x80\x02}" + encode_text("a") + encode_tensor(shape=b"\x88\x85") + b"s.",
        "a has invalid sizes or strides",
    ),
    "sizes that differ": (
        b"\x80\x02}" + encode_text("a") + encode_tensor(shape=b"K\x02K\x02\x86") + b"s.",
        "a has invalid sizes or strides",
    ),
    "modules without end": (
        b"\x80\x02c__torch__\nNet\n)\x81q\x00}" + encode_text("again") + b"h\x00sb.",
        "its modules are nested too deeply or repeat too often",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_at_once(tmp_path: Path, name: str) -> None:
    pickled, expected = HOSTILE[name]
    path = write_packed(tmp_path, pickled)
    refusal = catch_refusal(path, make_twin_graph())  # at once: 2^28 objects would take minutes
    assert refusal.startswith("error[E0510]")
    assert expected in refusal


@pytest.mark.slow
def test_deeply_shared_modules_are_refused(tmp_path: Path) -> None:
    net = b"c__torch__\nNet\n)\x81}b"
    for _ in range(60):
        twice = encode_text("a") + b"h\x00" + encode_text("b") + b"h\x00"
        net += b"q\x000c__torch__\nNet\n)\x81}(" + twice + b"ub"
    path = write_packed(tmp_path, b"\x80\x02" + net + b".")
    assert "its modules are nested too deeply or repeat too often" in catch_refusal(
        path, make_twin_graph()
    )


@pytest.mark.parametrize("call", [os.system, eval, os.remove, __import__])
@pytest.mark.parametrize("old", [False, True])
def test_pickles_that_run_code_are_refused_and_not_run(
    tmp_path: Path, call: Callable[..., object], old: bool
) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return (call, (f"touch {tmp_path}/ran",))

    state = {"state_dict": make_state(make_twin_graph()), "extra": Attack()}
    path = save_state(tmp_path, state, _use_new_zipfile_serialization=not old)
    refusal = catch_refusal(path, make_twin_graph())
    assert "the checkpoint runs code when PyTorch loads it" in refusal
    assert f"it calls {call.__module__}.{call.__name__}; tcc did not run it" in refusal
    assert not (tmp_path / "ran").exists()


class Settings:
    """Training settings in a class that no other program has."""

    def __init__(self) -> None:
        self.rate = torch.tensor(0.1)

    def __setstate__(self, state: object) -> None:
        raise AssertionError("the checkpoint's own code ran")


def test_other_objects_are_named_and_not_created(tmp_path: Path) -> None:
    graph = make_twin_graph()
    other_objects = {
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1, layers=[1, 2]),
        "settings": Settings(),
        "optimizer": torch.optim.Adam([torch.ones(3, requires_grad=True)]).state_dict(),
        "history": np.ones(3),
    }
    for old in (False, True):
        state = {"state_dict": make_state(graph), **other_objects}
        path = save_state(tmp_path, state, _use_new_zipfile_serialization=not old)
        imported = import_checkpoint(path, graph)
        assert_complete(imported, graph)
        (note,) = imported.notes
        assert note.startswith("not imported: epoch, args (argparse.Namespace), settings (")
        assert "optimizer, history (numpy" in note


class PlainNetwork(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        graph = make_twin_graph()
        self.steps = torch.nn.Sequential()
        for name in list_layers(graph):
            shapes = {n.rpartition(".")[2]: graph.params[n].shape for n in graph.params if n.startswith(f"{name}.")}  # fmt: skip
            shape = shapes["weight"]
            layer = torch.nn.Conv2d(shape[1], shape[0], shape[2]) if len(shape) == 4 else torch.nn.BatchNorm2d(shape[0])  # fmt: skip
            self.steps.append(layer)
        self.register_buffer("grid", torch.ones(3), persistent=False)
        state = [torch.from_numpy(v) for v in sample_weights(graph).values()]
        parameters = [v for k, v in self.state_dict().items() if "num_batches" not in k]
        for target, value in zip(parameters, state, strict=True):
            target.copy_(value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.steps(x)


def test_torchscript_and_pickled_modules_are_read(tmp_path: Path) -> None:
    graph, network = make_twin_graph(), PlainNetwork()
    names = list(network.state_dict())
    torch.save({"model": network, "epoch": 1}, tmp_path / "whole.pt")
    imported = import_checkpoint(tmp_path / "whole.pt", graph)
    assert_complete(imported, graph)
    assert [row.source for row in imported.rows] == names  # PyTorch does not save the grid either
    del network.grid
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(network), tmp_path / "script.pt")
    imported = import_checkpoint(tmp_path / "script.pt", graph)
    assert_complete(imported, graph)
    assert {row.source for row in imported.rows} == set(names)


VIEWS: dict[str, Callable[[State], State]] = {
    "expanded": lambda s: {**s, "net.1.bias": torch.tensor([0.25]).expand(4)},
    "parameters": lambda s: {k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in s.items()},
    "transposed": lambda s: {**s, "net.0.weight": s["net.0.weight"].permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)},
    "part of another": lambda s: {**s, "net.0.weight": torch.cat([torch.ones(7), s["net.0.weight"].ravel()])[7:].view(4, 4, 3, 3)},
    "float64": lambda s: {k: v.double() for k, v in s.items()},
    "bfloat16": lambda s: {k: v.bfloat16() for k, v in s.items()},
    "float16": lambda s: {k: v.half() for k, v in s.items()},
    "with attributes": lambda s: {**s, "net.0.bias": tag_parameter(s["net.0.bias"])},
}  # fmt: skip


def tag_parameter(value: torch.Tensor) -> torch.nn.Parameter:
    parameter = torch.nn.Parameter(value)
    parameter.tag = "kept"  # type: ignore[attr-defined]
    return parameter


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("layout", VIEWS)
def test_tensors_of_every_layout_are_read(tmp_path: Path, layout: str, old: bool) -> None:
    graph = make_twin_graph()
    state = VIEWS[layout](make_state(graph))
    path = save_state(tmp_path, state, _use_new_zipfile_serialization=not old)
    imported = import_checkpoint(path, graph)
    floats = [v for k, v in state.items() if not k.endswith("num_batches_tracked")]
    for (name, actual), expected in zip(imported.weights.items(), floats, strict=True):
        np.testing.assert_array_equal(actual, expected.detach().float().numpy(), err_msg=name)
    assert count_methods(imported)["ignored"] == 3


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])  # PyTorch itself fails at 0
@pytest.mark.parametrize("old", [False, True])
def test_every_pickle_protocol_is_read(tmp_path: Path, protocol: int, old: bool) -> None:
    state = {
        "state_dict": make_state(make_twin_graph()),
        "args": argparse.Namespace(a=1),
        "s": {1, 2},
    }
    save_options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": not old}
    assert_complete(
        import_checkpoint(save_state(tmp_path, state, **save_options), make_twin_graph()),
        make_twin_graph(),
    )


def test_the_byte_order_of_the_file_is_used(tmp_path: Path) -> None:
    state = {k: v for k, v in make_state(make_twin_graph()).items() if v.is_floating_point()}
    source_path = save_state(tmp_path, state)
    path = tmp_path / "big.pth"
    with zipfile.ZipFile(source_path) as source, zipfile.ZipFile(path, "w") as target:
        for entry in source.infolist():
            data = source.read(entry)
            if "/data/" in entry.filename:
                data = np.frombuffer(data, "<f4").astype(">f4").tobytes()
            if entry.filename.endswith("byteorder"):
                data = b"big"
            target.writestr(entry, data)
    assert_complete(import_checkpoint(path, make_twin_graph()), make_twin_graph())


def test_a_pickle_not_saved_by_torch_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(pickle.dumps(make_state(make_twin_graph())))
    assert "it is a pickle, but not one that `torch.save` wrote" in catch_refusal(
        path, make_twin_graph()
    )


def test_pipes_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "net.pth")
    assert "it is a pipe, not a file" in catch_refusal(tmp_path / "net.pth", make_twin_graph())
    assert "it is a device, not a file" in catch_refusal(Path("/dev/zero"), make_twin_graph())


def test_shapes_are_compared_before_a_tensor_is_read(tmp_path: Path) -> None:
    # The old format stores sizes before the bytes: a sparse tebibyte.
    path = save_state(
        tmp_path, {"w.weight": torch.ones(41, 7)}, _use_new_zipfile_serialization=False
    )
    size, large = (287).to_bytes(8, "little"), (1 << 38).to_bytes(8, "little")
    data = path.read_bytes()
    assert data.count(size) == 1
    path.write_bytes(data.replace(size, large))
    os.truncate(path, len(data) - 4 * 287 + (1 << 40))
    start = time.process_time()
    refusal = catch_refusal(path, make_twin_graph())
    assert "1 modules of the checkpoint have no layer, 6 layers have no module" in refusal
    assert time.process_time() - start < 2


def test_a_tensor_in_a_much_larger_storage_is_refused(tmp_path: Path) -> None:
    state = make_state(make_twin_graph())
    state["net.0.weight"] = torch.zeros(287)[:144].view(4, 4, 3, 3)
    path = save_state(tmp_path, state, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    size, large = (287).to_bytes(8, "little"), (1 << 38).to_bytes(8, "little")
    at = data.rindex(size)  # its bytes and those of later tensors come last
    path.write_bytes(data[:at] + large)
    os.truncate(path, at + 8 + (1 << 40))
    assert catch_refusal(path, make_twin_graph()).startswith("error[E0510]")


def test_overlapping_zip_entries_are_refused(tmp_path: Path) -> None:
    data = bytearray(save_state(tmp_path, make_state(make_twin_graph())).read_bytes())
    with zipfile.ZipFile(tmp_path / "net.pth") as source:
        entries = [e for e in source.infolist() if "/data/" in e.filename]
        largest = max(entries, key=lambda e: e.file_size)
    name = largest.filename.encode()
    at = data.rindex(name) - 46
    header = bytes(data[at : at + 46])
    for entry in entries:
        header_offset = data.rindex(entry.filename.encode()) - 46
        data[header_offset + 16 : header_offset + 28] = header[16:28]
        data[header_offset + 42 : header_offset + 46] = header[42:46]
    (tmp_path / "overlap.pth").write_bytes(data)
    refusal = catch_refusal(tmp_path / "overlap.pth", make_twin_graph())
    assert refusal.startswith(("error[E0510]", "error[E0512]"))
