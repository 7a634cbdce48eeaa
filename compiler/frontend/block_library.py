"""Reading a spec and the block libraries that it uses."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from tcc.compiler.frontend.argument_values import OPTIONS
from tcc.compiler.frontend.parameter_declarations import read_parameters
from tcc.compiler.frontend.yaml import Mapping as MappingTree
from tcc.compiler.frontend.yaml import Scalar, Sequence, Tree, parse, to_plain
from tcc.compiler.ir.argument_declarations import Parameter
from tcc.compiler.ops import JOINS, OPS, Op
from tcc.compiler.support import regular_files
from tcc.compiler.support.diagnostics import Diagnostic, Span, UserError, fail, make_file_span

MAX_FILES = 64
"""Most files that one spec may use."""
# Next to `compiler` in a checkout and in a wheel (docs/decisions/0003-linked-packages.md).
SHIPPED = Path(__file__).resolve().parents[2] / "spec"
"""The folder of the specs and libraries that ship with tcc."""
CONTROL_KEYWORDS = ("repeat", "each", "when", "seq", "let", "side")
OPS_BY_NAME: Mapping[str, type[Op]] = {op.keyword: op for op in OPS}
JOIN_NAMES = frozenset(op.keyword for op in JOINS)
RESERVED_NAMES = frozenset((*CONTROL_KEYWORDS, *OPTIONS, *(op.keyword for op in OPS)))


@dataclass(frozen=True, slots=True)
class Block:
    """A block: its parameters, the names of its inputs, its requirements and its steps."""

    name: str
    params: tuple[Parameter, ...]
    inputs: tuple[str, ...]
    require: tuple[MappingTree, ...]
    body: Sequence
    at: Span


@dataclass(frozen=True, slots=True)
class LibraryUse:
    """An entry in `use:` of a file, and the display name of the library."""

    user: str
    entry: Scalar
    file: str


@dataclass
class Library:
    """The tree of the main file, all files by display name, and all blocks."""

    root: MappingTree
    files: dict[str, MappingTree]
    texts: dict[str, bytes]
    uses: list[LibraryUse] = field(default_factory=list)
    blocks: Mapping[str, Block] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the contents of all files, in reading order."""
        total = hashlib.sha256()
        for text in self.texts.values():
            total.update(hashlib.sha256(text).digest())
        return total.hexdigest()


def read_library(path: Path) -> Library:
    """Read a spec and its libraries. `collect_blocks` adds the blocks after the structure check.

    Raises:
        UserError: A file is missing, unreadable, outside the folder of the spec or in a cycle, or
            its text is not well formed.
    """
    reader = _Reader(path.parent.resolve())
    root = reader.read_file(path, str(path), make_file_span(str(path)))
    return Library(root, reader.files, reader.texts, reader.uses)


@lru_cache(maxsize=MAX_FILES)
def _parse_text(text: bytes, display_name: str) -> Tree:
    """Return the tree of a text; cached for the tests of a spec and for other specs."""
    return parse(text, display_name)


class _Reader:
    """Follows `use:` depth first and reads each file once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, MappingTree] = {}
        self.texts: dict[str, bytes] = {}
        self.uses: list[LibraryUse] = []
        self.display_names: dict[Path, str] = {}

    def read_file(
        self, path: Path, display_name: str, at: Span, open_files: tuple[Path, ...] = ()
    ) -> MappingTree:
        # The limit is on files, not on depth: a hundred files in one `use:` take as long.
        if len(self.files) >= MAX_FILES:
            raise fail(
                "E0113",
                f"this spec and its libraries are more than {MAX_FILES} files",
                at,
                help="put the blocks into fewer files",
            )
        text = _read_bytes(path, display_name, at)
        tree = _parse_text(text, display_name)
        if not isinstance(tree, MappingTree):
            raise fail(
                "E0203", "a spec is a mapping of keys such as `tcc:` and `graph:`", tree.span
            )
        self.texts[display_name] = text
        self.files[display_name] = tree
        opened = (*open_files, path.resolve())
        for entry in _iterate_uses(tree):
            self.uses.append(LibraryUse(display_name, entry, self.follow_use(entry, path, opened)))
        return tree

    def follow_use(self, entry: Scalar, user: Path, opened: tuple[Path, ...]) -> str:
        """Read a library unless it was read before; return its display name."""
        target, display_name = self.find_library(entry, user)
        resolved = target.resolve()
        if resolved in opened:
            cycle = " -> ".join(p.name for p in (*opened[opened.index(resolved) :], resolved))
            raise fail(
                "E0112",
                "block libraries use each other in a cycle",
                entry.span,
                label=cycle,
                help="move the shared blocks into a library of their own",
            )
        # Keyed by the resolved file: different paths and links to one file are one library.
        if resolved not in self.display_names:
            self.display_names[resolved] = display_name
            self.read_file(target, display_name, entry.span, opened)
        return self.display_names[resolved]

    def find_library(self, entry: Scalar, user: Path) -> tuple[Path, str]:
        """Find a library next to the file that uses it, or among those that ship with tcc."""
        name = str(entry.value)
        sibling_path = user.parent / name
        # A library in the user's folder hides one of the same name that ships with tcc.
        for base, root in ((sibling_path, self.root), (SHIPPED / name, SHIPPED)):
            resolved_path = _resolve_path(base, entry)
            # An untrusted spec must not bring the contents of other files into an error message.
            inside = resolved_path.is_relative_to(root) or resolved_path.is_relative_to(SHIPPED)
            if not inside or Path(name).is_absolute():
                raise fail(
                    "E0111",
                    "a library must be in the folder of the spec",
                    entry.span,
                    label=f"{name} is outside it",
                    help=f"copy the library into {self.root.name}/, or use one that ships with tcc",
                )
            if base.is_file():
                return base, str(base) if base is sibling_path else f"tcc:{name}"
        raise fail(
            "E0110",
            f"there is no block library {name}",
            entry.span,
            help=(
                f"looked in {user.parent}/ and tcc's libraries: "
                f"{', '.join(list_shipped_libraries())}"
            ),
        )


def _resolve_path(path: Path, entry: Scalar) -> Path:
    try:
        resolved_path = path.resolve()
        resolved_path.is_file()  # refuses names that are too long
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "its links are circular"
        raise fail("E0114", f"cannot read a file in `use`: {reason}", entry.span) from None
    return resolved_path


def list_shipped_libraries() -> tuple[str, ...]:
    """Return the names of the block libraries that ship with tcc."""
    return tuple(sorted(f"blocks/{p.name}" for p in SHIPPED.glob("blocks/*.yaml")))


def _read_bytes(path: Path, display_name: str, at: Span) -> bytes:
    try:
        if path.is_dir():
            raise fail("E0114", f"{display_name} is a folder, not a spec", at)
        with regular_files.open_file(path) as stream:
            # More than `max_bytes`, so that the error can report the excess, but not all of a large
            # file.
            return stream.read(8 * 1024 * 1024)
    except FileNotFoundError:
        raise fail("E0110", f"there is no file {display_name}", at) from None
    except OSError as error:
        raise fail("E0114", f"cannot read {display_name}: {error.strerror}", at) from None


def _iterate_uses(tree: MappingTree) -> Iterator[Scalar]:
    uses = tree.get("use")
    if isinstance(uses, Sequence):
        yield from (e for e in uses.items if isinstance(e, Scalar) and isinstance(e.value, str))


def collect_blocks(library: Library) -> None:
    """Fill `library.blocks` from all files.

    Raises:
        UserError: The name of a block is already used, or its parameters are invalid.
    """
    blocks_by_name: dict[str, Block] = {}
    problems: list[Diagnostic] = []
    for tree in library.files.values():
        blocks = tree.get("blocks")
        for key, body in blocks.items if isinstance(blocks, MappingTree) else ():
            try:
                _add_block(blocks_by_name, key, body)
            except UserError as error:
                problems += error.diagnostics
    library.blocks = blocks_by_name
    if problems:
        raise UserError(tuple(problems))


def _add_block(blocks_by_name: dict[str, Block], key: Scalar, body: Tree) -> None:
    name = str(key.value)
    # A block called `conv` would change the meaning of all other files.
    if name in RESERVED_NAMES:
        raise fail(
            "E0207",
            f"`{name}` is a keyword and cannot name a block",
            key.span,
            help="rename the block",
        )
    if name in blocks_by_name:
        raise fail(
            "E0208",
            f"two blocks are called `{name}`",
            key.span,
            label=f"the first is at {blocks_by_name[name].at}",
            help="rename one of them",
        )
    assert isinstance(body, MappingTree)
    steps, inputs, require = body.get("body"), body.get("inputs"), body.get("require")
    assert isinstance(steps, Sequence)
    names = inputs.items if isinstance(inputs, Sequence) else ()
    for index, input_name in enumerate(names):
        if any(to_plain(input_name) == to_plain(n) for n in names[:index]):
            message = f"two inputs are called `{to_plain(input_name)}`"
            raise fail("E0210", message, input_name.span, help="rename one of them")
    blocks_by_name[name] = Block(
        name,
        read_parameters(body.get("params")),
        tuple(str(to_plain(n)) for n in names),
        tuple(r for r in require.items if isinstance(r, MappingTree))
        if isinstance(require, Sequence)
        else (),
        steps,
        key.span,
    )
