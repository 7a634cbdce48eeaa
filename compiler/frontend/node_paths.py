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
    # A list and not recursion: places nest as deep as steps do. Each place is met once; names are
    # counted among siblings alone.
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
        # A word stands alone as long as it is alone, so that most paths have no numbers. A loop's
        # turns are numbered even where there is one, as its count may change.
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
            # A block that is called twice has the ids of its steps twice, from one place in the
            # text: paths of the calls tell them apart.
            if known.at != child.at:
                yield known, child
