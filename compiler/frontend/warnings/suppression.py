"""What a spec's `allow:` silences."""

from collections.abc import Iterable, Iterator

from tcc.compiler.frontend.warnings.warning_kinds import warning
from tcc.compiler.frontend.yaml import Mapping, Scalar, Sequence
from tcc.compiler.support.diagnostics import Diagnostic


def heard(found: Iterable[Diagnostic], root: Mapping) -> tuple[Diagnostic, ...]:
    """Return the warnings that a spec does not silence, once each, in the order of the text."""
    tree = root.get("allow")
    items = tree.items if isinstance(tree, Sequence) else ()
    allowed = {str(item.value): item for item in items if isinstance(item, Scalar)}
    unique = {(d.code, d.at, d.message): d for d in found}
    said = {d.kind for d in unique.values()}
    rest = [d for d in unique.values() if d.kind not in allowed]
    if "unused-allow" not in allowed:
        rest += _idle(allowed, said)
    return tuple(sorted(rest, key=lambda d: (d.at.file, d.at.line, d.at.column, d.code)))


def _idle(allowed: dict[str, Scalar], said: set[str]) -> Iterator[Diagnostic]:
    for name, item in allowed.items():
        if name not in said:
            message = f"there is no warning of the kind `{name}` to silence"
            yield warning("unused-allow", message, item.span, help="leave it away")
