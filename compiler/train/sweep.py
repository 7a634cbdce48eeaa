"""A sweep: every combination of some spec parameters, recipe keys and seeds, as trainings.

tcc_sweep: 1
set: {growth: [16, 32]}                     # parameters of the spec, as with --set
recipe: {learning_rate.peak: [0.05, 0.1]}   # keys of the recipe, sections before dots
seeds: [0, 1, 2]
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from tcc.compiler.driver.pipeline import setting
from tcc.compiler.frontend import yaml
from tcc.compiler.support import regular_files, task_places
from tcc.compiler.support.diagnostics import Span, UserError, fail
from tcc.compiler.train import recipe, run_folder
from tcc.compiler.train import recipe as recipes
from tcc.compiler.train.recipe_records import Recipe

VERSION = 1
MAX_TRIALS = 1000
KEYS = ("tcc_sweep", "set", "recipe", "seeds")


@dataclass(frozen=True, slots=True)
class Trial:
    """One training of a sweep: what it is called, its spec's settings, its recipe, its seed.

    `chosen` has what is varied, by key, as text.
    """

    name: str
    chosen: Mapping[str, str]
    settings: tuple[str, ...]
    recipe: Recipe
    seed: int


@dataclass(frozen=True, slots=True)
class _Axis:
    """A key that is varied, and its values with their places."""

    part: str
    key: str
    values: tuple[tuple[Any, Span], ...]


def read(path: Path, base: Recipe) -> tuple[Trial, ...]:
    """Return the trials of a sweep file, in the order of its keys and values.

    Raises:
        UserError: It cannot be read, is no sweep (E1232), or a recipe is wrong (E1232).
    """
    data = regular_files.read_file(path, "read the sweep", recipes.MAX_BYTES + 1)
    tree = yaml.parse(data[: recipes.MAX_BYTES], str(path))
    axes = tuple(_axes(tree))
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > MAX_TRIALS:
        raise _wrong(f"these are {count:,} trainings, at most {MAX_TRIALS:,} are run", tree.span)
    # Names of one length, so that folders sort in the order of the sweep.
    width = len(str(count))
    combinations = enumerate(product(*(axis.values for axis in axes)), 1)
    return tuple(_trial(f"{n:0{width}}", axes, each, base) for n, each in combinations)


def _axes(tree: yaml.Tree) -> Iterator[_Axis]:
    if not isinstance(tree, yaml.Mapping):
        raise _wrong("a sweep is a mapping of keys", tree.span)
    version = tree.get("tcc_sweep")
    if not isinstance(version, yaml.Scalar) or version.value != VERSION:
        at = version.span if version else tree.span
        raise _wrong("a sweep begins with `tcc_sweep: 1`", at)
    for key, value in tree.items:
        match key.value, value:
            case "tcc_sweep", _:
                pass
            case ("set" | "recipe") as part, yaml.Mapping(items=items):
                for name, values in items:
                    yield _Axis(part, str(name.value), _values(str(name.value), values))
            case "seeds", _:
                yield _Axis("seeds", "seed", tuple(_seeds(value)))
            case _:
                raise _wrong(f"a sweep has no such `{str(key.value)[:80]}`", key.span)


def _values(name: str, tree: yaml.Tree) -> tuple[tuple[Any, Span], ...]:
    if not isinstance(tree, yaml.Sequence) or not tree.items:
        raise _wrong(f"`{name}` takes a list of what it is to be", tree.span)
    return tuple((yaml.plain(item), item.span) for item in tree.items)


def _seeds(tree: yaml.Tree) -> Iterator[tuple[Any, Span]]:
    for value, at in _values("seeds", tree):
        if type(value) is not int or value < 0:
            raise _wrong("a seed is a whole number from 0 on", at)
        yield value, at


def _trial(
    name: str, axes: tuple[_Axis, ...], values: tuple[tuple[Any, Span], ...], base: Recipe
) -> Trial:
    chosen = {axis.key: setting(value) for axis, (value, _) in zip(axes, values, strict=True)}
    settings, recipe, seed = [], base, 0
    changes: dict[str, tuple[Any, Span]] = {}
    for axis, (value, at) in zip(axes, values, strict=True):
        match axis.part:
            case "set":
                settings.append(f"{axis.key}={setting(value)}")
            case "recipe":
                changes[axis.key] = value, at
            case _:
                seed = value
    if changes:
        recipe = _changed(base, changes)
    return Trial(name, chosen, tuple(settings), recipe, seed)


def _changed(base: Recipe, changes: Mapping[str, tuple[Any, Span]]) -> Recipe:
    """Return a recipe with other values of some keys.

    Raises:
        UserError: It is none then (E1232).
    """
    plain = json.loads(recipes.text(base))
    for key, (value, at) in changes.items():
        *sections, last = key.split(".")
        holder = plain
        for section in sections:
            holder = holder.setdefault(section, {})
            if not isinstance(holder, dict):
                raise _wrong(f"`{key}`: `{section}` is no section of a recipe", at)
        holder[last] = value
    for section, keys in recipe.ONLY.items():
        for key, (word, choices) in keys.items():
            own = plain.get(section, {})
            if own.get(word) not in choices and f"{section}.{key}" not in changes:
                own.pop(key, None)  # the base's own, for another choice
    try:
        return recipes.parse(json.dumps(plain), "recipe.json")
    except UserError as error:
        (last_at,) = [at for _, at in list(changes.values())[-1:]]
        said = error.diagnostics[0].message
        names = ", ".join(f"{key}: {setting(value)}" for key, (value, _) in changes.items())
        raise _wrong(f"with {names}, {said}", last_at) from None


def _wrong(message: str, at: Span) -> UserError:
    help = f"keys are {', '.join(KEYS)}; docs/training.md has an example"
    return fail("E1232", message, at, help=help)


@dataclass(frozen=True, slots=True)
class TrialCommand:
    """The words of a training, after `tcc`, and its folder, which all machines see."""

    words: tuple[str, ...]
    folder: str


@dataclass(frozen=True, slots=True)
class TrialEnd:
    """How a training ended: its report as plain data, or None and what it said."""

    report: Any
    said: str


def run_trial(command: TrialCommand) -> TrialEnd:
    """Train, or go on with what was begun; what is finished is not run again."""
    folder = Path(command.folder)
    # A sweep that was stopped is begun again as a whole: what is done or half done is known by its
    # folder.
    begun = any((folder / name).exists() for name in (run_folder.CHECKPOINT, run_folder.REPORT))
    done = task_places.run_command([*command.words, *(["--resume"] if begun else [])])
    if done.code:
        return TrialEnd(None, done.err.strip()[-2000:])
    return TrialEnd(json.loads((folder / run_folder.REPORT).read_bytes()), "")
