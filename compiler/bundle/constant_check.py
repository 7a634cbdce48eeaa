"""The weights and scales in a bundle's artifact beside those of the network it is built from."""

import re
from collections.abc import Container
from dataclasses import replace

from tcc.compiler.bundle.bundle_folder import Bundle
from tcc.compiler.ir.constant_checker import (
    ConstantCheck,
    ConstantChecker,
    ConstantDifference,
    ConstantSources,
)
from tcc.compiler.ir.device import Device

_END = re.compile(r"[:/]|_*\Z")
"""Where a layer's name may end in an operator's."""


def check(
    bundle: Bundle, device: Device, sources: ConstantSources | None
) -> tuple[ConstantCheck, ...] | None:
    """Return how each file of an artifact compares; None where nothing is known to compare with.

    Args:
        bundle: The bundle.
        device: Its target.
        sources: What it was built from, where that is known.

    Raises:
        MissingTool: What reads the artifact's files is not here.
        UserError: A file cannot be read.
    """
    checker = device.backend
    unknown = sources is None or (sources.floats, sources.program) == (None, None)
    if not isinstance(checker, ConstantChecker) or sources is None or unknown:
        return None
    models = [model for model in (sources.floats, sources.program) if model]
    layers = {node.name for model in models for node in model.graph.nodes}
    checks = checker.check_constants(device.target, bundle.model, sources)
    return tuple(_name_layers(check, layers) for check in checks)


def _name_layers(check: ConstantCheck, layers: Container[str]) -> ConstantCheck:
    differences = (_name(difference, layers) for difference in check.differences)
    return replace(check, differences=tuple(differences))


def _name(difference: ConstantDifference, layers: Container[str]) -> ConstantDifference:
    """Name the layer that an operator is of: `fc:x/y` is one of `fc`, unless that is a layer."""
    operator = difference.layer
    stems = [operator[: end.start()] for end in _END.finditer(operator)]
    layer = next((stem for stem in reversed(stems) if stem in layers), operator)
    return replace(difference, layer=layer)
