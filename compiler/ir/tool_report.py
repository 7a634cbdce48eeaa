"""What the maker's own compiler said of a network: how near it came, and what runs where."""

from typing import Literal

from tcc.compiler.support.json_records import OmitDefault, Record

LEAST = 0.98
"""The cosine below which AXERA's manuals say to look for the reason. The papers' networks keep it,
and calibration asks the same of integers of our own."""


class LayerCosine(Record, frozen=True):
    """The cosine similarity of what a layer gives after quantising with what it gave before."""

    name: str
    cosine: float


class NetworkPart(Record, frozen=True):
    """A stretch of the network that runs in one place."""

    name: str
    where: Literal["NPU", "CPU"]


class ToolReport(Record, frozen=True):
    """What a log says; `version` is empty where it does not say it.

    `stopped` is the command at which the log ends, where not all were done.
    """

    tool: str
    version: str
    layers: tuple[LayerCosine, ...]
    outputs: tuple[LayerCosine, ...]
    parts: tuple[NetworkPart, ...]
    stopped: OmitDefault[str] = ""

    @property
    def low(self) -> "tuple[LayerCosine, ...]":
        """The outputs below the threshold."""
        # Not `<`: a cosine that is NaN, of an output that is all zeros say, is low as well.
        return tuple(each for each in self.outputs if not each.cosine >= LEAST)

    @property
    def on_cpu(self) -> tuple[str, ...]:
        """The parts that the NPU did not take."""
        return tuple(part.name for part in self.parts if part.where == "CPU")
