"""The peers of `calibration.py`, each with its own environment and a program that runs in it.

Environments are created on first use in a folder. Nothing of this checkout's environment changes.
"""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
GUESTS = HERE / "calibration_guests"
CONSTRAINTS = HERE.parents[1] / "constraints.txt"
COMPLETE = "complete"
"""The file that marks a completely installed environment."""


@dataclass(frozen=True, slots=True)
class CalibrationPeer:
    """A peer quantizer.

    Attributes:
        name: Its name in reports.
        program: The file of `calibration_guests` that runs it.
        environment: The folder of its environment.
        packages: The packages that pip installs there.
        arguments: The program's arguments after the model, the images, the contract and the result.
        suffix: The suffix of its input and output models.
    """

    name: str
    program: str
    environment: str
    packages: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    suffix: str = ".onnx"

    @property
    def key(self) -> str:
        """A hash that changes with the peer's results."""
        files = (GUESTS / "guest_images.py", GUESTS / self.program)
        parts = (*(file.read_bytes() for file in files), repr(self).encode())
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def prepare_python(self, environments: Path) -> Path:
        """Return the Python of the environment; create the environment if it does not exist."""
        folder = environments / self.environment
        python = folder / "bin/python"
        if not (folder / COMPLETE).exists():
            _run([sys.executable, "-m", "venv", "--clear", str(folder)])
            pip = ("-m", "pip", "install", "-q", "-c", str(CONSTRAINTS))
            _run([str(python), *pip, "numpy", "pillow", *self.packages])
            (folder / COMPLETE).touch()
        return python


_ONNXRUNTIME = ("onnx", "onnxruntime")


def _make_onnxruntime_peer(method: str, kind: str, name: str) -> CalibrationPeer:
    arguments = (method, kind)
    return CalibrationPeer(name, "onnxruntime_guest.py", "onnxruntime", _ONNXRUNTIME, arguments)


PEERS = (
    _make_onnxruntime_peer("MinMax", "QUInt8", "onnxruntime MinMax u8"),
    _make_onnxruntime_peer("MinMax", "QInt8", "onnxruntime MinMax s8"),
    CalibrationPeer("nncf", "nncf_guest.py", "nncf", (*_ONNXRUNTIME, "nncf>=3.4")),
    CalibrationPeer(
        "ai-edge-quantizer",
        "ai_edge_guest.py",
        "ai-edge-quantizer",
        ("ai-edge-quantizer", "flatbuffers"),
        suffix=".tflite",
    ),
    _make_onnxruntime_peer("Percentile", "QUInt8", "onnxruntime Percentile u8"),
    _make_onnxruntime_peer("Entropy", "QUInt8", "onnxruntime Entropy u8"),
)
BASE = PEERS[0]
"""The base peer for cost comparisons."""


def _run(command: Sequence[str]) -> None:
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(
            f"{' '.join(command[:4])} ... failed:\n{process.stdout}{process.stderr}"[-4000:]
        )
