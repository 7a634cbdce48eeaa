"""How the targets of one build agree: with the reference executor, layer by layer, and in pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from tcc.compiler.bundle import bundle_comparison, program_check
from tcc.compiler.bundle.agreement import Agreement
from tcc.compiler.bundle.bundle_comparison import OutputPair
from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.bundle.program_check import LayerAgreement
from tcc.compiler.bundle.replay import Replayed
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.precision import Arithmetic
from tcc.compiler.support.value_views import ValueView, count


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ComparedTarget(ValueView):
    """One target of a build, over `images` of the user's and the goldens of its bundle.

    `unchecked` says why it was not run; then it agrees with nothing. `layers` is None where nothing
    looks into the artifact. `floats` says what of it is in float, and why that may differ.
    """

    device: Device
    bundle: Bundle
    unchecked: str = ""
    images: int = 0
    replayed: Replayed | None = None
    layers: tuple[LayerAgreement, ...] | None = None
    stored: bool = False
    """Whether it was run before, the same on this machine, and not now."""

    def describe(self) -> str:
        """Return in a line how the target's artifact agrees with the reference."""
        name = f"{self.device.name} at {self.bundle.manifest.precision}"
        match self.holds:
            case None:
                return f"{name}: not compared with the reference: {self.unchecked}"
            case bool(holds):
                verdict = "agrees" if holds else "DISAGREES"
                inputs = count(self.inputs, "input")
                return f"{name} {verdict} with the reference on {inputs}; {self.bundle.folder}"
            case _:
                assert_never(self.holds)

    def _summary(self) -> Iterator[str]:
        yield f"ComparedTarget {self.describe()}"

    def at(self, bundle: Bundle) -> "ComparedTarget":
        """Return the same of the bundle in another folder."""
        moved = self.replayed and replace(self.replayed, bundle=bundle)
        return replace(self, bundle=bundle, replayed=moved)

    @property
    def outputs(self) -> tuple[Agreement, ...]:
        """How each output of each input agrees with the reference's."""
        return self.replayed.agreement if self.replayed else ()

    @property
    def inputs(self) -> int:
        """How many inputs it was run on."""
        # Of what was run: of a single target that is one golden of several.
        return len({each.golden for each in self.outputs})

    @property
    def wrong_layer(self) -> LayerAgreement | None:
        """The first layer that differs and must not."""
        return program_check.first_wrong(self.layers or ())

    @property
    def holds(self) -> bool | None:
        """Whether it agrees with the reference as far as it must; None where it was not run."""
        if self.replayed is None:
            return None
        return all(each.holds for each in self.outputs) and self.wrong_layer is None

    @property
    def floats(self) -> str:
        """What is in float, or else not the integer program's, and why that may differ."""
        about = self.bundle.manifest
        precision = self.device.precision(about.precision)
        match precision.arithmetic:
            case Arithmetic.INTEGER:
                inexact = about.calibration.inexact if about.calibration else ()
                more = f" and {len(inexact) - 3} more" if len(inexact) > 3 else ""
                return f"in float: {', '.join(inexact[:3])}{more}" if inexact else ""
            case Arithmetic.FLOAT | Arithmetic.SIMULATED | Arithmetic.FOREIGN:
                return about.goldens.tolerance.reason
            case _:
                assert_never(precision.arithmetic)


@dataclass(frozen=True, slots=True)
class TargetPair:
    """An output of two targets beside each other; `why` they need not be equal."""

    found: OutputPair
    why: str


@dataclass(frozen=True, slots=True, repr=False)
class BuildAgreement(ValueView):
    """All targets of a build, and each that ran beside each other."""

    targets: tuple[ComparedTarget, ...]
    pairs: tuple[TargetPair, ...]

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """The bundle of each target."""
        return tuple(each.bundle for each in self.targets)

    @property
    def holds(self) -> bool:
        """Whether nothing disagrees; what was not run says nothing."""
        return all(each.holds is not False for each in self.targets) and all(
            pair.found.holds for pair in self.pairs
        )

    def _summary(self) -> Iterator[str]:
        compared = sum(each.holds is not None for each in self.targets)
        verdict = "nothing disagrees" if self.holds else "DISAGREES"
        yield (
            f"Build for {count(len(self.targets), 'target')}: {verdict}; "
            f"{compared} compared with the reference, {count(len(self.pairs), 'pair')} of outputs"
        )
        yield from (each.describe() for each in self.targets)


def unchecked(device: Device, bundle: Bundle, why: str) -> ComparedTarget:
    """Return a target that was not run."""
    return ComparedTarget(device, bundle, why)


def agreement(targets: Sequence[ComparedTarget]) -> BuildAgreement:
    """Return how targets agree, each that ran with each."""
    pairs = []
    # What ran for a package is a file that its maker's tool reads, and not what it made.
    ran = [each for each in targets if each.replayed and not each.device.simulated_file]
    for index, one in enumerate(ran):
        for other in ran[index + 1 :]:
            assert one.replayed
            assert other.replayed
            why = _apart(one, other)
            pairs += [
                TargetPair(pair, why)
                for pair in bundle_comparison.compared(one.replayed, other.replayed)
            ]
    return BuildAgreement(tuple(targets), tuple(pairs))


def _apart(one: ComparedTarget, other: ComparedTarget) -> str:
    """Return why the outputs of two targets need not be equal; nothing where they must be."""
    kinds = [each.device.precision(each.bundle.manifest.precision) for each in (one, other)]
    if not all(kind.exact for kind in kinds):
        return "computed in float"
    if kinds[0].real_ends != kinds[1].real_ends:
        ends = one if kinds[1].real_ends else other
        return f"{ends.device.name} gives 8-bit levels at its end, which are the last layer's"
    return one.floats or other.floats
