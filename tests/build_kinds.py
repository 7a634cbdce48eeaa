"""Pairs of a target and a precision that together have each target, and each precision of a family.

The targets of a backend share all that makes their files but the core that these are for, so that
not each of them needs each precision: some thirty builds become twenty.
"""

from tcc.backends import BACKENDS
from tcc.compiler.ir.backend import Backend


def list_pairs(backend: Backend) -> list[tuple[str, str]]:
    """Return the pairs of a backend: its targets take turns until all precisions were there."""
    targets = [
        (candidate.name, [precision.name for precision in candidate.precisions])
        for candidate in backend.targets
    ]
    missing = list(
        dict.fromkeys(precision for _, precisions in targets for precision in precisions)
    )
    chosen_pairs: list[tuple[str, str]] = []
    while missing or len(chosen_pairs) < len(targets):
        name, precisions = targets[len(chosen_pairs) % len(targets)]
        precision = next(
            (precision for precision in missing if precision in precisions), precisions[0]
        )
        missing = [candidate for candidate in missing if candidate != precision]
        chosen_pairs.append((name, precision))
    return chosen_pairs


PAIRS = [pair for backend in BACKENDS for pair in list_pairs(backend)]
