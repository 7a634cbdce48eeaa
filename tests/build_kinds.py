"""Pairs of target and precision that cover each target and each precision of a family.

Targets of one backend differ only in the core, so not every combination is needed. About thirty
builds become twenty.
"""

from tcc.backends import BACKENDS
from tcc.compiler.ir.backend import Backend


def list_pairs(backend: Backend) -> list[tuple[str, str]]:
    """Return the pairs of a backend. Targets alternate until every precision was used."""
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
