"""The target `ax620`, as far as it goes."""

from dataclasses import dataclass

from tcc.compiler.ir.target import Target


@dataclass(frozen=True, slots=True)
class Pulsar:
    """Takes part in calibration alone: there is no precision that it builds at."""

    @property
    def targets(self) -> tuple[Target, ...]:
        """The AX620A, the processor of the Maix-III board."""
        return (Target("ax620", "AXERA AX620A, an NPU: its calibration alone", calibrates=True),)
