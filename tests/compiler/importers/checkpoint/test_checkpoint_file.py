"""Damaged, hostile and unrelated files in place of checkpoints."""

import pickle
import subprocess
import sys
import zipfile
from functools import cache
from io import BytesIO
from pathlib import Path

import torch
from foreign_states import catch_refusal, make_state, make_twin_graph, save_state
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tcc.compiler.importers.checkpoint import import_checkpoint
from tcc.compiler.support.diagnostics import UserError
from tcc.testing.op_cases import sample_weights


def test_pytorch_is_not_needed(tmp_path: Path) -> None:
    path = save_state(tmp_path, make_state(make_twin_graph()))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from tcc.testing.nets import build_dense\n"
        "from tcc.compiler.importers.checkpoint import checkpoint_file as foreign\n"
        "print(len(foreign.read_checkpoint(Path(sys.argv[2])).tensors))"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parents[3]), str(path)]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(completed.stdout) == len(make_state(make_twin_graph()))


class Runs:
    """An object that would create a file when loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def write_damaged_files(folder: Path) -> dict[str, Path]:
    """Return files that are no checkpoint, with a description."""
    content = save_state(folder, make_state(make_twin_graph())).read_bytes()
    flipped = bytearray(content)
    flipped[content.index(sample_weights(make_twin_graph())["a.weight"].tobytes()) + 3] ^= 4
    files = {
        "empty": b"",
        "text": b"weights: none\n",
        "cut": content[: len(content) // 2],
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


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path) -> None:
    refusals = {
        name: catch_refusal(path, make_twin_graph())
        for name, path in write_damaged_files(tmp_path).items()
    }
    assert not (tmp_path / "ran").exists()
    assert {text.splitlines()[0].split(":")[0] for text in refusals.values()} == {"error[E0510]"}
    assert "the checkpoint is damaged" in refusals["damaged"]
    assert "the checksum of " in refusals["damaged"]
    assert "its zip entries are compressed" in refusals["compressed"]
    assert "the archive's directory is missing: the file is truncated" in refusals["cut"]
    assert "it is a pickle, but not one that `torch.save` wrote" in refusals["a pickle of numbers"]
    assert "the checkpoint contains no state dict" in refusals["no tensors"]
    assert "its keys are epoch, loss" in refusals["no tensors"]
    assert "save it again: `torch.save(model.state_dict(), path)`" in refusals["text"]
    assert "cannot read the checkpoint" in catch_refusal(tmp_path / "none.pth", make_twin_graph())
    assert "cannot read the checkpoint" in catch_refusal(tmp_path, make_twin_graph())


@cache
def encode_checkpoint(old: bool) -> bytes:
    """Return the bytes of a checkpoint, always the same: the old format contains addresses."""
    file = BytesIO()
    torch.save(make_state(make_twin_graph()), file, _use_new_zipfile_serialization=not old)
    return file.getvalue()


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), old=st.booleans())
def test_damaged_checkpoints_import_or_give_a_user_error(
    tmp_path: Path, data: st.DataObject, old: bool
) -> None:
    path = tmp_path / "net.pth"
    content = bytearray(encode_checkpoint(old))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    codes: set[str] = set()
    imported = None
    try:
        imported = import_checkpoint(path, make_twin_graph())
    except UserError as error:
        codes = {d.code for d in error.diagnostics}
    assert (imported is None) == bool(codes)
    assert codes <= {"E0506", "E0507", "E0510", "E0511", "E0512"}
