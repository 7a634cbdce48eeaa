"""Writing what `tcc build` built, once its artifact has shown that it agrees with the reference."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.compiler.bundle.agreement import Agreement, Disagreement

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_folder import Bundle, BundleContents
    from tcc.compiler.bundle.manifest import BundleFile, Manifest
    from tcc.compiler.bundle.tool_check import ToolCheck
    from tcc.compiler.driver.build_comparison import BuildComparison
    from tcc.compiler.driver.build_plan import Int8Programs
    from tcc.compiler.driver.stored_stages import StoredStages
    from tcc.compiler.driver.target_agreement import ComparedTarget
    from tcc.compiler.ir.device import Device, Plan
    from tcc.compiler.ir.graph import Graph, Model
    from tcc.compiler.support.console import Stages

GOLDENS = 1
"""Goldens that are replayed after a build; under an emulator each takes its time."""


@dataclass(frozen=True)
class WrittenBundle:
    """The folder that a bundle was written to, and what it says of itself.

    `agreement` is empty where the artifact was not run; `unchecked` says why. `full` is the bytes
    of the target's files at fp32, where another precision was built: None where the target cannot
    build the network so, and `compares_size` is whether that was asked.
    """

    folder: Path
    manifest: "Manifest"
    agreement: tuple[Agreement, ...]
    unchecked: str
    full: int | None = None
    compares_size: bool = False
    archive: Path | None = None
    """The file of images that a package for a maker's tool takes; None for all else."""
    layers: Mapping[str, str] = field(default_factory=dict)
    """What computes each layer, where the target's own kernels do."""
    uncompiled: str = ""
    """Why no tool compiled a package."""
    tool: "ToolCheck | None" = None
    """What the tool that compiled a package gave for the goldens."""
    compared: "ComparedTarget | None" = None
    """How it agrees as one of several targets."""
    simulated_file: str = ""
    """The file of a package that ran in place of what the maker's tool makes of it."""
    advice: str = ""
    """What is worth knowing before it runs on this machine."""
    cached: tuple[str, ...] = ()
    """The stages whose results were known already."""

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
        found = f"agrees with the reference within {worst:.1e} of its largest value"
        if not any(each.allowed for each in self.agreement) and worst == 0:
            found = "gives the outputs of the reference to the bit"
        found = f"{found} (cached: so it did before)" if "replay" in self.cached else found
        if self.simulated_file:
            file = f"{self.simulated_file}, in ONNX Runtime"
            return f"{file}, {found}; nothing here runs the NPU"
        return found


@dataclass(frozen=True)
class BundleCheck:
    """What is looked at before a bundle is written: one golden, or all that is in `comparison`.

    Without `replaying`, nothing is run; nor is what `stored` knows, by the `keys` of what is built
    for each target. `model` and `integers` are what a wrong layer is looked for with. `drawn` is
    the network of the page that goes into a bundle, where one is wanted.
    """

    stages: "Stages"
    replaying: bool
    stored: "StoredStages"
    keys: Mapping[str, str]
    model: "Model"
    integers: "Int8Programs | None" = None
    comparison: "BuildComparison | None" = None
    drawn: "Graph | None" = None

    def compared(self, fresh: "Bundle", plan: "Plan") -> "ComparedTarget":
        """Return how a bundle agrees with the reference, or agreed when the very same ran here.

        Raises:
            Disagreement: It does not.
        """
        most = GOLDENS if self.comparison is None else None
        plan = replace(plan, device=plan.device.simulator() or plan.device)
        key = self.stored.replay_key(self.keys[plan.device.name], fresh, plan, most)
        # What the user's images give is kept nowhere.
        if self.comparison is None or self.comparison.images is None:
            known = self.stored.replay(key, fresh, plan)
            if known:
                return known
        found = self._run(fresh, plan)
        self.stored.keep_replay(key, found)
        return found

    def _run(self, fresh: "Bundle", plan: "Plan") -> "ComparedTarget":
        from tcc.compiler.bundle.artifact_runs import Misfit
        from tcc.compiler.bundle.replay import replay
        from tcc.compiler.driver.target_agreement import ComparedTarget

        device = plan.device
        try:
            if self.comparison is None:
                found = ComparedTarget(device, fresh, replayed=replay(fresh, device, GOLDENS))
            else:
                found = self.comparison.compared(fresh, plan, self.stages)
        except Misfit as error:
            raise Disagreement(device.name, (), error.diagnostics[0].label) from None
        if not found.holds:
            raise Disagreement(device.name, found.outputs, self._locate(fresh, plan, found))
        return found

    def _locate(self, fresh: "Bundle", plan: "Plan", compared: "ComparedTarget") -> str:
        """Return which layer of a bundle is wrong, as far as its target shows its layers."""
        from tcc.compiler.driver import layer_fault

        if layer := compared.wrong_layer:
            return f"the first layer that differs is `{layer.name}`"
        return layer_fault.describe(fresh, plan, self.model, self.integers)


def write(contents: "BundleContents", plan: "Plan", out: Path, check: BundleCheck) -> WrittenBundle:
    """Write a bundle whose artifact agrees with the reference, or cannot be run here.

    What a maker's tool compiled is written whatever it gives: its log may tell why.

    Raises:
        Disagreement: It does not agree; nothing is written.
    """
    from tcc.compiler.bundle import bundle_folder
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.driver import target_agreement

    device, found = plan.device, []

    def accept(fresh: "Bundle") -> None:
        check.stages("replay", 0, 1)
        found.append(check.compared(fresh, plan))

    # What cannot be run here is written all the same, and says so: a target without an emulator is
    # no reason to build nothing.
    unchecked = _unchecked(device) if check.replaying else "--no-replay"
    check.stages("write", 0, 1)
    folder = bundle_folder.write(contents, out, None if unchecked else accept)
    bundle = Bundle(folder, contents.manifest)
    compared = found[0] if found else target_agreement.unchecked(device, bundle, unchecked)
    if check.drawn:
        from tcc.compiler.driver import report_page

        # Written anew, and not into the folder: what is there is whole at any time.
        contents = report_page.added(contents, check.drawn, compared)
        bundle = Bundle(bundle_folder.write(contents, out), contents.manifest)
    return WrittenBundle(
        folder,
        contents.manifest,
        compared.outputs,
        unchecked,
        layers=contents.layers,
        uncompiled=contents.uncompiled,
        tool=_tool_check(bundle, device),
        compared=compared.at(bundle),
        simulated_file=compared.device.simulated_file,
        cached=("replay",) if compared.stored else (),
    )


def _tool_check(bundle: "Bundle", device: "Device") -> "ToolCheck | None":
    """Return what the tool that compiled a package gave, if one did."""
    if not bundle.manifest.compiled:
        return None
    from tcc.compiler.bundle import tool_check

    return tool_check.check(bundle, device, None)


def _unchecked(device: "Device") -> str:
    """Return why a device's artifacts are not run here; nothing where they are."""
    device = device.simulator() or device
    if not device.target.runs:
        return f"nothing here runs what is built for {device.name}"
    absent = device.absent()
    return f"{absent[0].name} is not here" if absent else ""
