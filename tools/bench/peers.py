"""The peers of `calibration.py`: each has an environment of its own, and a program that runs in it.

Environments are made on first use, below a folder; nothing of this checkout's own is touched.
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
"""The file in an environment that says that it was made to its end."""


@dataclass(frozen=True, slots=True)
class CalibrationPeer:
    """What quantises beside us.

    Attributes:
        name: What reports call it.
        program: The file of `calibration_guests` that runs it.
        environment: The folder of its environment.
        packages: What pip puts there.
        arguments: What the program is given after the model, the images, the contract and the
            result.
        suffix: The ending of the models that it takes and gives.
    """

    name: str
    program: str
    environment: str
    packages: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    suffix: str = ".onnx"

    @property
    def key(self) -> str:
        """What changes where its results do."""
        files = (GUESTS / "guest_images.py", GUESTS / self.program)
        parts = (*(file.read_bytes() for file in files), repr(self).encode())
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def prepare_python(self, environments: Path) -> Path:
        """Return the Python of its environment, which is made if it is not there."""
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
"""The peer whose cost others' are compared with."""


def _run(command: Sequence[str]) -> None:
    process = subprocess.run(command, check=False, capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(
            f"{' '.join(command[:4])} ... failed:\n{process.stdout}{process.stderr}"[-4000:]
        )
