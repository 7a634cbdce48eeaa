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

from tcc.compiler.driver.pipeline import format_setting
from tcc.compiler.frontend import yaml
from tcc.compiler.support import regular_files, task_runners
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

    `varied_settings` has what is varied, by key, as text.
    """

    name: str
    varied_settings: Mapping[str, str]
    settings: tuple[str, ...]
    recipe: Recipe
    seed: int


@dataclass(frozen=True, slots=True)
class _Axis:
    """A key that is varied, and its values with their places."""

    section: str
    key: str
    options: tuple[tuple[Any, Span], ...]


def read_sweep(path: Path, base: Recipe) -> tuple[Trial, ...]:
    """Return the trials of a sweep file, in the order of its keys and values.

    Raises:
        UserError: It cannot be read, is no sweep (E1232), or a recipe is wrong (E1232).
    """
    content = regular_files.read_file(path, "read the sweep", recipes.MAX_BYTES + 1)
    tree = yaml.parse(content[: recipes.MAX_BYTES], str(path))
    axes = tuple(_parse_axes(tree))
    count = 1
    for axis in axes:
        count *= len(axis.options)
    if count > MAX_TRIALS:
        raise _build_error(
            f"these are {count:,} trainings, at most {MAX_TRIALS:,} are run", tree.span
        )
    # Names of one length, so that folders sort in the order of the sweep.
    width = len(str(count))
    combinations = enumerate(product(*(axis.options for axis in axes)), 1)
    return tuple(
        _build_trial(f"{n:0{width}}", axes, combination, base) for n, combination in combinations
    )


def _parse_axes(tree: yaml.Tree) -> Iterator[_Axis]:
    if not isinstance(tree, yaml.Mapping):
        raise _build_error("a sweep is a mapping of keys", tree.span)
    version = tree.get("tcc_sweep")
    if not isinstance(version, yaml.Scalar) or version.value != VERSION:
        at = version.span if version else tree.span
        raise _build_error("a sweep begins with `tcc_sweep: 1`", at)
    for key, node in tree.items:
        match key.value, node:
            case "tcc_sweep", _:
                pass
            case ("set" | "recipe") as part, yaml.Mapping(items=items):
                for name, option_list in items:
                    yield _Axis(part, str(name.value), _parse_values(str(name.value), option_list))
            case "seeds", _:
                yield _Axis("seeds", "seed", tuple(_parse_seeds(node)))
            case _:
                raise _build_error(f"a sweep has no such `{str(key.value)[:80]}`", key.span)


def _parse_values(name: str, tree: yaml.Tree) -> tuple[tuple[Any, Span], ...]:
    if not isinstance(tree, yaml.Sequence) or not tree.items:
        raise _build_error(f"`{name}` takes a list of what it is to be", tree.span)
    return tuple((yaml.to_plain(item), item.span) for item in tree.items)


def _parse_seeds(tree: yaml.Tree) -> Iterator[tuple[Any, Span]]:
    for seed, at in _parse_values("seeds", tree):
        if type(seed) is not int or seed < 0:
            raise _build_error("a seed is a whole number from 0 on", at)
        yield seed, at


def _build_trial(
    name: str, axes: tuple[_Axis, ...], combination: tuple[tuple[Any, Span], ...], base: Recipe
) -> Trial:
    varied_settings = {
        axis.key: format_setting(option)
        for axis, (option, _) in zip(axes, combination, strict=True)
    }
    settings, recipe, seed = [], base, 0
    changes: dict[str, tuple[Any, Span]] = {}
    for axis, (option, at) in zip(axes, combination, strict=True):
        match axis.section:
            case "set":
                settings.append(f"{axis.key}={format_setting(option)}")
            case "recipe":
                changes[axis.key] = option, at
            case _:
                seed = option
    if changes:
        recipe = _update_recipe(base, changes)
    return Trial(name, varied_settings, tuple(settings), recipe, seed)


def _update_recipe(base: Recipe, changes: Mapping[str, tuple[Any, Span]]) -> Recipe:
    """Return a recipe with other values of some keys.

    Raises:
        UserError: It is none then (E1232).
    """
    document = json.loads(recipes.render_json(base))
    for key, (option, at) in changes.items():
        *sections, leaf_key = key.split(".")
        holder = document
        for section in sections:
            holder = holder.setdefault(section, {})
            if not isinstance(holder, dict):
                raise _build_error(f"`{key}`: `{section}` is no section of a recipe", at)
        holder[leaf_key] = option
    for section, keys in recipe.CONDITIONAL_KEYS.items():
        for key, (selector, choices) in keys.items():
            section_keys = document.get(section, {})
            if section_keys.get(selector) not in choices and f"{section}.{key}" not in changes:
                section_keys.pop(key, None)  # the base's own, for another choice
    try:
        return recipes.parse_recipe(json.dumps(document), "recipe.json")
    except UserError as error:
        (last_at,) = [at for _, at in list(changes.values())[-1:]]
        reason = error.diagnostics[0].message
        names = ", ".join(
            f"{key}: {format_setting(option)}" for key, (option, _) in changes.items()
        )
        raise _build_error(f"with {names}, {reason}", last_at) from None


def _build_error(message: str, at: Span) -> UserError:
    help = f"keys are {', '.join(KEYS)}; docs/training.md has an example"
    return fail("E1232", message, at, help=help)


@dataclass(frozen=True, slots=True)
class TrialCommand:
    """The words of a training, after `tcc`, and its folder, which all machines see."""

    arguments: tuple[str, ...]
    folder: str


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """How a training ended: its report as plain data, or None and what it said."""

    report: Any
    error_text: str


def run_trial(command: TrialCommand) -> TrialOutcome:
    """Train, or go on with what was begun; what is finished is not run again."""
    folder = Path(command.folder)
    # A sweep that was stopped is begun again as a whole: what is done or half done is known by its
    # folder.
    begun = any((folder / name).exists() for name in (run_folder.CHECKPOINT, run_folder.REPORT))
    ended_process = task_runners.run_command([*command.arguments, *(["--resume"] if begun else [])])
    if ended_process.code:
        return TrialOutcome(None, ended_process.err.strip()[-2000:])
    return TrialOutcome(json.loads((folder / run_folder.REPORT).read_bytes()), "")
