"""What an option needs to have an effect: another option, or a fact about what a command works on.

`option_table` lists the needs of every option of every command, and the interface of Python those
of every argument. An option that is typed and lacks what it needs is refused (E0601). A project
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
        typed: The options that were typed, with their values; their names are keys of the needs.
        needs: What each option needs, by its name.
        spell: Returns an option and its value as the user wrote them.
        locate: Returns the place of such text.
        facts: What is known so far of the work.
    """

    options_by_name: Mapping[str, object]
    typed: Mapping[str, object]
    needs: "Mapping[str, Needs]"
    spell: Callable[[str, object], str]
    locate: Callable[[str], Span]
    facts: "Mapping[Fact, bool]" = field(default_factory=dict)

    def is_set(self, name: str) -> bool:
        """Whether an option has a value that asks for something."""
        return self.options_by_name.get(name) not in (None, False, 0, (), [])

    def check(self) -> None:
        """Refuse the first typed option that has no effect, as far as facts are known.

        Raises:
            UserError: There is one (E0601).
        """
        for name, typed_value in self.typed.items():
            for need in self.needs[name]:
                if obstacle := need.find_obstacle(self):
                    text = self.spell(name, typed_value)
                    message = f"`{text.split()[0]}` has no effect: {obstacle.reason}"
                    raise fail("E0601", message, self.locate(text), help=obstacle.remedy)


class Need(Protocol):
    """A condition under which an option has an effect."""

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return why the condition does not hold; None where it does, or is not yet known."""
        ...


Needs = tuple[Need, ...]
ALWAYS: Needs = ()
"""The needs of an option that has an effect whatever else is typed."""


@dataclass(frozen=True, slots=True)
class RequiresAny:
    """Needs one of some other options."""

    names: tuple[str, ...]

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return an obstacle where none of them is set."""
        if any(map(options.is_set, self.names)):
            return None
        alternatives = " or ".join(f"`{name}`" for name in self.names)
        return Obstacle(f"it needs {alternatives}", f"add {alternatives}, or remove this option")


@dataclass(frozen=True, slots=True)
class ForbidsAll:
    """Needs that some other options are not all set: together they decide what it would decide."""

    names: tuple[str, ...]
    reason: str

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return an obstacle where all of them are set."""
        if not all(map(options.is_set, self.names)):
            return None
        alternatives = " or ".join(f"`{name}`" for name in self.names)
        return Obstacle(self.reason, f"remove this option, or remove {alternatives}")


@dataclass(frozen=True, slots=True)
class Choice:
    """Needs that another option has one of some values."""

    name: str
    choices: tuple[str, ...]
    reason: str

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return an obstacle where it has another value."""
        if str(options.options_by_name.get(self.name)) in self.choices:
            return None
        alternatives = " or ".join(f"`{self.name} {choice}`" for choice in self.choices)
        return Obstacle(self.reason, f"say {alternatives}, or remove this option")


@dataclass(frozen=True, slots=True)
class Fact:
    """Needs a fact that the command finds out: `set_facts` tells whether it holds."""

    reason: str
    remedy: str

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return an obstacle where the fact is known not to hold."""
        return None if options.facts.get(self, True) else Obstacle(self.reason, self.remedy)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Needs one of several conditions; the last one's obstacle is reported."""

    needs: Needs

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return an obstacle where none holds."""
        obstacles = [need.find_obstacle(options) for need in self.needs]
        return obstacles[-1] if all(obstacles) else None


@dataclass(frozen=True, slots=True)
class OfKind:
    """Needs that the command's KIND is one of some kinds."""

    kinds: tuple[str, ...]

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return an obstacle where it is another kind."""
        kind = options.options_by_name["kind"]
        if kind in self.kinds:
            return None
        help = f"remove this option, which is for {', '.join(self.kinds)}"
        return Obstacle(f"`{kind}` does not use it", help)


@dataclass(frozen=True, slots=True)
class ForKind:
    """Some conditions that hold for some kinds alone."""

    kinds: tuple[str, ...]
    needs: Needs

    def find_obstacle(self, options: GivenOptions) -> Obstacle | None:
        """Return the first obstacle, where it is one of the kinds."""
        if options.options_by_name["kind"] not in self.kinds:
            return None
        return next(filter(None, (need.find_obstacle(options) for need in self.needs)), None)


_OPTIONS: ContextVar[GivenOptions | None] = ContextVar("_OPTIONS", default=None)
"""The options of the command that runs; None where Python calls."""


@contextmanager
def check_options(options: GivenOptions) -> Iterator[None]:
    """Refuse options without effect before a command runs, and while it finds out facts.

    Raises:
        UserError: There is one (E0601).
    """
    options.check()
    token = _OPTIONS.set(options)
    try:
        yield
    finally:
        _OPTIONS.reset(token)


def set_facts(facts: Mapping[Fact, bool]) -> None:
    """Refuse typed options that have no effect as these facts are.

    Raises:
        UserError: There is one (E0601).
    """
    options = _OPTIONS.get()
    if options is None:
        return
    updated = replace(options, facts={**options.facts, **facts})
    _OPTIONS.set(updated)
    updated.check()


_REMOVE = "remove this option"

INT8_TARGET = Fact("no target is built in integers", "say `--precision int8`")
FRESH_CALIBRATION = Fact(
    "the scales are those that come with the trained network",
    "give images of your own with `--data`, or remove this option",
)
JUDGED_BUILD = Fact(
    "no images judge this int8 model: its calibration is read from a file",
    "give images with `--data`, or remove this option",
)
READ_IMAGES = Fact("no images are read", "give images with `--data`, or remove this option")
UNNAMED_IMAGES = Fact("the images are named one by one", "remove them, or this option")
PACKAGE_TARGET = Fact("no target is a package for a vendor toolchain", _REMOVE)
RUNNABLE_TARGET = Fact("nothing here runs what is built for these targets", _REMOVE)

SPECS = Fact("it is for specs, and a bundle is named", _REMOVE)
BUNDLES = Fact("it is for bundles, and a spec is named", "name a bundle, or remove this option")
SOME_BUNDLE = Fact("it is for bundles, and no bundle is named", _REMOVE)
SPEC_OR_FITTED = Fact(
    "it is for specs and for what is fitted, and these bundles have nothing fitted", _REMOVE
)
ONE_NETWORK = Fact("it is for one network, and these are several", "name one network")

LAYERED_BUNDLE = Fact(
    "these bundles are packages for a vendor toolchain, which have no layers to compare", _REMOVE
)
TIMED_BUNDLE = Fact(
    "these bundles run in an emulator, which counts one run instead of timing many", _REMOVE
)
BOARD_RUNNER = Fact("these bundles are programs that run on a board by themselves", _REMOVE)

SHARES_USED = Fact("these images come with `train` and `val`", "remove one of the two")
SLIDE_PAGE = Fact("it is for the page of a slide, and no slide is named", _REMOVE)
FIXED_EPOCHS = Fact("the sweep varies `epochs`", "remove `epochs` from the sweep, or this option")
ONE_SLIDE = Fact("it is for one slide that this machine runs", "run the slides one at a time")
FORMATTED_FILES = Fact("`-` writes the formatted text to standard output", _REMOVE)
ANNOTATED_TRUTH = Fact("all masks are black and white, and name no classes", _REMOVE)
