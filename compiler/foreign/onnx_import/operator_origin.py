"""What of a file a value of the network was: apart from the libraries that read ONNX files."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OperatorOrigin:
    """Operators of the file, last first as (name, type), and the value that they became."""

    nodes: tuple[tuple[str, str], ...]
    value: str
