"""Writing what `tcc build` built, once its artifact has shown that it agrees with the reference."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.bundle.agreement import Agreement, Disagreement

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_folder import Bundle, BundleContents
    from tcc.compiler.bundle.manifest import BundleFile, Manifest
    from tcc.compiler.bundle.tool_check import ToolCheck
    from tcc.compiler.cli.report import Stages
    from tcc.compiler.ir.device import Device

GOLDENS = 1
"""Goldens that are replayed after a build; under an emulator each takes its time."""


@dataclass(frozen=True)
class WrittenBundle:
    """The folder that a bundle was written to, and what it says of itself.

    `agreement` is empty where the artifact was not run; `unchecked` says why. `full` is the bytes
    of the target's files at fp32, where others were built and those were measured too.
    """

    folder: Path
    manifest: "Manifest"
    agreement: tuple[Agreement, ...]
    unchecked: str
    full: int | None = None
    archive: str = ""
    """The file of a package for a maker's tool that holds images; empty for all else."""
    layers: Mapping[str, str] = field(default_factory=dict)
    """What computes each layer, where the target's own kernels do."""
    uncompiled: str = ""
    """Why no tool compiled a package."""
    tool: "ToolCheck | None" = None
    """What the tool that compiled a package gave for the goldens."""

    @property
    def artifact(self) -> "tuple[BundleFile, ...]":
        """The target's own files."""
        from tcc.compiler.bundle.bundle_folder import MODEL

        return tuple(f for f in self.manifest.files if f.path.startswith(f"{MODEL}/"))

    def __str__(self) -> str:
        """How the artifact agrees with the reference, in a line."""
        if self.unchecked:
            return f"not compared with the reference: {self.unchecked}"
        worst = max(each.difference for each in self.agreement)
        if not any(each.allowed for each in self.agreement) and worst == 0:
            return "gives the outputs of the reference to the bit"
        return f"agrees with the reference within {worst:.1e} of its largest value"


def write(
    contents: "BundleContents", device: "Device", out: Path, stages: "Stages", *, replaying: bool
) -> WrittenBundle:
    """Write a bundle whose artifact agrees with the reference, or cannot be run here.

    What a maker's tool compiled is written whatever it gives: its log may tell why.

    Raises:
        Disagreement: It does not agree; nothing is written.
    """
    from tcc.compiler.bundle import bundle_folder, tool_check
    from tcc.compiler.bundle.artifact_runs import Misfit
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.bundle.replay import replay

    found: list[Agreement] = []

    def accept(fresh: "Bundle") -> None:
        stages("replay", 0, 1)
        try:
            found.extend(replay(fresh, device, GOLDENS).agreement)
        except Misfit as error:
            raise Disagreement(device.name, (), error.diagnostics[0].label) from None
        if not all(each.holds for each in found):
            raise Disagreement(device.name, found)

    # What cannot be run here is written all the same, and says so: a target without an emulator is
    # no reason to build nothing.
    unchecked = _unchecked(device) if replaying else "--no-replay"
    stages("write", 0, 1)
    folder = bundle_folder.write(contents, out, None if unchecked else accept)
    about = contents.manifest
    tool = tool_check.check(Bundle(folder, about), device, None) if about.compiled else None
    return WrittenBundle(
        folder,
        about,
        tuple(found),
        unchecked,
        layers=contents.layers,
        uncompiled=contents.uncompiled,
        tool=tool,
    )


def _unchecked(device: "Device") -> str:
    """Return why a device's artifacts are not run here; nothing where they are."""
    if not device.target.runs:
        return f"nothing here runs what is built for {device.name}"
    absent = device.absent()
    return f"{absent[0].name} is not here" if absent else ""
