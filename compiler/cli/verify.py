"""`tcc verify`: replay goldens on artifacts, and compare bundles with each other."""

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
from tcc.compiler.support import option_requirements
from tcc.compiler.support.console import Stages, print_problem
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.support.external_tools import MissingTool
from tcc.compiler.support.option_requirements import LAYERED_BUNDLE
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
        help="Log of the vendor toolchain that compiled a package elsewhere, as `build.sh` "
        "wrote it.",
    ),
]
SpecOption = Annotated[
    str | None,
    typer.Option(
        "--spec",
        metavar="SPEC",
        show_default=False,
        help="The network, to compare each layer if the bundle does not contain the int8 program.",
    ),
]
WeightsFile = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", show_default=False, help="Weights of the network."),
]
Bisect = Annotated[
    bool,
    typer.Option(
        "--bisect",
        help="Write the first layer that differs as a separate reproducer, to run on both "
        "runtimes.",
    ),
]
Out = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="DIR", help="Folder for the reproducer of --bisect."),
]


PublicKey = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        show_default=False,
        help="Public key, in PEM, that must have signed the bundles.",
    ),
]


@dataclass(frozen=True)
class VerifyRequest:
    """The checks in addition to the goldens: a tool's log, layers, and the first wrong layer."""

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

    Artifacts of one spec with the same weights are compared with each other too. If the int8
    program is known, or at fp32 the network, each layer is compared as well. A program that was not
    built on this machine runs only with --trust. Exit code 4 means that a golden or a layer
    disagrees. A bundle that cannot be verified is reported after the others; the exit code is then
    never 0.
    """
    from tcc.compiler.driver import verification

    request = VerifyRequest(logs, spec, weights, bisect, out)
    with report.track_stages() as stages:
        stages("bundles", 0, 1)
        loaded, refusals = _load_bundles(bundles, key, program)
        layered = logs is None and any(not device.packager for _, device in loaded)
        if loaded:
            option_requirements.report_facts({LAYERED_BUNDLE: layered})
        verified_bundles = _verify_each(loaded, request, stages, refusals)
        stages.finish_stage()
    if not verified_bundles:
        raise _merge_errors(refusals)
    pairs, unlike = verification.compare_pairs(verified_bundles)
    if key:
        report.print_text(
            f"signed by {key}: "
            f"{', '.join(str(verified.bundle.folder) for verified in verified_bundles)}"
        )
    verification_report.print_bundles(report, verified_bundles, pairs)
    for first_folder, second_folder, reason in unlike:
        report.print_detail(f"{first_folder} and {second_folder} are not compared: {reason}")
    unproven = _list_unproven([device for _, device in loaded])
    for note in unproven:
        report.print_note(f"note: {note}")
    code = _choose_exit_code(verified_bundles, pairs)
    signed = {"signed_by": str(key)} if key else {}
    document = {
        **signed,
        **verification_report.encode_verification(verified_bundles, pairs, unlike, code),
        "notes": unproven,
    }
    if refusals:
        report.print_text(
            f"not verified: {len(refusals)} of {len(bundles)} bundles, for these reasons:"
        )
        raise _create_rejection(refusals, document, code)
    report.print_document(document)
    if code:
        raise typer.Exit(code)


def _load_bundles(
    folders: Sequence[Path], key: Path | None, program: ProgramOptions
) -> "tuple[list[tuple[Bundle, Device]], list[UserError]]":
    """Return bundles with their targets, and the errors of bundles that cannot be read."""
    loaded = []
    refusals: list[UserError] = []
    for folder in folders:
        try:
            loaded.append(
                trusted_bundle.load(folder, trust=program.trust, key=key, isa=program.isa)
            )
        except UserError as error:
            refusals.append(error)
    return loaded, refusals


def _verify_each(
    loaded: "Sequence[tuple[Bundle, Device]]",
    request: VerifyRequest,
    stages: Stages,
    refusals: list[UserError],
) -> "list[VerifiedBundle]":
    """Return the bundles that can be verified; add the errors of the others to `refusals`."""
    from tcc.compiler.bundle.bundle_folder import run_undisturbed

    verified = []
    for bundle, device in loaded:
        try:
            verified.append(
                run_undisturbed(bundle, partial(_verify_bundle, device, request, stages))
            )
        except UserError as error:
            refusals.append(error)
    return verified


def _merge_errors(refusals: Sequence[UserError]) -> UserError:
    """Return one error for several; a single one is unchanged."""
    if len(refusals) == 1:
        return refusals[0]
    kind = Mislabelled if any(isinstance(error, Mislabelled) for error in refusals) else UserError
    return kind(tuple(d for error in refusals for d in error.diagnostics))


def _create_rejection(
    refusals: Sequence[UserError], document: Mapping[str, Any], code: int
) -> failures.Rejected:
    """Return the error of bundles that cannot be verified, with the results of the others."""
    joined = _merge_errors(refusals)
    disagrees = code == failures.BELOW_FLOOR or isinstance(joined, Mislabelled)
    exit_code = failures.BELOW_FLOOR if disagrees else failures.INPUT
    return failures.Rejected(joined.diagnostics, document, code=exit_code)


def _verify_bundle(
    device: "Device", request: VerifyRequest, stages: Stages, bundle: "Bundle"
) -> "VerifiedBundle":
    from tcc.compiler.bundle import tool_check
    from tcc.compiler.driver import bundle_program, verification
    from tcc.compiler.driver.verification import VerifiedBundle

    stages(f"{bundle.folder}", 0, 1)
    if request.log and device.packager is None:
        tool_check.check(bundle, device, request.log)  # this refuses it
    spec = _load_spec(request.spec, bundle) if request.spec else None
    program = bundle_program.rebuild_program(bundle, device, spec, request.weights)
    network = bundle_program.rebuild_network(bundle, device, spec, request.weights)
    sources = bundle_program.find_constant_sources(bundle, device, spec, request.weights, program)
    if device.packager and not request.bisect:
        return verification.verify_package(bundle, device, request.log, sources)
    if ((program is None and network is None) or device.packager) and request.bisect:
        help = "name the network with --spec and --weights, or build the int8 model with --probes"
        message = "--bisect needs the network of this bundle, which is not known"
        raise fail("E0663", message, make_file_span(str(bundle.folder)), help=help)
    try:
        verified_bundle = verification.verify_bundle(bundle, device, program, network, sources)
        return (
            _write_reproducer(verified_bundle, device, request.out)
            if request.bisect
            else verified_bundle
        )
    except MissingTool as error:
        return VerifiedBundle(bundle, missing=error.tool)


def _list_unproven(devices: "Sequence[Device]") -> list[str]:
    """Return notes about tool releases that nobody compared with the recorded outputs."""
    from tcc.compiler.support import external_tools

    notes = (
        note
        for device in devices
        for note in external_tools.describe_unproven_releases(device.tools)
    )
    return list(dict.fromkeys(notes))


def _load_spec(name: str, bundle: "Bundle") -> "Spec":
    """Return the spec that the user named, with the bundle's parameters."""
    from tcc.compiler.driver.chosen_spec import choose_spec, rename_network
    from tcc.compiler.driver.pipeline import describe_network

    network_record = bundle.manifest.model
    default_spec = choose_spec(name, None).spec
    # Only parameters that were set are part of a spec's digest.
    default_params = describe_network(default_spec).params
    settings = [
        f"{k}={v}" for k, v in network_record.params.items() if default_params.get(k, v) != v
    ]
    loaded_spec = choose_spec(name, settings).spec if settings else default_spec
    return rename_network(loaded_spec, network_record.name)


def _write_reproducer(
    verified_bundle: "VerifiedBundle", device: "Device", out: Path
) -> "VerifiedBundle":
    """Return the bundle with a reproducer of the first layer that differs, if any."""
    from tcc.compiler.bundle import float_check, program_check
    from tcc.compiler.driver import reproducer

    layer_reproducer = None
    program, network = verified_bundle.program, verified_bundle.network
    if program and (
        program_divergence := program_check.find_divergence(verified_bundle.bundle, device, program)
    ):
        layer_reproducer = reproducer.write(program_divergence, program.program, device.name, out)
    if network and (layer := float_check.find_divergence(verified_bundle.bundle, device, network)):
        layer_reproducer = reproducer.write(layer, network.network, device.name, out)
    return replace(verified_bundle, reproducer=layer_reproducer)


def _choose_exit_code(
    verified_bundles: "Sequence[VerifiedBundle]", pairs: "Sequence[OutputPair]"
) -> int:
    """Report what does not agree, and return the exit code."""
    wrong = any(not verified_bundle.holds for verified_bundle in verified_bundles)
    for verified_bundle in verified_bundles:
        if not verified_bundle.holds:
            folder = verified_bundle.bundle.folder
            print_problem(
                tool_report.describe_failure(folder, verified_bundle.tool)
                if verified_bundle.tool
                else f"error: {folder}: {_describe_fault(verified_bundle)}"
            )
    differing_pairs = [pair for pair in pairs if not pair.holds]
    for pair in differing_pairs:
        print_problem(
            f"error: {pair.first} and {pair.second} should be bit-exact, but their outputs differ"
        )
    if wrong or differing_pairs:
        return failures.BELOW_FLOOR
    # A wrong artifact is more important than a missing tool.
    return (
        failures.TOOL if any(verified_bundle.missing for verified_bundle in verified_bundles) else 0
    )


def _describe_fault(verified_bundle: "VerifiedBundle") -> str:
    """Return what disagrees, the goldens first."""
    if not all(agreement.holds for agreement in verified_bundle.agreement):
        return "the artifact does not reproduce its golden outputs"
    if fault := verification_report.describe_constant_fault(verified_bundle.constants or ()):
        return fault
    if fault := verification_report.describe_library_fault(verified_bundle.libraries):
        return fault
    if verified_bundle.program and not all(
        agreement.holds for agreement in verified_bundle.program.goldens
    ):
        return "its golden outputs are not those of its int8 program"
    layer_check = verified_bundle.program or verified_bundle.network
    layer = layer_check.wrong_layer if layer_check else None
    none = "the artifact contains none of the network's layers"
    return f"the first layer that differs is `{layer.name}`" if layer else none
