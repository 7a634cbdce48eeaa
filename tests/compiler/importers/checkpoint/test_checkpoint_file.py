"""Checkpoint files that are damaged, hostile or of another kind."""

import pickle
import subprocess
import sys
import zipfile
from functools import cache
from io import BytesIO
from pathlib import Path

import torch
from foreign_states import foreign, refused, saved, twins
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tcc.compiler.importers.checkpoint import import_checkpoint
from tcc.compiler.support.diagnostics import UserError
from tcc.testing.op_cases import sample_weights


def test_pytorch_is_not_needed(tmp_path: Path) -> None:
    path = saved(tmp_path, foreign(twins()))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from tcc.testing.nets import build_dense\n"
        "from tcc.compiler.importers.checkpoint import checkpoint_file as foreign\n"
        "print(len(foreign.read_checkpoint(Path(sys.argv[2])).tensors))"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parents[3]), str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(found.stdout) == len(foreign(twins()))


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
    flipped[whole.index(sample_weights(twins())["a.weight"].tobytes()) + 3] ^= 4
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
    torch.save({"epoch": 3, "loss": 0.5}, folder / "no tensors")
    torch.save([torch.ones(3)], folder / "a list")
    torch.save({}, folder / "nothing")
    return {p.name: p for p in folder.iterdir() if p.name != "net.pth"}


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    found = {name: refused(path, twins()) for name, path in damaged(tmp_path).items()}
    assert not (tmp_path / "ran").exists()
    assert {text.splitlines()[0].split(":")[0] for text in found.values()} == {"error[E0510]"}
    assert "the checkpoint is damaged" in found["damaged"]
    assert "the checksum of " in found["damaged"]
    assert "its entries are compressed" in found["compressed"]
    assert "the archive's directory is missing: the file was cut" in found["cut"]
    assert "it is a pickle, but not one that `torch.save` wrote" in found["a pickle of numbers"]
    assert "the checkpoint holds no state dict" in found["no tensors"]
    assert "its keys are epoch, loss" in found["no tensors"]
    assert "save it anew: `torch.save(model.state_dict(), path)`" in found["text"]
    assert "cannot read the checkpoint" in refused(tmp_path / "none.pth", twins())
    assert "cannot read the checkpoint" in refused(tmp_path, twins())


@cache
def written(old: bool) -> bytes:
    """A checkpoint's bytes, always the same ones: the old format has addresses in it."""
    file = BytesIO()
    torch.save(foreign(twins()), file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), old=st.booleans())
def test_no_damage_gets_past(tmp_path: Path, data: st.DataObject, old: bool) -> None:
    path = tmp_path / "net.pth"
    whole = bytearray(written(old))
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
