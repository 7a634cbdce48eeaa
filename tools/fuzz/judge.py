"""Check the outcome of a case."""

from pathlib import Path

import child
from case import Case, Outcome

SECONDS, PEAK = 20.0, 1 << 30
"""The limits of a command: CPU seconds and bytes of memory."""


def check_outcome(outcome: Outcome, case: Case, folder: Path) -> str:
    """Return what is wrong with the outcome of a case, or an empty string."""
    if outcome.wall > child.PATIENCE:
        return f"no exit after {child.PATIENCE} s"
    if outcome.code not in case.expected:
        return f"exit {outcome.code}"
    if "Traceback (most recent call last)" in outcome.out + outcome.err:
        return "traceback"
    if outcome.seconds > SECONDS:
        return f"{outcome.seconds:.0f} s"
    if outcome.peak > PEAK:
        return f"{outcome.peak >> 20} MiB"
    return case.check(outcome, folder) if case.check else ""
