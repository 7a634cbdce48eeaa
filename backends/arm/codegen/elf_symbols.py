"""Hides symbols of an object file from its users.

Linkers can hide symbols only in shared libraries. In an ELF object file, a hidden symbol is a local
one, and local symbols must come before all global ones.

The `arm` extra has no tool for that: `zig objcopy` (0.17) has no option for symbols. `llvm-objcopy`
would write different bytes, and a host's `objcopy` may not read ARM objects.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

# SHT_SYMTAB, SHT_RELA, SHT_REL and SHT_GROUP of the ELF specification, then the indices of the
# fields of a section header.
_SHT_SYMTAB, _SHT_RELA, _SHT_REL, _SHT_GROUP = 2, 4, 9, 17
_SH_TYPE, _SH_OFFSET, _SH_SIZE, _SH_LINK, _SH_INFO, _SH_ENTSIZE = 1, 4, 5, 6, 7, 9
"""Indices of a section header's fields."""


@dataclass(frozen=True, slots=True)
class _Format:
    """The layout of a 32-bit or 64-bit file, little-endian.

    `symbol_info` and `symbol_section` are the indices of these fields in a symbol, whose first
    field is its name. A relocation has its info at `relocation_info_offset`, with the symbol's
    number in the bits from `symbol_shift` on.
    """

    header: str
    section: str
    symbol: str
    symbol_info: int
    symbol_section: int
    relocation_info: str
    relocation_info_offset: int
    symbol_shift: int


_FORMATS = {
    1: _Format("<16sHHIIIIIHHHHHH", "<10I", "<IIIBBH", 3, 5, "<I", 4, 8),
    2: _Format("<16sHHIQQQIHHHHHH", "<IIQQQQIIQQ", "<IBBHQQ", 1, 3, "<Q", 8, 32),
}


@dataclass(frozen=True, slots=True)
class _Symbol:
    fields: list[int]
    name: str
    is_global: bool


class _Object:
    """A relocatable object file."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        # EI_CLASS of the ELF header.
        self.form = _FORMATS[content[4]]
        file_header = struct.unpack_from(self.form.header, content)
        # e_shoff, e_shentsize and e_shnum.
        self.header_offsets = [file_header[6] + i * file_header[11] for i in range(file_header[12])]
        self.section_headers = [
            list(struct.unpack_from(self.form.section, content, p)) for p in self.header_offsets
        ]
        self.symbol_table_index = next(
            i for i, s in enumerate(self.section_headers) if s[_SH_TYPE] == _SHT_SYMTAB
        )

    def iterate_symbols(self) -> Iterator[_Symbol]:
        """Yield the symbols in file order."""
        table_header, form = self.section_headers[self.symbol_table_index], self.form
        names = self.section_headers[table_header[_SH_LINK]][_SH_OFFSET]
        for offset in _list_entry_offsets(table_header):
            fields = list(struct.unpack_from(form.symbol, self.content, offset))
            start = names + fields[0]
            name = self.content[start : self.content.index(0, start)].decode()
            # Symbols in section 0 (SHN_UNDEF) are defined in another object.
            is_defined = bool(fields[form.symbol_section])
            yield _Symbol(fields, name, is_defined and bool(fields[form.symbol_info] >> 4))

    def update_symbol_numbers(self, new_numbers: Mapping[int, int]) -> None:
        """Update the symbol numbers in all sections that refer to symbols."""
        for section in self.section_headers:
            if section[_SH_LINK] != self.symbol_table_index:
                continue
            # A group is named by a symbol, whose number is in sh_info.
            if section[_SH_TYPE] == _SHT_GROUP:
                section[_SH_INFO] = new_numbers[section[_SH_INFO]]
            if section[_SH_TYPE] in {_SHT_REL, _SHT_RELA}:
                for offset in _list_entry_offsets(section):
                    self._update_relocation(offset + self.form.relocation_info_offset, new_numbers)
        for header_offset, section in zip(self.header_offsets, self.section_headers, strict=True):
            struct.pack_into(self.form.section, self.content, header_offset, *section)

    def _update_relocation(self, offset: int, new_numbers: Mapping[int, int]) -> None:
        (relocation_info,) = struct.unpack_from(self.form.relocation_info, self.content, offset)
        kind = relocation_info & (1 << self.form.symbol_shift) - 1
        new_number = new_numbers[relocation_info >> self.form.symbol_shift]
        struct.pack_into(
            self.form.relocation_info,
            self.content,
            offset,
            new_number << self.form.symbol_shift | kind,
        )


def _list_entry_offsets(section: list[int]) -> range:
    return range(section[_SH_OFFSET], section[_SH_OFFSET] + section[_SH_SIZE], section[_SH_ENTSIZE])


def list_global_symbols(content: bytes) -> list[str]:
    """Return the names of the global symbols that an object file defines, in file order."""
    return [symbol.name for symbol in _Object(content).iterate_symbols() if symbol.is_global]


def keep_global_symbols(content: bytes, names: Iterable[str]) -> bytes:
    """Return a relocatable object that defines only these names as global symbols.

    Undefined symbols stay, and so does every offset in the file.
    """
    object_file, kept_names = _Object(content), set(names)
    form = object_file.form
    numbered_symbols = list(enumerate(object_file.iterate_symbols()))
    for _, symbol in numbered_symbols:
        if symbol.is_global and symbol.name not in kept_names:
            symbol.fields[form.symbol_info] &= 15  # clear the binding, above the type: local
    # ELF wants local symbols first; `info` of the section counts them. The order is kept otherwise.
    ordered = sorted(
        numbered_symbols,
        key=lambda numbered_symbol: numbered_symbol[1].fields[form.symbol_info] >> 4 > 0,
    )
    table_header = object_file.section_headers[object_file.symbol_table_index]
    for offset, (_, symbol) in zip(_list_entry_offsets(table_header), ordered, strict=True):
        struct.pack_into(form.symbol, object_file.content, offset, *symbol.fields)
    table_header[_SH_INFO] = sum(not symbol.fields[form.symbol_info] >> 4 for _, symbol in ordered)
    object_file.update_symbol_numbers({old: new for new, (old, _) in enumerate(ordered)})
    return bytes(object_file.content)
