"""What `tcc verify` reports of the weights and scales in an artifact's files."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tcc.compiler.support.console import Report

if TYPE_CHECKING:
    from tcc.compiler.driver.verification import VerifiedBundle
    from tcc.compiler.ir.constant_checker import ConstantCheck

MAX_PRINTED = 10
"""Differences of one file that are printed."""


def report_constants(report: Report, verified: "VerifiedBundle") -> None:
    """Print how the constants of each file compare, or that nothing was compared."""
    folder = verified.bundle.folder
    if verified.constants is None:
        if verified.replayed:
            hint = "--spec SPEC (and --weights FILE) compares them"
            report.text(f"{folder}: its weights and scales were not compared: {hint}")
        return
    for check in verified.constants:
        if check.uncompared:
            reason = check.uncompared
            report.notice(f"{folder}: {check.file} was not compared with the network: {reason}")
            continue
        for difference in check.differences[:MAX_PRINTED]:
            report.text(f"{folder}: {check.file}: {difference}")
        if len(check.differences) > MAX_PRINTED:
            remaining = len(check.differences) - MAX_PRINTED
            report.text(f"{folder}: {check.file}: {remaining:,} more tensors differ")
        if check.holds:
            amounts = f"{check.tensors:,} constant tensors, {check.values:,} values"
            report.text(f"{folder}: {check.file}: {amounts}: all are the network's")


def describe_fault(checks: "Iterable[ConstantCheck]") -> str:
    """Return what is wrong with the first file that is; nothing where none is."""
    for check in checks:
        if not check.holds:
            reason = str(check.differences[0]) if check.differences else check.problem
            return f"{check.file} is not what the network gives: {reason}"
    return ""


def document(checks: "Iterable[ConstantCheck] | None") -> list[dict[str, Any]] | None:
    """Return it as plain data; null where nothing was compared."""
    if checks is None:
        return None
    return [
        {**asdict(check), "holds": None if check.uncompared else check.holds} for check in checks
    ]
