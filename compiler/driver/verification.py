"""Verify bundles: replay their goldens and compare their layers, constants and libraries."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from tcc.compiler.bundle import (
    agreement,
    bundle_comparison,
    float_check,
    library_check,
    program_check,
    tool_check,
)
from tcc.compiler.bundle.agreement import Agreement
from tcc.compiler.bundle.bundle_comparison import OutputPair
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.float_check import FloatCheck
from tcc.compiler.bundle.library_check import LibraryCheck
from tcc.compiler.bundle.program_check import ProgramCheck
from tcc.compiler.bundle.replay import GoldenReplay, replay_goldens
from tcc.compiler.bundle.tool_check import ToolCheck
from tcc.compiler.driver.reproducer import Reproducer
from tcc.compiler.ir.constant_checker import ConstantCheck, ConstantSources
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Model
from tcc.compiler.support.external_tools import Tool
from tcc.compiler.support.value_views import ValueView, count


@dataclass(frozen=True, repr=False)
class VerifiedBundle(ValueView):
    """A bundle, and the results of its checks, or the tool that is missing to run it."""

    bundle: Bundle
    replayed: GoldenReplay | None = None
    missing: Tool | None = None
    simulated_file: str = ""
    """File of a package that gave the outputs in `replayed`, in place of the tool's result."""
    tool: ToolCheck | None = None
    """Check of a package by its vendor toolchain's log; a package does not run here."""
    program: ProgramCheck | None = None
    """Agreement with its integer program, if that is known."""
    network: FloatCheck | None = None
    """Agreement of its layers with its network's, for a float32 bundle if that is known."""
    reproducer: Reproducer | None = None
    constants: tuple[ConstantCheck, ...] | None = None
    """Comparison of the weights and scales in its files; None if they were not compared."""
    libraries: tuple[LibraryCheck, ...] = ()
    """Checks of its libraries for use in other builds."""

    @property
    def agreement(self) -> tuple[Agreement, ...]:
        """The agreement with its goldens; empty if it did not run."""
        return self.replayed.agreement if self.replayed else ()

    @property
    def holds(self) -> bool:
        """Whether no golden, layer, constant or library disagrees."""
        agrees = all(check.holds for check in self.agreement)
        checks = (self.tool, self.program, self.network, *(self.constants or ()), *self.libraries)
        return agrees and all(check.holds for check in checks if check)

    def _summarize(self) -> Iterator[str]:
        yield f"Verified {self.bundle.folder}: {'nothing disagrees' if self.holds else 'DISAGREES'}"
        if self.replayed:
            total = sum(comparison.values for comparison in self.agreement)
            differing = sum(comparison.differing for comparison in self.agreement)
            subject = f" ({self.simulated_file} ran, not the NPU)" if self.simulated_file else ""
            goldens = count(len({comparison.golden for comparison in self.agreement}), "golden")
            yield f"{goldens}: {differing:,} of {total:,} output values are not bit-exact{subject}"
        else:
            yield "no golden was compared: it did not run here"
        for check in (self.program, self.network):
            if check:
                holding = (
                    None
                    if check.layers is None
                    else (comparison.holds for comparison in check.layers)
                )
                yield agreement.describe_layers(holding)
        if not self.program and not self.network:
            yield "no layers compared: its program is not known"
        if self.constants:
            wrong = sum(not comparison.holds for comparison in self.constants)
            files = count(len(self.constants), "file")
            yield f"weights and scales: {files} compared, {wrong:,} wrong"


def verify_bundle(
    bundle: Bundle,
    device: Device,
    program: Model | None,
    network: Model | None = None,
    sources: ConstantSources | None = None,
) -> VerifiedBundle:
    """Verify a bundle: its goldens, and layers, constants and libraries as far as possible.

    Args:
        bundle: The bundle.
        device: Its target.
        program: Its integer program, if known.
        network: Its float network, for a float32 bundle if known.
        sources: The models that its files were written from, if known.

    Raises:
        MissingTool: The tool that runs it is not installed.
        UserError: It cannot be run, or does not match its manifest.
    """
    if device.packager:
        return verify_package(bundle, device, None, sources)
    library_check.check_operating_points(bundle, device)
    replayed = replay_goldens(bundle, device)
    checked = program_check.check(bundle, device, program) if program else None
    layers = float_check.check(bundle, device, network) if network else None
    constants = library_check.check_constants(bundle, device, sources)
    libraries = library_check.check(bundle, device)
    return VerifiedBundle(
        bundle, replayed, program=checked, network=layers, constants=constants, libraries=libraries
    )


def verify_package(
    bundle: Bundle, device: Device, log: Path | None, sources: ConstantSources | None
) -> VerifiedBundle:
    """Verify a package here: by its tool's log, its network, and its weights.

    Args:
        bundle: The package.
        device: Its target.
        log: The tool's log; None for the one in the package, if there is one.
        sources: The models that its files were written from, if known.

    Raises:
        UserError: Nothing of it can be verified here (E0657), or as for `tool_check.check` and
            `replay_goldens`.
    """
    simulator = device.find_simulator()
    constants = library_check.check_constants(bundle, device, sources)
    tool = None
    if log or tool_check.has_log(bundle) or (simulator is None and constants is None):
        tool = tool_check.check(bundle, device, log)
    return VerifiedBundle(
        bundle,
        replay_goldens(bundle, simulator) if simulator else None,
        tool=tool,
        constants=constants,
        simulated_file=simulator.simulated_file if simulator else "",
    )


def compare_pairs(
    verified_bundles: Sequence[VerifiedBundle],
) -> tuple[list[OutputPair], list[tuple[str, str, str]]]:
    """Compare bundles that ran, in pairs; also return the pairs that cannot be compared, and why.

    Raises:
        UserError: Two of one spec contradict each other (E0664), even if they do not run.
    """
    for bundle, other_bundle in combinations(
        (verified_bundle.bundle for verified_bundle in verified_bundles), 2
    ):
        bundle_comparison.check(bundle, other_bundle)
    output_pairs: list[OutputPair] = []
    unlike = []
    ran = [
        verified_bundle.replayed
        for verified_bundle in verified_bundles
        if verified_bundle.replayed and not verified_bundle.simulated_file
    ]
    # All pairs, because equality within a tolerance is not transitive.
    for a, b in combinations(ran, 2):
        if reason := bundle_comparison.find_difference(a.bundle, b.bundle):
            unlike.append((str(a.bundle.folder), str(b.bundle.folder), reason))
        else:
            output_pairs += bundle_comparison.compare_bundles(a, b)
    return output_pairs, unlike
