"""Pairs of a target and a precision that together have each target, and each precision of a family.

The targets of a backend share all that makes their files but the core that these are for, so that
not each of them needs each precision: some thirty builds become twenty.
"""

from tcc.backends import BACKENDS
from tcc.compiler.ir.backend import Backend


def pairs(backend: Backend) -> list[tuple[str, str]]:
    """Return the pairs of a backend: its targets take turns until all precisions were there."""
    targets = [(one.name, [kind.name for kind in one.precisions]) for one in backend.targets]
    missing = list(dict.fromkeys(kind for _, kinds in targets for kind in kinds))
    found: list[tuple[str, str]] = []
    while missing or len(found) < len(targets):
        name, kinds = targets[len(found) % len(targets)]
        kind = next((kind for kind in missing if kind in kinds), kinds[0])
        missing = [one for one in missing if one != kind]
        found.append((name, kind))
    return found


PAIRS = [pair for backend in BACKENDS for pair in pairs(backend)]
