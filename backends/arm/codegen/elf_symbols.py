"""Hiding an object file's own symbols from whoever links it.

Linkers have a word for this in shared libraries alone; in an ELF object file a symbol is hidden by
making it local, for which it has to stand before all that are global.

The `arm` extra brings no tool for that: `zig objcopy` (0.17) has no option for symbols. An
`llvm-objcopy` would write other bytes, and a host's own `objcopy` may not read ARM objects.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

# SHT_SYMTAB, SHT_RELA, SHT_REL and SHT_GROUP of the ELF specification; then the order in which a
# section header has its numbers.
_SYMBOLS, _RELA, _REL, _GROUP = 2, 4, 9, 17
_TYPE, _OFFSET, _SIZE, _LINK, _INFO, _ENTRY = 1, 4, 5, 6, 7, 9
"""A section's numbers."""


@dataclass(frozen=True, slots=True)
class _Format:
    """How a file of 32 or of 64 bits is written, little-endian.

    `symbol_info` and `symbol_section` are the indices of these numbers of a symbol, of which
    the name is the first; a relocation has its own at `info_at`, with the symbol above `shift`.
    """

    header: str
    section: str
    symbol: str
    symbol_info: int
    symbol_section: int
    info: str
    info_at: int
    shift: int


_FORMATS = {
    1: _Format("<16sHHIIIIIHHHHHH", "<10I", "<IIIBBH", 3, 5, "<I", 4, 8),
    2: _Format("<16sHHIQQQIHHHHHH", "<IIQQQQIIQQ", "<IBBHQQ", 1, 3, "<Q", 8, 32),
}


@dataclass(frozen=True, slots=True)
class _Symbol:
    numbers: list[int]
    name: str
    shown: bool


class _Object:
    """A relocatable object file."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        # EI_CLASS of the ELF header.
        self.form = _FORMATS[data[4]]
        head = struct.unpack_from(self.form.header, data)
        # e_shoff, e_shentsize and e_shnum.
        self.places = [head[6] + i * head[11] for i in range(head[12])]
        self.sections = [list(struct.unpack_from(self.form.section, data, p)) for p in self.places]
        self.table = next(i for i, s in enumerate(self.sections) if s[_TYPE] == _SYMBOLS)

    def symbols(self) -> Iterator[_Symbol]:
        """Yield the symbols in their order."""
        about, form = self.sections[self.table], self.form
        names = self.sections[about[_LINK]][_OFFSET]
        for at in _entries(about):
            numbers = list(struct.unpack_from(form.symbol, self.data, at))
            start = names + numbers[0]
            name = self.data[start : self.data.index(0, start)].decode()
            # Section 0 (SHN_UNDEF) is where symbols are that something else makes.
            own = bool(numbers[form.symbol_section])
            yield _Symbol(numbers, name, own and bool(numbers[form.symbol_info] >> 4))

    def renumber(self, moved: Mapping[int, int]) -> None:
        """Follow the symbols' new numbers where sections name them."""
        for section in self.sections:
            if section[_LINK] != self.table:
                continue
            # A group is called after a symbol, whose number is its sh_info.
            if section[_TYPE] == _GROUP:
                section[_INFO] = moved[section[_INFO]]
            if section[_TYPE] in {_REL, _RELA}:
                for at in _entries(section):
                    self._relocate(at + self.form.info_at, moved)
        for place, section in zip(self.places, self.sections, strict=True):
            struct.pack_into(self.form.section, self.data, place, *section)

    def _relocate(self, at: int, moved: Mapping[int, int]) -> None:
        (info,) = struct.unpack_from(self.form.info, self.data, at)
        kind = info & (1 << self.form.shift) - 1
        new = moved[info >> self.form.shift]
        struct.pack_into(self.form.info, self.data, at, new << self.form.shift | kind)


def _entries(section: list[int]) -> range:
    return range(section[_OFFSET], section[_OFFSET] + section[_SIZE], section[_ENTRY])


def shown(data: bytes) -> list[str]:
    """Return the names that an object file shows, in its order."""
    return [symbol.name for symbol in _Object(data).symbols() if symbol.shown]


def only_global(data: bytes, names: Iterable[str]) -> bytes:
    """Return a relocatable object that shows nothing of its own but these names.

    What it needs from elsewhere stays as it is, and so does every offset in the file.
    """
    made, keep = _Object(data), set(names)
    form = made.form
    listed = list(enumerate(made.symbols()))
    for _, symbol in listed:
        if symbol.shown and symbol.name not in keep:
            symbol.numbers[form.symbol_info] &= 15  # its binding, above its type: local
    # The section's `info` counts the local ones, which ELF wants first; all keep their order else.
    ordered = sorted(listed, key=lambda one: one[1].numbers[form.symbol_info] >> 4 > 0)
    about = made.sections[made.table]
    for at, (_, symbol) in zip(_entries(about), ordered, strict=True):
        struct.pack_into(form.symbol, made.data, at, *symbol.numbers)
    about[_INFO] = sum(not symbol.numbers[form.symbol_info] >> 4 for _, symbol in ordered)
    made.renumber({old: new for new, (old, _) in enumerate(ordered)})
    return bytes(made.data)
