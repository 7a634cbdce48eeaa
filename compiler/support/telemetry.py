"""Switches off what packages would report of their use: ONNX Runtime's wheels send events."""

import os
from types import MappingProxyType

SWITCHES = MappingProxyType({"ORT_DISABLE_TELEMETRY": "1", "NNCF_CI": "1"})
"""Variables that ONNX Runtime, and NNCF in `tools/bench`, look at when they are imported.

A process hands them on to those that it starts.
"""


def disable() -> None:
    """Set the switches for this process and for all that it starts, whatever they were before."""
    os.environ.update(SWITCHES)
