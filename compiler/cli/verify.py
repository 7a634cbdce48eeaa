"""`tcc verify`: goldens replayed on the artifacts, and bundles compared with each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tcc.compiler.bundle.agreement import Mislabelled
from tcc.compiler.cli import failures
from tcc.compiler.cli.options import ProgramOptions, ReportOptions
from tcc.compiler.report import (
    tool_report,
    verification_report,
)
from tcc.compiler.support import option_needs
from tcc.compiler.support.console import Stages, complain
from tcc.compiler.support.diagnostics import UserError, fail, whole_file
from tcc.compiler.support.external_tools import MissingTool
from tcc.compiler.support.option_needs import LAYERED_BUNDLE
from tcc.compiler.targets import trusted_bundle

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_comparison import OutputPair
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.driver.verification import VerifiedBundle
    from tcc.compiler.frontend.spec import Spec
    from tcc.compiler.ir.device import Device

Bundles = Annotated[
    list[Path],
    typer.Argument(metavar="BUNDLE", help="Folders that `tcc build` wrote.", show_default=False),
]
Logs = Annotated[
    Path | None,
    typer.Option(
        "--logs",
        metavar="FILE",
        show_default=False,
        help="The log of the tool that compiled a package elsewhere, where `build.sh` wrote it.",
    ),
]
SpecOption = Annotated[
    str | None,
    typer.Option(
        "--spec",
        metavar="SPEC",
        show_default=False,
        help="The network, to hold each layer against where a bundle does not have it.",
    ),
]
WeightsFile = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", show_default=False, help="Its weights."),
]
Bisect = Annotated[
    bool,
    typer.Option(
        "--bisect", help="Write the first layer that differs by itself, to run on both runtimes."
    ),
]
Out = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="DIR", help="Folder for what --bisect writes."),
]


PublicKey = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        show_default=False,
        help="The public key, in PEM, of who is to have signed the bundles.",
    ),
]


@dataclass(frozen=True)
class VerifyRequest:
    """What is looked at beside the goldens: a tool's log, layers, and where one goes wrong."""

    log: Path | None
    spec: str | None
    weights: Path | None
    bisect: bool
    out: Path


def verify(
    bundles: Bundles,
    logs: Logs = None,
    spec: SpecOption = None,
    weights: WeightsFile = None,
    bisect: Bisect = False,
    out: Out = Path("reproducer"),
    key: PublicKey = None,
    *,
    program: ProgramOptions,
    report: ReportOptions,
) -> None:
    """Replay the goldens of bundles on their artifacts, and compare the bundles.

    Artifacts of one spec with the same weights are compared with each other too; where the integer
    program is known, or of float32 the network, so is each layer. A program that was not built
    here runs only with --trust. Exit code 4: a golden or a layer disagrees. A bundle that cannot be
    verified is reported after the others, and then the exit code is never 0.
    """
    from tcc.compiler.driver import verification

    wanted = VerifyRequest(logs, spec, weights, bisect, out)
    with report.stages() as stages:
        stages("bundles", 0, 1)
        read, refusals = _read(bundles, key, program)
        layered = logs is None and any(not device.packager for _, device in read)
        if read:
            option_needs.require({LAYERED_BUNDLE: layered})
        found = _verify_each(read, wanted, stages, refusals)
        stages.end()
    if not found:
        raise _joined(refusals)
    pairs, unlike = verification.pairs(found)
    if key:
        report.text(f"signed by {key}: {', '.join(str(each.bundle.folder) for each in found)}")
    verification_report.print_bundles(report, found, pairs)
    for first, second, why in unlike:
        report.detail(f"{first} and {second} are not compared: {why}")
    unproven = _unproven([device for _, device in read])
    for note in unproven:
        report.note(f"note: {note}")
    code = _code(found, pairs)
    signed = {"signed_by": str(key)} if key else {}
    document = {
        **signed,
        **verification_report.document(found, pairs, unlike, code),
        "notes": unproven,
    }
    if refusals:
        report.text(f"not verified: {len(refusals)} of {len(bundles)} bundles, for these reasons:")
        raise _rejected(refusals, document, code)
    report.document(document)
    if code:
        raise typer.Exit(code)


def _read(
    folders: Sequence[Path], key: Path | None, program: ProgramOptions
) -> "tuple[list[tuple[Bundle, Device]], list[UserError]]":
    """Return bundles with their targets, and why the others cannot be read."""
    read = []
    refusals: list[UserError] = []
    for folder in folders:
        try:
            read.append(trusted_bundle.load(folder, trust=program.trust, key=key, isa=program.isa))
        except UserError as error:
            refusals.append(error)
    return read, refusals


def _verify_each(
    read: "Sequence[tuple[Bundle, Device]]",
    wanted: VerifyRequest,
    stages: Stages,
    refusals: list[UserError],
) -> "list[VerifiedBundle]":
    """Return the bundles that can be verified; add why others cannot to `refusals`."""
    from tcc.compiler.bundle.bundle_folder import undisturbed

    verified = []
    for bundle, device in read:
        try:
            verified.append(undisturbed(bundle, partial(_verified, device, wanted, stages)))
        except UserError as error:
            refusals.append(error)
    return verified


def _joined(refusals: Sequence[UserError]) -> UserError:
    """Return one error of several; the only one as it is."""
    if len(refusals) == 1:
        return refusals[0]
    kind = Mislabelled if any(isinstance(error, Mislabelled) for error in refusals) else UserError
    return kind(tuple(d for error in refusals for d in error.diagnostics))


def _rejected(
    refusals: Sequence[UserError], document: Mapping[str, Any], code: int
) -> failures.Rejected:
    """Return the error of bundles that cannot be verified, with what is known of the others."""
    joined = _joined(refusals)
    disagrees = code == failures.BELOW or isinstance(joined, Mislabelled)
    exit_code = failures.BELOW if disagrees else failures.INPUT
    return failures.Rejected(joined.diagnostics, document, code=exit_code)


def _verified(
    device: "Device", wanted: VerifyRequest, stages: Stages, bundle: "Bundle"
) -> "VerifiedBundle":
    from tcc.compiler.bundle import tool_check
    from tcc.compiler.driver import rebuilt_program, verification
    from tcc.compiler.driver.verification import VerifiedBundle

    stages(f"{bundle.folder}", 0, 1)
    if wanted.log and device.packager is None:
        tool_check.check(bundle, device, wanted.log)  # which refuses it
    spec = _spec(wanted.spec, bundle) if wanted.spec else None
    program = rebuilt_program.program(bundle, device, spec, wanted.weights)
    network = rebuilt_program.network(bundle, device, spec, wanted.weights)
    sources = rebuilt_program.find_constant_sources(bundle, device, spec, wanted.weights, program)
    if device.packager and not wanted.bisect:
        return verification.verify_package(bundle, device, wanted.log, sources)
    if ((program is None and network is None) or device.packager) and wanted.bisect:
        help = "name the network with --spec and --weights, or build integers with --probes"
        message = "there is no network to look for a layer in"
        raise fail("E0663", message, whole_file(str(bundle.folder)), help=help)
    try:
        found = verification.verified(bundle, device, program, network, sources)
        return _bisected(found, device, wanted.out) if wanted.bisect else found
    except MissingTool as error:
        return VerifiedBundle(bundle, missing=error.tool)


def _unproven(devices: "Sequence[Device]") -> list[str]:
    """Return what is to be said of releases that nobody held against the recorded outputs."""
    from tcc.compiler.support import external_tools

    found = (note for device in devices for note in external_tools.release_notes(device.tools))
    return list(dict.fromkeys(found))


def _spec(name: str, bundle: "Bundle") -> "Spec":
    """Return the spec that the user named, with the bundle's parameters."""
    from tcc.compiler.driver.chosen_spec import choose, renamed
    from tcc.compiler.driver.pipeline import network

    about = bundle.manifest.model
    plain = choose(name, None).spec
    # What was set is part of a spec's digest, and what was left as it is is not.
    usual = network(plain).params
    settings = [f"{k}={v}" for k, v in about.params.items() if usual.get(k, v) != v]
    found = choose(name, settings).spec if settings else plain
    return renamed(found, about.name)


def _bisected(found: "VerifiedBundle", device: "Device", out: Path) -> "VerifiedBundle":
    """Return it with the reproducer of the first layer that differs, if one does."""
    from tcc.compiler.bundle import float_check, program_check
    from tcc.compiler.driver import reproducer

    made = None
    program, network = found.program, found.network
    if program and (where := program_check.divergence(found.bundle, device, program)):
        made = reproducer.write(where, program.program, device.name, out)
    if network and (layer := float_check.divergence(found.bundle, device, network)):
        made = reproducer.write(layer, network.network, device.name, out)
    return replace(found, reproducer=made)


def _code(found: "Sequence[VerifiedBundle]", pairs: "Sequence[OutputPair]") -> int:
    """Return the exit code, once it is said what does not agree."""
    wrong = any(not each.holds for each in found)
    for each in found:
        if not each.holds:
            folder = each.bundle.folder
            complain(
                tool_report.failed(folder, each.tool)
                if each.tool
                else f"error: {folder}: {_wrong(each)}"
            )
    apart = [pair for pair in pairs if not pair.holds]
    for pair in apart:
        complain(f"error: {pair.first} and {pair.second} promise the same bits, and differ")
    if wrong or apart:
        return failures.BELOW
    # What is wrong goes before what could not be looked at.
    return failures.TOOL if any(each.missing for each in found) else 0


def _wrong(each: "VerifiedBundle") -> str:
    """Return what disagrees, the goldens first."""
    if not all(one.holds for one in each.agreement):
        return "the artifact does not give its goldens"
    if fault := verification_report.describe_constant_fault(each.constants or ()):
        return fault
    if fault := verification_report.describe_library_fault(each.libraries):
        return fault
    if each.program and not all(one.holds for one in each.program.goldens):
        return "its goldens are not what its integer program gives"
    known = each.program or each.network
    layer = known.wrong_layer if known else None
    none = "none of its network's layers is in it"
    return f"the first layer that differs is `{layer.name}`" if layer else none
