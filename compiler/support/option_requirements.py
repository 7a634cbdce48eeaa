"""Requirements of options: another option, or a fact about the input of a command.

`option_table` lists the requirements of every option of every command, and the Python interface
those of every argument. A typed option with an unmet requirement is refused (E0601). A project
file sets defaults, which nobody typed: they are never refused.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Protocol

from tcc.compiler.support.diagnostics import Span, fail


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why an option has no effect, as a clause, and what to change."""

    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class GivenOptions:
    """The options of one command line, or the arguments of one call.

    Attributes:
        options_by_name: Every option by its name, with its value or default.
        typed: The options that were typed, with their values; their names are keys of `needs`.
        needs: The requirements of each option, by its name.
        spell: Returns an option and its value as the user wrote them.
        locate: Returns the span of such text.
        facts: The facts that are known so far.
    """

    options_by_name: Mapping[str, object]
    typed: Mapping[str, object]
    needs: "Mapping[str, Needs]"
    spell: Callable[[str, object], str]
    locate: Callable[[str], Span]
    facts: "Mapping[Fact, bool]" = field(default_factory=dict)

    def is_set(self, name: str) -> bool:
        """Whether an option has a value other than empty or false."""
        return self.options_by_name.get(name) not in (None, False, 0, (), [])

    def check(self) -> None:
        """Refuse the first typed option that has no effect, given the known facts.

        Raises:
            UserError: There is such an option (E0601).
        """
        for name, typed_value in self.typed.items():
            for need in self.needs[name]:
                if obstacle := need.find_obstacle(self):
                    text = self.spell(name, typed_value)
                    message = f"`{text.split()[0]}` has no effect: {obstacle.reason}"
                    raise fail("E0601", message, self.locate(text), help=obstacle.remedy)


class Need(Protocol):
    """A requirement that an option has to have an effect."""

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return why the requirement is not met; None if it is met, or not yet known."""
        ...


Needs = tuple[Need, ...]
ALWAYS: Needs = ()
"""The requirements of an option that always has an effect."""


@dataclass(frozen=True, slots=True)
class RequiresAny:
    """Requires one of several other options."""

    names: tuple[str, ...]

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return an obstacle if none of them is set."""
        if any(map(options.is_set, self.names)):
            return None
        alternatives = " or ".join(f"`{name}`" for name in self.names)
        return Obstacle(f"it needs {alternatives}", f"add {alternatives}, or remove this option")


@dataclass(frozen=True, slots=True)
class ForbidsAll:
    """Requires that several other options are not all set: together they make it useless."""

    names: tuple[str, ...]
    reason: str

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return an obstacle if all of them are set."""
        if not all(map(options.is_set, self.names)):
            return None
        alternatives = " or ".join(f"`{name}`" for name in self.names)
        return Obstacle(self.reason, f"remove this option, or remove {alternatives}")


@dataclass(frozen=True, slots=True)
class Choice:
    """Requires that another option has one of some values."""

    name: str
    choices: tuple[str, ...]
    reason: str

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return an obstacle if it has another value."""
        if str(options.options_by_name.get(self.name)) in self.choices:
            return None
        alternatives = " or ".join(f"`{self.name} {choice}`" for choice in self.choices)
        return Obstacle(self.reason, f"use {alternatives}, or remove this option")


@dataclass(frozen=True, slots=True)
class Fact:
    """Requires a fact that the command finds out and reports with `report_facts`."""

    reason: str
    remedy: str

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return an obstacle if the fact is known to be false."""
        return None if options.facts.get(self, True) else Obstacle(self.reason, self.remedy)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Requires one of several requirements; the last one's obstacle is reported."""

    needs: Needs

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return an obstacle if none is met."""
        obstacles = [need.find_obstacle(options) for need in self.needs]
        return obstacles[-1] if all(obstacles) else None


@dataclass(frozen=True, slots=True)
class OfKind:
    """Requires that the command's KIND is one of some kinds."""

    kinds: tuple[str, ...]

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return an obstacle if it is another kind."""
        kind = options.options_by_name["kind"]
        if kind in self.kinds:
            return None
        help = f"remove this option, which is for {', '.join(self.kinds)}"
        return Obstacle(f"`{kind}` does not use it", help)


@dataclass(frozen=True, slots=True)
class ForKind:
    """Requirements that apply only to some kinds."""

    kinds: tuple[str, ...]
    needs: Needs

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return the first obstacle, if the kind is one of them."""
        if options.options_by_name["kind"] not in self.kinds:
            return None
        return next(filter(None, (need.find_obstacle(options) for need in self.needs)), None)


_OPTIONS: ContextVar[GivenOptions | None] = ContextVar("_OPTIONS", default=None)
"""The options of the running command; None in calls from Python."""


@contextmanager
def check_options(options: GivenOptions) -> Iterator[None]:
    """Refuse options without effect before a command runs, and when it reports facts.

    Raises:
        UserError: There is such an option (E0601).
    """
    options.check()
    token = _OPTIONS.set(options)
    try:
        yield
    finally:
        _OPTIONS.reset(token)


def report_facts(facts: Mapping[Fact, bool]) -> None:
    """Record facts about the input, and refuse typed options that have no effect given them.

    Raises:
        UserError: There is such an option (E0601).
    """
    options = _OPTIONS.get()
    if options is None:
        return
    updated = replace(options, facts={**options.facts, **facts})
    _OPTIONS.set(updated)
    updated.check()


_REMOVE = "remove this option"

INT8_TARGET = Fact("no target is built as int8", "add `--precision int8`")
EXACT_TARGET = Fact(
    "no target is built as bit-exact int8", "add `--precision int8`, or another target"
)
CALIBRATION_IMAGES = Fact(
    "no calibration images are given, and a guard is fitted to them", "give them with `--data`"
)
FRESH_CALIBRATION = Fact(
    "the scales come with the trained network",
    "give your own images with `--data`, or remove this option",
)
JUDGED_BUILD = Fact(
    "no images measure this int8 model: its calibration is read from a file",
    "give images with `--data`, or remove this option",
)
READ_IMAGES = Fact("no images are read", "give images with `--data`, or remove this option")
UNNAMED_IMAGES = Fact(
    "the images are named one by one", "remove the image names, or remove this option"
)
PACKAGE_TARGET = Fact("no target is a package for a vendor toolchain", _REMOVE)
RUNNABLE_TARGET = Fact("this machine cannot run what is built for these targets", _REMOVE)

SPECS = Fact("it is for specs, and the input is a bundle", _REMOVE)
BUNDLES = Fact("it is for bundles, and the input is a spec", "name a bundle, or remove this option")
SOME_BUNDLE = Fact("it is for bundles, and no input is a bundle", _REMOVE)
SPEC_OR_FITTED = Fact("it is for specs and for fitted values, and these bundles have none", _REMOVE)
PROMISED = Fact(
    "`--confidence 0` promises nothing", "use another confidence, or remove this option"
)
ONE_NETWORK = Fact("it is for one network, and there are several", "name only one network")

LAYERED_BUNDLE = Fact(
    "these bundles are packages for a vendor toolchain, which have no layers to compare", _REMOVE
)
TIMED_BUNDLE = Fact(
    "these bundles run in an emulator, which counts one run instead of timing many", _REMOVE
)
BOARD_RUNNER = Fact("these bundles are complete programs that run on a board", _REMOVE)

SHARES_USED = Fact("these images are already split into `train` and `val`", "remove this option")
SLIDE_PAGE = Fact("it is for the page of a slide, and the input is not a slide", _REMOVE)
FIXED_EPOCHS = Fact("the sweep varies `epochs`", "remove `epochs` from the sweep, or this option")
ONE_SLIDE = Fact("it is for one slide on this machine", "run the slides one at a time")
FORMATTED_FILES = Fact("`-` writes the formatted text to standard output", _REMOVE)
ANNOTATED_TRUTH = Fact("all masks are black and white, and have no classes", _REMOVE)
