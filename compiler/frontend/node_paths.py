"""The paths that places in a spec give to nodes and weights."""

from collections import Counter
from collections.abc import Iterator

from tcc.compiler.frontend.step_scope import PathNode


def paths(root: PathNode) -> dict[int, str]:
    """Return the path of every place below a root, by the place's identity.

    A word that occurs once among its siblings stands alone, else its occurrences are numbered
    from 1; an id stays as written. A number that an id took is skipped.
    """
    found: dict[int, str] = {}
    pending = [(root, "")]
    while pending:
        place, prefix = pending.pop()
        for child, name in zip(place.children, _local(place.children), strict=True):
            found[id(child)] = prefix + name
            pending.append((child, f"{prefix}{name}/"))
    return found


def _local(children: list[PathNode]) -> list[str]:
    count = Counter(c.base for c in children)
    fixed = {c.base for c in children if c.fixed and count[c.base] == 1}
    used: Counter[str] = Counter()
    names = []
    for c in children:
        alone = count[c.base] == 1 and not c.numbered
        if c.base in fixed or alone:
            names.append(c.base)
            continue
        used[c.base] += 1
        while f"{c.base}_{used[c.base]}" in fixed:
            used[c.base] += 1
        names.append(f"{c.base}_{used[c.base]}")
    return names


def id_clashes(root: PathNode) -> Iterator[tuple[PathNode, PathNode]]:
    """Yield pairs of steps, written in two places, whose ids are equal in one part of the tree."""
    pending = [root]
    while pending:
        place = pending.pop()
        pending += place.children
        first: dict[str, PathNode] = {}
        for child in place.children:
            known = first.setdefault(child.base, child) if child.fixed else child
            if known.at != child.at:
                yield known, child
