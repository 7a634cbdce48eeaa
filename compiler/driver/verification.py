"""What is found of a bundle when its goldens are replayed and its layers compared."""

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
    """A bundle, and what its artifact gave or the tool that running it here lacks."""

    bundle: Bundle
    replayed: GoldenReplay | None = None
    missing: Tool | None = None
    simulated_file: str = ""
    """The file of a package whose outputs `replayed` has: not what the maker's tool makes of it."""
    tool: ToolCheck | None = None
    """What a maker's tool said of a package, which does not run here."""
    program: ProgramCheck | None = None
    """How it agrees with its integer program, where that is known."""
    network: FloatCheck | None = None
    """How its layers agree with its network's, where it is of float32 and that is known."""
    reproducer: Reproducer | None = None
    constants: tuple[ConstantCheck, ...] | None = None
    """How the weights and scales of its files compare; None where they were not compared."""
    libraries: tuple[LibraryCheck, ...] = ()
    """What is known of the libraries that others build with."""

    @property
    def agreement(self) -> tuple[Agreement, ...]:
        """How it agrees with its goldens; nothing where it did not run."""
        return self.replayed.agreement if self.replayed else ()

    @property
    def holds(self) -> bool:
        """Whether no golden and no layer disagrees."""
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
            yield f"{goldens}: {differing:,} of {total:,} output values differ by a bit{subject}"
        else:
            yield "it did not run here: no golden was compared"
        for check in (self.program, self.network):
            if check:
                holding = (
                    None
                    if check.layers is None
                    else (comparison.holds for comparison in check.layers)
                )
                yield agreement.describe_layers(holding)
        if not self.program and not self.network:
            yield "no layer was compared: its program is not known"
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
    """Return what a bundle's artifact gives for its goldens, and for each layer that is known.

    Args:
        bundle: The bundle.
        device: Its target.
        program: Its integer program, where it is known.
        network: Its network in floats, where it is of float32 and that is known.
        sources: What its files were written from, where that is known.

    Raises:
        MissingTool: What runs it is not here.
        UserError: It cannot be run, or is not what its manifest says.
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
    """Return what is known of a package here: by its tool's log, its network, and its weights.

    Args:
        bundle: The package.
        device: Its target.
        log: The tool's log; without it, that of the package's own compilation, if there is one.
        sources: What its files were written from, where that is known.

    Raises:
        UserError: Nothing of it can be judged here (E0657), or as `tool_check.check` and
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
    """Return how bundles that ran compare, and which do not and why.

    Raises:
        UserError: Two of one spec contradict each other (E0664), also where they do not run.
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
    # Each with each: equality within a tolerance is not handed on from one pair to the next.
    for a, b in combinations(ran, 2):
        if reason := bundle_comparison.find_difference(a.bundle, b.bundle):
            unlike.append((str(a.bundle.folder), str(b.bundle.folder), reason))
        else:
            output_pairs += bundle_comparison.compare_bundles(a, b)
    return output_pairs, unlike
