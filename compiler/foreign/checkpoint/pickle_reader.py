"""Pickles without what makes them dangerous: what they would call is named, never looked up.

A pickle is a program for a machine with a stack, whose calls can be any function at all. Here its
instructions build plain values, and a call becomes a `ConstructedObject` that says what would be
called with which arguments. Nothing is hashed, compared or printed on the way, so that a value
that holds itself, or one twice in one twice in one, costs no more than its instructions.
https://github.com/python/cpython/blob/3.11/Lib/pickletools.py has the instructions.

`torch.load(weights_only=True)` needs PyTorch, which is optional, and refuses a file for any class
that it does not list, such as those of training programs; their tensors are wanted all the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pickletools import genops
from typing import Any

from tcc.compiler.support.memory_limit import no_collection

STEPS = 3_000_000
"""Most instructions of a pickle: a checkpoint of 50,000 tensors takes 2 million."""


class PickleError(ValueError):
    """No pickle, or one that asks for too much."""


@dataclass(frozen=True, slots=True)
class GlobalName:
    """A class or function by its name."""

    module: str
    name: str

    def __str__(self) -> str:
        """As Python writes it."""
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class ConstructedObject:
    """What a call would have made: its state is set, and items and elements are added, later."""

    what: object
    args: object = ()
    state: object = None
    items: list[tuple[object, object]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class PersistentReference:
    """What lies outside the pickle, by what names it there."""

    reference: object


DICT = GlobalName("builtins", "dict")
_MAPPINGS = (
    DICT,
    GlobalName("collections", "OrderedDict"),
    GlobalName("collections", "defaultdict"),
)


def is_mapping(value: object) -> bool:
    """Whether a value would be a dict, whose items are then its `items`."""
    return isinstance(value, ConstructedObject) and value.what in _MAPPINGS


@dataclass(frozen=True, slots=True)
class Pickle:
    """A pickle's value, the classes and functions that it names, and what it refers to outside."""

    value: object
    named: frozenset[GlobalName]
    outside: tuple[object, ...]


def load(file: BytesIO) -> Pickle:
    """Return the pickle at a file's place; the file is left where it ends.

    Raises:
        PickleError: It is no pickle, or goes on for too long.
    """
    machine = _Machine()
    try:
        with no_collection():
            for code, argument, _ in islice(genops(file), STEPS + 1):
                _DO[code.name](machine, argument)
    except PickleError:
        raise
    except KeyError as error:
        raise PickleError(f"it uses what checkpoints do not: {error}") from None
    except (ValueError, IndexError, AttributeError, TypeError, OverflowError) as error:
        raise PickleError(" ".join(str(error).split())[:160]) from None
    if code.name != "STOP" or len(machine.stack) != 1:
        raise PickleError(f"its pickle has no end, or takes more than {STEPS:,} instructions")
    return Pickle(machine.stack[0], frozenset(machine.named), tuple(machine.outside))


class _Machine:
    """The stack, those that marks have put aside, and what the memo remembers."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.aside: list[list[Any]] = []
        self.memo: dict[int, object] = {}
        self.named: set[GlobalName] = set()
        self.outside: list[object] = []

    def popped(self, count: int) -> list[Any]:
        """Return that many values that were pushed last, and take them off."""
        if len(self.stack) < count:
            raise PickleError("its stack is empty")
        found = self.stack[-count:]
        del self.stack[-count:]
        return found

    def marked(self) -> list[Any]:
        """Return what was pushed since the last mark, and take it off."""
        found, self.stack = self.stack, self.aside.pop()
        return found


_Do = Callable[[_Machine, Any], object]


def _push(value: Callable[[Any], object]) -> _Do:
    return lambda machine, argument: machine.stack.append(value(argument))


def _gather(value: Callable[[list[Any]], object]) -> _Do:
    def do(machine: _Machine, _: object) -> None:
        found = value(machine.marked())  # which brings back the stack below
        machine.stack.append(found)

    return do


def _mark(machine: _Machine, _: object) -> None:
    machine.aside.append(machine.stack)
    machine.stack = []


def _pop(machine: _Machine, _: object) -> None:
    # As in CPython: where nothing stands above a mark, the mark itself is taken.
    if machine.stack:
        machine.stack.pop()
    else:
        machine.marked()


def _remember(machine: _Machine, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


def _memoize(machine: _Machine, _: object) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _recall(machine: _Machine, index: int) -> None:
    if index not in machine.memo:
        raise PickleError("it recalls what it never stored")
    machine.stack.append(machine.memo[index])


def _name(machine: _Machine, text: str) -> None:
    # `genops` joins the two lines of the instruction with a space.
    module, _, name = text.partition(" ")
    _named(machine, module, name)


def _stacked_name(machine: _Machine, _: object) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    _named(machine, module, name)


def _named(machine: _Machine, module: object, name: object) -> None:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise PickleError("it names a function by what is no name")
    # What Python 2 called it.
    found = GlobalName("builtins" if module == "__builtin__" else module, name)
    machine.named.add(found)
    machine.stack.append(found)


def _call(machine: _Machine, _: object) -> None:
    args, what = machine.stack.pop(), machine.stack.pop()
    made = ConstructedObject(what, args)
    match args:
        # As Python 2 pickles an OrderedDict: one argument, a list of pairs.
        case ([*pairs],) if is_mapping(made):
            made.items.extend(pair for p in pairs if len(pair := tuple(p)) == 2)
    machine.stack.append(made)


def _call_with_words(machine: _Machine, _: object) -> None:
    machine.stack.pop()
    _call(machine, None)


def _old_instance(machine: _Machine, text: str) -> None:
    args = tuple(machine.marked())
    _name(machine, text)
    machine.stack.append(ConstructedObject(machine.stack.pop(), args))


def _old_object(machine: _Machine, _: object) -> None:
    what, *args = machine.marked()
    machine.stack.append(ConstructedObject(what, tuple(args)))


def _build(machine: _Machine, _: object) -> None:
    state = machine.stack.pop()
    made = machine.stack[-1]
    if isinstance(made, ConstructedObject):
        made.state = state


def _extend(machine: _Machine, elements: list[Any]) -> None:
    match machine.stack[-1]:
        case list() as value:
            value.extend(elements)
        case ConstructedObject():  # of a class that is a list besides
            pass
        case _:
            raise PickleError("it adds elements to what is no list")


def _set(machine: _Machine, flat: list[Any]) -> None:
    value = machine.stack[-1]
    if not isinstance(value, ConstructedObject) or len(flat) % 2:
        raise PickleError("it adds items to what is no dict")
    value.items.extend(zip(flat[::2], flat[1::2], strict=True))


def _dict(flat: list[Any]) -> ConstructedObject:
    return ConstructedObject(DICT, items=list(zip(flat[::2], flat[1::2], strict=True)))


def _outside(machine: _Machine, _: object) -> None:
    machine.outside.append(machine.stack.pop())
    machine.stack.append(PersistentReference(machine.outside[-1]))


_DO: Mapping[str, _Do] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda *_: None),
    **dict.fromkeys(
        (
            *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
            *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "BINUNICODE8"),
            *("SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
        ),
        _push(lambda argument: argument),
    ),
    "NONE": _push(lambda _: None),
    "NEWTRUE": _push(lambda _: True),
    "NEWFALSE": _push(lambda _: False),
    "EMPTY_TUPLE": _push(lambda _: ()),
    "EMPTY_LIST": _push(lambda _: []),
    # Sets are lists and tuples, since nothing is hashed: whatever could be an element may be here.
    "EMPTY_SET": _push(lambda _: []),
    "EMPTY_DICT": _push(lambda _: ConstructedObject(DICT)),
    "LIST": _gather(list),
    "TUPLE": _gather(tuple),
    "FROZENSET": _gather(tuple),
    "DICT": _gather(_dict),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.popped(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.popped(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.popped(3))),
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.marked(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _recall),
    "MEMOIZE": _memoize,
    "GLOBAL": _name,
    "STACK_GLOBAL": _stacked_name,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _call),
    "NEWOBJ_EX": _call_with_words,
    "INST": _old_instance,
    "OBJ": _old_object,
    "BUILD": _build,
    "APPEND": lambda machine, _: _extend(machine, [machine.stack.pop()]),
    "APPENDS": lambda machine, _: _extend(machine, machine.marked()),
    "ADDITEMS": lambda machine, _: _extend(machine, machine.marked()),
    "SETITEM": lambda machine, _: _set(machine, machine.popped(2)),
    "SETITEMS": lambda machine, _: _set(machine, machine.marked()),
    "BINPERSID": _outside,
}
"""What each instruction does; buffers outside the pickle and extension codes are not there."""
