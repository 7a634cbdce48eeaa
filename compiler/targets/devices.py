"""Targets of all backends: look them up by name, and load bundles with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tcc.backends import BACKENDS
from tcc.backends.installed import UnusableBackend, load_installed
from tcc.compiler.ir.device import Device, Plan
from tcc.compiler.ir.precision import Precision
from tcc.compiler.support.diagnostics import (
    Diagnostic,
    Span,
    UserError,
    fail,
    find_nearest_name,
    make_file_span,
)

if TYPE_CHECKING:
    from tcc.backends.installed import InstalledBackend
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.bundle.signature_check import SignaturePolicy


def list_devices() -> tuple[Device, ...]:
    """Return all targets: those of tcc, then those of other distributions."""
    installed, _ = _load_installed()
    return list_built_in_devices() + tuple(
        Device(
            installed_backend.backend,
            target,
            (installed_backend.distribution.name, installed_backend.distribution.version),
        )
        for installed_backend in installed
        for target in installed_backend.backend.targets
    )


def list_unusable_backends() -> tuple[UnusableBackend, ...]:
    """Return the entry points of other distributions that provide no usable targets."""
    return _load_installed()[1]


def list_built_in_devices() -> tuple[Device, ...]:
    """Return the targets of tcc."""
    return tuple(Device(backend, target) for backend in BACKENDS for target in backend.targets)


def _load_installed() -> "tuple[tuple[InstalledBackend, ...], tuple[UnusableBackend, ...]]":
    return load_installed(frozenset(_index_by_name(list_built_in_devices())))


def _index_by_name(devices: Sequence[Device]) -> dict[str, Device]:
    return {name: device for device in devices for name in (device.name, *device.target.aliases)}


def find(name: str, at: Span) -> Device:
    """Return the target with a name or alias.

    Raises:
        UserError: There is none (E0605); the help suggests the nearest name.
    """
    # Load code of other distributions only if no target of tcc has the name.
    if device := _index_by_name(list_built_in_devices()).get(name):
        return device
    devices = list_devices()
    by_name = _index_by_name(devices)
    if name in by_name:
        return by_name[name]
    closest_name = find_nearest_name(name, set(by_name))
    target_list = f"known targets: {', '.join(d.name for d in devices)}"
    help = f"did you mean `{closest_name}`? {target_list}" if closest_name else target_list
    if name in {backend.name for backend in list_unusable_backends()}:
        help = f"another distribution provides it but cannot be used, see `tcc targets`; {help}"
    raise fail("E0605", f"there is no target `{name[:80]}`", at, help=help)


def find_precision(target: str, name: str) -> Precision | None:
    """Return a precision of a target, both by name.

    If the target has none of this name, return that of any other target. A bundle with such a
    precision is then read far enough for a precise error. None if no target has the precision.
    """
    device = _index_by_name(list_built_in_devices()).get(target)
    if device and (precision := device.target.find_precision(name)):
        return precision
    targets = [device.target for device in list_devices()]
    targets.sort(
        key=lambda other_target: target not in (other_target.name, *other_target.aliases)
    )  # the named target first
    return next(
        (
            other_precision
            for other_target in targets
            if (other_precision := other_target.find_precision(name))
        ),
        None,
    )


def create_signature_policy(key: Path | None = None, *, any_key: bool = False) -> "SignaturePolicy":
    """Return which bundle signatures a command accepts.

    Args:
        key: The public key that must have signed them, if any.
        any_key: Whether signatures by unknown keys are accepted.

    Raises:
        UserError: The project file is invalid, or belongs to another user.
    """
    from tcc.compiler.bundle.signature_check import SignaturePolicy
    from tcc.compiler.support import project_file

    project = project_file.find_project(Path())
    required_by = str(project.path) if project.require_signature else ""
    return SignaturePolicy(key, any_key, required_by)


def load_bundle(folder: Path, policy: "SignaturePolicy | None") -> "tuple[Bundle, Device]":
    """Return the bundle in a folder, checked, and its target.

    Args:
        folder: The bundle.
        policy: Which signatures are accepted; None for a bundle that is to be signed again.

    Raises:
        UserError: The bundle is damaged, its signature is invalid, or its target (E0605) or
            precision (E0606) is unknown.
    """
    from tcc.compiler.bundle import bundle_folder

    bundle = bundle_folder.read_bundle(folder, find_precision, policy)
    at = make_file_span(str(folder / "manifest.json"))
    device = find(bundle.manifest.target, at)
    device.get_precision(bundle.manifest.precision, at)
    return bundle, device


def find_calibrated_device(names: Sequence[tuple[str, Span]]) -> Device:
    """Return the first of several targets that needs calibration.

    Raises:
        UserError: A name is unknown (E0605), or no target has an int8 precision (E0606).
    """
    devices = [find(name, at) for name, at in names]
    for device in devices:
        if device.target.calibrates:
            return device
    calibrated_names = [device.name for device in list_devices() if device.target.calibrates]
    message = f"{devices[0].name} has no int8 precision to calibrate for in this version"
    raise fail(
        "E0606", message, names[0][1], help=f"targets that have one: {', '.join(calibrated_names)}"
    )


def find_all(
    names: Sequence[tuple[str, Span]], precision: tuple[str, Span], *, is_explicit: bool = True
) -> tuple[Plan, ...]:
    """Return a build plan for each target, without duplicates.

    If the precision is not explicit, a target without float precisions gets its own first one.

    Args:
        names: Target names, each with its position in the user's input.
        precision: Name of the precision, with its position.
        is_explicit: Whether the user named the precision.

    Raises:
        UserError: Targets are unknown (E0605) or cannot build at it (E0606); all are listed.
    """
    plans: dict[str, Plan] = {}
    problems: list[Diagnostic] = []
    for name, at in dict.fromkeys(names):  # report each name once
        try:
            device = find(name, at)
            if not device.target.precisions:
                raise _create_calibration_error(device, at)
            has_float_precision = any(
                target_precision.full for target_precision in device.target.precisions
            )
            is_buildable = (
                is_explicit or has_float_precision or device.target.find_precision(precision[0])
            )
            chosen_precision = (
                device.get_precision(*precision) if is_buildable else device.target.precisions[0]
            )
            plans[device.name] = Plan(device, chosen_precision)
        except UserError as error:
            problems += error.diagnostics
    if problems:
        raise UserError(tuple(problems))
    return tuple(plans.values())


def _create_calibration_error(device: Device, at: Span) -> UserError:
    message = f"this version can calibrate for {device.name}, but cannot build for it"
    help = f"use `tcc calibrate --target {device.name}`"
    return fail("E0606", message, at, help=help)
