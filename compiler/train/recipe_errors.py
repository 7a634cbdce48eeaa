"""What is wrong with a recipe, in words, at its place in the text."""

from collections.abc import Iterator, Mapping
from typing import get_args

from tcc.compiler.frontend.schema_validation import Breach, Path
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, at, key_at
from tcc.compiler.support.diagnostics import Diagnostic, nearest
from tcc.compiler.train.learning_rate import LearningRate, Schedule
from tcc.compiler.train.losses import Loss, LossKind
from tcc.compiler.train.optimizers import Optimizer, OptimizerKind

ONLY: Mapping[str, Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "learning_rate": {
        "final": ("schedule", ("cosine",)),
        "decay": ("schedule", ("exponential", "steps")),
        "at_epochs": ("schedule", ("steps",)),
    },
    "optimizer": {
        "momentum": ("kind", ("sgd",)),
        "nesterov": ("kind", ("sgd",)),
        "beta1": ("kind", ("adam", "adamw")),
        "beta2": ("kind", ("adam", "adamw")),
    },
    "loss": {
        "label_smoothing": ("kind", ("cross_entropy",)),
        "gamma": ("kind", ("focal", "attention")),
        "alpha": ("kind", ("focal", "attention")),
        "positive": ("kind", ("focal", "attention")),
    },
}
"""Keys of sections that mean something for some choices of another key alone."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    "learning_rate": get_args(Schedule),
    "optimizer": get_args(OptimizerKind),
    "loss": get_args(LossKind),
}
"""What that other key may choose."""
CHOSEN = {
    "learning_rate": LearningRate().schedule,
    "optimizer": Optimizer().kind,
    "loss": Loss().kind,
}
"""What is chosen where it is left out."""
_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping of keys",
}
_BOUNDS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}


def told(tree: MappingTree, breach: Breach) -> Iterator[Diagnostic]:
    """Yield what a breach of the schema means (E1221, E1222)."""
    path = breach.path
    name = next((str(p) for p in reversed(path) if isinstance(p, str)), "this")
    here = at(tree, path)
    match breach.keyword:
        case "additionalProperties":
            yield from _unknown(tree, breach, path)
        case "required":
            help = f"add `{breach.missing}: 1`"
            yield Diagnostic("E1222", f"a recipe needs `{breach.missing}`", here, help=help)
        case "type":
            wanted = _KINDS[breach.rules["type"]]
            yield Diagnostic("E1222", f"`{name}` must be {wanted}", here)
        case "enum":
            words = breach.rules["enum"]
            close = nearest(str(breach.value), words)
            help = f"did you mean `{close}`?" if close else ""
            message = f"`{name}` must be one of {', '.join(words)}"
            yield Diagnostic("E1222", message, here, help=help)
        case "const":
            message = f"`{name}` must be {breach.rules['const']}"
            help = "this tcc reads version 1 of recipes"
            yield Diagnostic("E1222", message, here, help=help)
        case "minItems" | "maxItems":
            count = breach.rules[breach.keyword]
            few = "at least" if breach.keyword == "minItems" else "at most"
            yield Diagnostic("E1222", f"`{name}` must have {few} {count} entries", here)
        case bound:
            message = f"`{name}` must be {_BOUNDS[bound]} {breach.rules[bound]}"
            yield Diagnostic("E1222", message, here)


def _unknown(tree: MappingTree, breach: Breach, path: Path) -> Iterator[Diagnostic]:
    known = tuple(breach.rules.get("properties", {}))
    holder = f"`{path[-1]}`" if path else "a recipe"
    for key in breach.value:
        if key not in known:
            close = nearest(str(key), known)
            help = f"did you mean `{close}`?" if close else f"its keys are {', '.join(known)}"
            message = f"{holder} has no key `{str(key)[:80]}`"
            yield Diagnostic("E1221", message, key_at(tree, path, str(key)), help=help)


def out_of_place(tree: MappingTree) -> Iterator[Diagnostic]:
    """Yield an error for each key that what is chosen beside it has no use for (E1223)."""
    for section, keys in ONLY.items():
        inner = tree.get(section)
        for key, (word, choices) in keys.items() if isinstance(inner, MappingTree) else ():
            assert isinstance(inner, MappingTree)
            said = inner.get(word)
            # What the recipe leaves out is chosen too: by its default.
            chosen = said.value if isinstance(said, Scalar) else CHOSEN[section]
            given = inner.key(key)
            if given is not None and chosen in CHOICES[section] and chosen not in choices:
                message = f"`{key}` means nothing where `{word}` is {str(chosen)[:40]}"
                help = f"it is for {' and '.join(choices)}; remove it, or choose another `{word}`"
                yield Diagnostic("E1223", message, given.span, help=help)
