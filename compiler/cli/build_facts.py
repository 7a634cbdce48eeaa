"""The facts about a build that its options need."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tcc.compiler.cli import built_integers
from tcc.compiler.cli.int8_build import Int8Build
from tcc.compiler.support import option_needs
from tcc.compiler.support.option_needs import (
    FRESH_CALIBRATION,
    INT8_TARGET,
    JUDGED_BUILD,
    PACKAGE_TARGET,
    READ_IMAGES,
    RUNNABLE_TARGET,
)

if TYPE_CHECKING:
    from tcc.compiler.ir.device import Plan


def require_targets(plans: "Sequence[Plan]") -> None:
    """Refuse typed options that none of the targets has a use for (E0601)."""
    devices = [plan.device for plan in plans]
    option_needs.require(
        {
            INT8_TARGET: any(plan.precision.calibrated for plan in plans),
            PACKAGE_TARGET: any(device.packager for device in devices),
            RUNNABLE_TARGET: any(device.target.runs for device in devices),
        }
    )


def require_images(work: Int8Build, plans: "Sequence[Plan]") -> None:
    """Refuse typed options that need images where this build reads none (E0601)."""
    integers = any(plan.precision.calibrated for plan in plans)
    calibrates = work.asked.calibration is None
    shipped = calibrates and built_integers.find_shipped(work) is not None
    has_images = work.asked.data is not None or work.chosen.project.data is not None
    reads = integers and (not shipped if calibrates else has_images)
    option_needs.require(
        {
            FRESH_CALIBRATION: calibrates and not shipped,
            JUDGED_BUILD: calibrates or has_images,
            READ_IMAGES: bool(work.asked.agree) or reads,
        }
    )
