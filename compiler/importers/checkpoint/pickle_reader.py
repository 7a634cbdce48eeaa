"""Read pickles safely: calls are recorded by name and never run.

A pickle is a program for a stack machine, and it can call any function. Here its instructions
build plain values, and a call becomes a `ConstructedObject` with the function's name and the
arguments. Nothing is hashed, compared or printed, so recursive or repeatedly nested values cost
no more than their instructions. Instructions:
https://github.com/python/cpython/blob/3.11/Lib/pickletools.py

`torch.load(weights_only=True)` is no alternative. It needs PyTorch, which is optional, and it
rejects files with any class that it does not list, such as those of training programs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pickletools import genops
from typing import Any

from tcc.compiler.support.memory_limit import disable_collection

MAX_INSTRUCTIONS = 3_000_000
"""Maximum number of instructions: a checkpoint with 50,000 tensors needs 2 million."""


class PickleError(ValueError):
    """The file is not a pickle, or the pickle exceeds a limit."""


@dataclass(frozen=True, slots=True)
class GlobalName:
    """A class or function by its name."""

    module: str
    name: str

    def __str__(self) -> str:
        """The dotted name, as in Python source."""
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class ConstructedObject:
    """The result of a call that was not run; state, items and elements are added later."""

    callee: object
    args: object = ()
    state: object = None
    items: list[tuple[object, object]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class PersistentReference:
    """A reference to data outside the pickle."""

    reference: object


DICT = GlobalName("builtins", "dict")
_MAPPINGS = (
    DICT,
    GlobalName("collections", "OrderedDict"),
    GlobalName("collections", "defaultdict"),
)


def is_mapping(value: object) -> bool:
    """Whether a value represents a dict; its entries are then in `items`."""
    return isinstance(value, ConstructedObject) and value.callee in _MAPPINGS


@dataclass(frozen=True, slots=True)
class Pickle:
    """A pickle's value, the classes and functions it names, and its external references."""

    root: object
    global_names: frozenset[GlobalName]
    persistent_ids: tuple[object, ...]


def load(file: BytesIO) -> Pickle:
    """Return the pickle at the current position of a file; the file is left at its end.

    Raises:
        PickleError: It is not a pickle, or it has too many instructions.
    """
    machine = _PickleMachine()
    try:
        with disable_collection():
            for code, argument, _ in islice(genops(file), MAX_INSTRUCTIONS + 1):
                _INSTRUCTIONS[code.name](machine, argument)
    except PickleError:
        raise
    except KeyError as error:
        raise PickleError(f"unsupported pickle instruction: {error}") from None
    except (ValueError, IndexError, AttributeError, TypeError, OverflowError) as error:
        raise PickleError(" ".join(str(error).split())[:160]) from None
    if code.name != "STOP" or len(machine.stack) != 1:
        raise PickleError(
            f"its pickle has no end, or has more than {MAX_INSTRUCTIONS:,} instructions"
        )
    return Pickle(machine.stack[0], frozenset(machine.global_names), tuple(machine.persistent_ids))


class _PickleMachine:
    """The stack, the outer stacks that marks saved, and the memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []
        self.memo: dict[int, object] = {}
        self.global_names: set[GlobalName] = set()
        self.persistent_ids: list[object] = []

    def pop_values(self, count: int) -> list[Any]:
        """Pop the last `count` values and return them."""
        if len(self.stack) < count:
            raise PickleError("damaged pickle: the stack is empty")
        popped = self.stack[-count:]
        del self.stack[-count:]
        return popped

    def pop_marked(self) -> list[Any]:
        """Pop the values pushed since the last mark and return them."""
        marked, self.stack = self.stack, self.outer_stacks.pop()
        return marked


_Instruction = Callable[[_PickleMachine, Any], object]


def _push(convert_argument: Callable[[Any], object]) -> _Instruction:
    return lambda machine, argument: machine.stack.append(convert_argument(argument))


def _gather(convert_elements: Callable[[list[Any]], object]) -> _Instruction:
    def run_instruction(machine: _PickleMachine, _: object) -> None:
        gathered = convert_elements(machine.pop_marked())  # also restores the outer stack
        machine.stack.append(gathered)

    return run_instruction


def _mark(machine: _PickleMachine, _: object) -> None:
    machine.outer_stacks.append(machine.stack)
    machine.stack = []


def _pop(machine: _PickleMachine, _: object) -> None:
    # As in CPython: if there is nothing above a mark, the mark itself is popped.
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_marked()


def _store_memo(machine: _PickleMachine, index: int) -> None:
    machine.memo[index] = machine.stack[-1]


def _store_next_memo(machine: _PickleMachine, _: object) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _push_memo(machine: _PickleMachine, index: int) -> None:
    if index not in machine.memo:
        raise PickleError("damaged pickle: it reads a memo entry that was never stored")
    machine.stack.append(machine.memo[index])


def _push_text_global(machine: _PickleMachine, text: str) -> None:
    # `genops` joins the two lines of the instruction with a space.
    module, _, name = text.partition(" ")
    _push_global(machine, module, name)


def _push_stacked_global(machine: _PickleMachine, _: object) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    _push_global(machine, module, name)


def _push_global(machine: _PickleMachine, module: object, name: object) -> None:
    if not (isinstance(module, str) and isinstance(name, str)):
        raise PickleError("damaged pickle: a function's name is not text")
    # The Python 2 name of the module.
    global_name = GlobalName("builtins" if module == "__builtin__" else module, name)
    machine.global_names.add(global_name)
    machine.stack.append(global_name)


def _call(machine: _PickleMachine, _: object) -> None:
    args, callee = machine.stack.pop(), machine.stack.pop()
    constructed = ConstructedObject(callee, args)
    match args:
        # Python 2 pickles an OrderedDict as one argument, a list of pairs.
        case ([*pairs],) if is_mapping(constructed):
            constructed.items.extend(pair for p in pairs if len(pair := tuple(p)) == 2)
    machine.stack.append(constructed)


def _call_with_keywords(machine: _PickleMachine, _: object) -> None:
    machine.stack.pop()
    _call(machine, None)


def _build_old_instance(machine: _PickleMachine, text: str) -> None:
    args = tuple(machine.pop_marked())
    _push_text_global(machine, text)
    machine.stack.append(ConstructedObject(machine.stack.pop(), args))


def _build_old_object(machine: _PickleMachine, _: object) -> None:
    callee, *args = machine.pop_marked()
    machine.stack.append(ConstructedObject(callee, tuple(args)))


def _set_state(machine: _PickleMachine, _: object) -> None:
    state = machine.stack.pop()
    constructed = machine.stack[-1]
    if isinstance(constructed, ConstructedObject):
        constructed.state = state


def _extend(machine: _PickleMachine, elements: list[Any]) -> None:
    match machine.stack[-1]:
        case list() as sequence:
            sequence.extend(elements)
        case ConstructedObject():  # of a subclass of list
            pass
        case _:
            raise PickleError("damaged pickle: it appends to a value that is not a list")


def _set_pairs(machine: _PickleMachine, flat: list[Any]) -> None:
    mapping = machine.stack[-1]
    if not isinstance(mapping, ConstructedObject) or len(flat) % 2:
        raise PickleError("damaged pickle: it sets items of a value that is not a dict")
    mapping.items.extend(zip(flat[::2], flat[1::2], strict=True))


def _build_dict(flat: list[Any]) -> ConstructedObject:
    return ConstructedObject(DICT, items=list(zip(flat[::2], flat[1::2], strict=True)))


def _push_persistent(machine: _PickleMachine, _: object) -> None:
    machine.persistent_ids.append(machine.stack.pop())
    machine.stack.append(PersistentReference(machine.persistent_ids[-1]))


_INSTRUCTIONS: Mapping[str, _Instruction] = {
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
    # Sets become lists and tuples: nothing is hashed here, so any value may be an element.
    "EMPTY_SET": _push(lambda _: []),
    "EMPTY_DICT": _push(lambda _: ConstructedObject(DICT)),
    "LIST": _gather(list),
    "TUPLE": _gather(tuple),
    "FROZENSET": _gather(tuple),
    "DICT": _gather(_build_dict),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.pop_values(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.pop_values(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.pop_values(3))),
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.pop_marked(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _store_memo),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _push_memo),
    "MEMOIZE": _store_next_memo,
    "GLOBAL": _push_text_global,
    "STACK_GLOBAL": _push_stacked_global,
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _call),
    "NEWOBJ_EX": _call_with_keywords,
    "INST": _build_old_instance,
    "OBJ": _build_old_object,
    "BUILD": _set_state,
    "APPEND": lambda machine, _: _extend(machine, [machine.stack.pop()]),
    "APPENDS": lambda machine, _: _extend(machine, machine.pop_marked()),
    "ADDITEMS": lambda machine, _: _extend(machine, machine.pop_marked()),
    "SETITEM": lambda machine, _: _set_pairs(machine, machine.pop_values(2)),
    "SETITEMS": lambda machine, _: _set_pairs(machine, machine.pop_marked()),
    "BINPERSID": _push_persistent,
}
"""Each instruction's function; out-of-band buffers and extension codes are not supported."""
