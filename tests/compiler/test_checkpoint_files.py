"""Checkpoint files that are damaged, hostile or of another kind."""

import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from foreign_states import foreign, refused, saved, twins
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from op_cases import trained

from tcc.compiler.checkpoint import import_checkpoint
from tcc.compiler.source import UserError
from tcc.compiler.tools import MissingTool


def test_pytorch_is_asked_for_when_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, foreign(twins()))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingTool) as caught:
        import_checkpoint(path, twins())
    assert str(caught.value) == (
        "torch is needed to read PyTorch checkpoints; install it: pip install 'tcc-compiler[train]'"
    )


class Runs:
    """An object whose loading would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def damaged(folder: Path) -> dict[str, Path]:
    """Return files that are no checkpoint, by what they are."""
    whole = saved(folder, foreign(twins())).read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(trained(twins())["a.weight"].tobytes()) + 3] ^= 4
    files = {
        "empty": b"",
        "text": b"weights: none\n",
        "cut": whole[: len(whole) // 2],
        "damaged": bytes(flipped),
        "a pickle that runs": pickle.dumps({"a": Runs(folder / "ran")}),
        "a pickle of numbers": pickle.dumps({"a": 1.0}),
        "zip magic alone": b"PK\x03\x04",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with zipfile.ZipFile(folder / "compressed", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"\0" * 10_000_000)
    torch.save({"a": Runs(folder / "ran")}, folder / "a program")
    torch.save({"a": torch.ones(1).expand(1 << 40)}, folder / "a bomb")
    torch.save({"epoch": 3, "loss": 0.5}, folder / "no tensors")
    torch.save([torch.ones(3)], folder / "a list")
    torch.save({}, folder / "nothing")
    torch.save(torch.nn.Linear(2, 2), folder / "a whole module")
    return {p.name: p for p in folder.iterdir() if p.name != "net.pth"}


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    found = {name: refused(path, twins()) for name, path in damaged(tmp_path).items()}
    assert not (tmp_path / "ran").exists()
    assert {text.splitlines()[0].split(":")[0] for text in found.values()} == {"error[E0510]"}
    assert "the checkpoint is damaged" in found["damaged"]
    assert "the checksum of " in found["damaged"]
    assert "the checkpoint is a compressed archive" in found["compressed"]
    assert "a claims more than there is" in found["a bomb"]
    assert "the checkpoint holds no state dict" in found["no tensors"]
    assert "its keys are epoch, loss" in found["no tensors"]
    assert "save it anew: `torch.save(model.state_dict(), path)`" in found["a whole module"]
    assert "cannot read the checkpoint" in refused(tmp_path / "none.pth", twins())
    assert "cannot read the checkpoint" in refused(tmp_path, twins())


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), old=st.booleans())
def test_no_damage_gets_past(tmp_path: Path, data: st.DataObject, old: bool) -> None:
    path = saved(tmp_path, foreign(twins()), _use_new_zipfile_serialization=not old)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    codes: set[str] = set()
    found = None
    try:
        found = import_checkpoint(path, twins())
    except UserError as error:
        codes = {d.code for d in error.diagnostics}
    assert (found is None) == bool(codes)
    assert codes <= {"E0506", "E0507", "E0510", "E0511", "E0512"}
