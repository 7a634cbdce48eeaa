"""Agreement of the targets of one build: with the reference executor, by layer, and in pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from tcc.compiler.bundle import bundle_comparison, program_check
from tcc.compiler.bundle.agreement import Agreement
from tcc.compiler.bundle.bundle_comparison import OutputPair
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.program_check import LayerAgreement
from tcc.compiler.bundle.replay import GoldenReplay
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.precision import Arithmetic
from tcc.compiler.support.value_views import ValueView, count


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ComparedTarget(ValueView):
    """One target of a build, compared with the reference.

    The inputs are the goldens of its bundle, and `images` images of the user.
    `unchecked` is the reason why it was not run; empty if it was run. `layers` is None if the
    artifact's layers cannot be read. `float_notice` names the layers in
    float, or gives the reason why outputs may differ.
    """

    device: Device
    bundle: Bundle
    unchecked: str = ""
    images: int = 0
    replayed: GoldenReplay | None = None
    layers: tuple[LayerAgreement, ...] | None = None
    is_cached: bool = False
    """Whether the result is from the cache: the same artifact ran on this machine before."""

    def describe(self) -> str:
        """Return one line: how the target's artifact agrees with the reference."""
        name = f"{self.device.name} at {self.bundle.manifest.precision}"
        match self.holds:
            case None:
                return f"{name}: not compared with the reference: {self.unchecked}"
            case bool(is_met):
                verdict = "agrees" if is_met else "DISAGREES"
                inputs = count(self.inputs, "input")
                return f"{name} {verdict} with the reference on {inputs}; {self.bundle.folder}"
            case _:
                assert_never(self.holds)

    def _summarize(self) -> Iterator[str]:
        yield f"ComparedTarget {self.describe()}"

    def with_bundle(self, bundle: Bundle) -> "ComparedTarget":
        """Return the same result for a bundle in another folder."""
        replayed = self.replayed and replace(self.replayed, bundle=bundle)
        return replace(self, bundle=bundle, replayed=replayed)

    @property
    def outputs(self) -> tuple[Agreement, ...]:
        """The agreement of each output of each input with the reference."""
        return self.replayed.agreement if self.replayed else ()

    @property
    def inputs(self) -> int:
        """The number of inputs that it was run on."""
        # A single target runs only some of its goldens.
        return len({output.golden for output in self.outputs})

    @property
    def wrong_layer(self) -> LayerAgreement | None:
        """The first layer that differs but must not."""
        return program_check.find_wrong_layer(self.layers or ())

    @property
    def holds(self) -> bool | None:
        """Whether it agrees with the reference within the tolerance; None if it was not run."""
        if self.replayed is None:
            return None
        return all(output.holds for output in self.outputs) and self.wrong_layer is None

    @property
    def float_notice(self) -> str:
        """The layers in float, or why other outputs may differ from the reference."""
        manifest = self.bundle.manifest
        precision = self.device.get_precision(manifest.precision)
        match precision.arithmetic:
            case Arithmetic.INTEGER:
                inexact = manifest.calibration.inexact if manifest.calibration else ()
                suffix = f" and {len(inexact) - 3} more" if len(inexact) > 3 else ""
                return f"layers in float: {', '.join(inexact[:3])}{suffix}" if inexact else ""
            case Arithmetic.FLOAT | Arithmetic.SIMULATED | Arithmetic.VENDOR:
                return manifest.goldens.tolerance.reason
            case _:
                assert_never(precision.arithmetic)


@dataclass(frozen=True, slots=True)
class TargetPair:
    """An output of two targets compared; `reason` is why they need not be equal."""

    comparison: OutputPair
    reason: str


@dataclass(frozen=True, slots=True, repr=False)
class BuildAgreement(ValueView):
    """All targets of a build, and the pairs of those that ran."""

    targets: tuple[ComparedTarget, ...]
    pairs: tuple[TargetPair, ...]

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """The bundle of each target."""
        return tuple(target.bundle for target in self.targets)

    @property
    def holds(self) -> bool:
        """Whether nothing disagrees; targets that were not run do not count."""
        return all(target.holds is not False for target in self.targets) and all(
            pair.comparison.holds for pair in self.pairs
        )

    def _summarize(self) -> Iterator[str]:
        compared = sum(target.holds is not None for target in self.targets)
        verdict = "nothing disagrees" if self.holds else "DISAGREES"
        yield (
            f"Build for {count(len(self.targets), 'target')}: {verdict}; "
            f"{compared} compared with the reference, {count(len(self.pairs), 'pair')} of outputs"
        )
        yield from (target.describe() for target in self.targets)


def create_unchecked(device: Device, bundle: Bundle, reason: str) -> ComparedTarget:
    """Return a target that was not run."""
    return ComparedTarget(device, bundle, reason)


def compare_targets(targets: Sequence[ComparedTarget]) -> BuildAgreement:
    """Return how targets agree, each with each other that ran."""
    pairs = []
    # For a package, the file for the vendor toolchain ran, not the tool's result.
    ran = [
        compared for compared in targets if compared.replayed and not compared.device.simulated_file
    ]
    for index, target in enumerate(ran):
        for other_target in ran[index + 1 :]:
            assert target.replayed
            assert other_target.replayed
            reason = _explain_difference(target, other_target)
            pairs += [
                TargetPair(pair, reason)
                for pair in bundle_comparison.compare_bundles(
                    target.replayed, other_target.replayed
                )
            ]
    return BuildAgreement(tuple(targets), tuple(pairs))


def _explain_difference(target: ComparedTarget, other_target: ComparedTarget) -> str:
    """Return why the outputs of two targets need not be equal; empty if they must be."""
    kinds = [
        compared.device.get_precision(compared.bundle.manifest.precision)
        for compared in (target, other_target)
    ]
    if not all(kind.exact for kind in kinds):
        return "computed in float"
    if kinds[0].float_io != kinds[1].float_io:
        integer_target = target if kinds[1].float_io else other_target
        return f"{integer_target.device.name} outputs the 8-bit quantized values of its last layer"
    return target.float_notice or other_target.float_notice
