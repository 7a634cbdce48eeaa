"""Checkpoints: the state of a training in one file, for bit-exact resumption.

The safetensors file contains the weights, the optimiser state, the averaged and the best weights so
far, and the losses of the current epoch. Its metadata contain the position, as sealed JSON with the
tensors' digest. Reading the file does not execute code.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tcc.compiler.data import safetensors_file, weights
from tcc.compiler.data.safetensors_file import TensorFile
from tcc.compiler.support.atomic_files import write_file
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.json_records import DocumentKind, OmitDefault, Record
from tcc.compiler.train import arithmetic
from tcc.compiler.train.run_folder import EpochMetrics, EvaluationMetrics
from tcc.compiler.train.trainer import Trainer, to_array

VERSION = 1


class TrainingIdentity(Record, frozen=True):
    """All inputs of a training: equal inputs, PyTorch and threads give identical weights."""

    network: str
    start: str
    recipe: str
    train: str
    val: str
    classes: tuple[str, ...]
    seed: int


class TrainingPosition(Record, frozen=True):
    """Training progress: `completed_epochs`, and the first `step` steps of `epoch`, are done."""

    tcc_checkpoint: int
    identity: TrainingIdentity
    torch: str
    threads: int
    processes: int
    epoch: int
    step: int
    hits: int
    completed_epochs: tuple[EpochMetrics, ...] = msgspec.field(name="done")
    best: int | None
    start_val: OmitDefault[EvaluationMetrics | None] = None
    tensors: str = ""
    seal: str = ""


DOCUMENT_KIND = DocumentKind(
    TrainingPosition,
    "tcc_checkpoint",
    VERSION,
    "E1230",
    "a training's checkpoint",
    "train again from the beginning, with another output folder",
)
BestWeights = Mapping[str, NDArray[np.float32]]
"""The best weights so far, by name; empty if there are none."""


@dataclass(frozen=True, eq=False)
class TrainingState:
    """A position with the epoch's losses and the best weights; `Trainer` has the other tensors."""

    position: TrainingPosition
    losses: NDArray[np.float32]
    best: BestWeights


def write_checkpoint(path: Path, trainer: Trainer, state: TrainingState) -> None:
    """Replace the checkpoint with the current state, atomically.

    Raises:
        UserError: The file cannot be written.
        MachineError: The disk is full or broken.
    """
    tensors = {name: to_array(tensor) for name, tensor in _iterate_tensors(trainer)}
    tensors |= {f"best/{name}": best_array for name, best_array in state.best.items()}
    tensors["losses"] = state.losses
    # The digest detects files that combine two states.
    position = replace(state.position, tensors=weights.digest(tensors))
    position_json = json.dumps(json.loads(DOCUMENT_KIND.encode(position)))
    write_file(path, weights.encode(tensors, {"position": position_json}))


def read_position(path: Path) -> TrainingPosition:
    """Return the progress of a training without reading its tensors.

    Raises:
        UserError: The file cannot be read (E0501), or has no valid position (E1230).
    """
    return _decode_position(safetensors_file.open_safetensors(path))


def _decode_position(file: TensorFile) -> TrainingPosition:
    return DOCUMENT_KIND.decode(file.metadata.get("position", "").encode(), str(file.path))


def read_checkpoint(path: Path) -> tuple[TrainingState, Mapping[str, NDArray[np.float32]]]:
    """Return the state of a checkpoint, and the tensors for `restore`.

    Raises:
        UserError: The file cannot be read (E0501), or is not a complete checkpoint (E1230).
    """
    file = safetensors_file.open_safetensors(path)
    position = _decode_position(file)
    if any(part.dtype != "F32" for part in file.parts.values()):
        raise DOCUMENT_KIND.make_damage_error(str(path), "it has tensors that are not float32")
    tensors = {name: file.read_tensor(name) for name in file.parts}
    if weights.digest(tensors) != position.tensors or "losses" not in tensors:
        raise DOCUMENT_KIND.make_damage_error(str(path), "its tensors do not match their digest")
    best = {
        name.removeprefix("best/"): best_array
        for name, best_array in tensors.items()
        if name.startswith("best/")
    }
    return TrainingState(position, tensors["losses"].copy(), best), tensors


def resolve_thread_count(path: Path, thread_count: int | None) -> int:
    """Return the number of threads for a training; a resumed training keeps its number.

    Raises:
        UserError: As for `read_position`.
    """
    # Another number of threads changes the summation order, and so the trained weights.
    if thread_count is None and path.exists():
        return read_position(path).threads
    return thread_count or arithmetic.get_thread_count()


@torch.no_grad()
def restore(path: Path, trainer: Trainer, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Set a trainer's state to the tensors of a checkpoint.

    Raises:
        UserError: The tensors do not match this network and recipe (E1230).
    """
    _create_optimizer_state(trainer, tensors)
    for name, tensor in _iterate_tensors(trainer):
        stored_array = tensors.get(name)
        if stored_array is None or stored_array.size != tensor.numel():
            raise _build_tensor_error(path, name)
        tensor.copy_(torch.from_numpy(stored_array.copy()).reshape(tensor.shape))


def _build_tensor_error(path: Path, name: str) -> UserError:
    return DOCUMENT_KIND.make_damage_error(
        str(path), f"its tensor `{name}` is missing or has another size than in this training"
    )


def _iterate_tensors(trainer: Trainer) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor of a trainer by its name in the file."""
    for name, tensor in trainer.tensors.items():
        yield f"weights/{name}", tensor
    for name, tensor in trainer.average.tensors.items() if trainer.average else ():
        yield f"average/{name}", tensor
    for name in trainer.trainable_tensors:
        # Sorted, because PyTorch's order depends on its implementation.
        for role, state_tensor in sorted(trainer.get_optimizer_state(name).items()):
            if state_tensor is not None:
                yield f"optimizer/{role}/{name}", state_tensor


def _create_optimizer_state(trainer: Trainer, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Create the tensors that the optimiser has after a step, with its memory layout."""
    for key in tensors:
        kind, _, suffix = key.partition("/")
        role, _, name = suffix.partition("/")
        if kind == "optimizer" and name in trainer.trainable_tensors:
            tensor = trainer.trainable_tensors[name]
            # PyTorch stores Adam's step count as a scalar tensor on the CPU.
            state_tensor = (
                torch.zeros((), dtype=torch.float32) if role == "step" else torch.empty_like(tensor)
            )
            trainer.get_optimizer_state(name)[role] = state_tensor
