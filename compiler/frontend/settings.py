"""Values of a spec's parameters as `--set` gives them."""

from collections.abc import Mapping

from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Tree, parse
from tcc.compiler.support.diagnostics import NOWHERE, Span, fail, listed, nearest


def read_settings(settings: Mapping[str, str], known: tuple[str, ...]) -> MappingTree:
    """Return `--set` values as the tree of a file that would hold `name: value` lines.

    Raises:
        UserError: A name is not a parameter, or a value is not well formed.
    """
    found: list[tuple[Scalar, Tree]] = []
    for name, text in settings.items():
        # Read as YAML, so that a value means the same on the command line as in the file.
        line = f"{name}: {text}"
        at = Span("--set", 1, 1, line, len(name))
        if name not in known:
            close = nearest(name, known)
            there = f"parameters are {listed(known)}" if known else "it has none"
            help = f"did you mean `{close}`?" if close else there
            raise fail("E0601", f"the spec has no parameter `{name}`", at, help=help)
        tree = parse(line, "--set")
        if not isinstance(tree, MappingTree) or len(tree.items) != 1:
            raise fail("E0626", f"`{name}` must be set to one value", at)
        found += tree.items
    return MappingTree(tuple(found), NOWHERE)
