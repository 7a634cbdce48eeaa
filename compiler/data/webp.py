"""The size of a WebP image, from its header alone.

Pillow's decoder takes the memory of all pixels, twice, as soon as it opens a file. See the
WebP Container Specification and RFC 6386, section 9.1, and RFC 9649, section 3.4.
"""

FIRST = 12
"""Where the first chunk begins: after `RIFF`, the file's length and `WEBP`."""
BODY = FIRST + 8
"""Where its contents begin: after its name and length."""


def size(data: bytes) -> tuple[int, int]:
    """Return the height and width that a WebP file's header names; zeros where it is cut off."""

    def number(at: int, count: int) -> int:
        return int.from_bytes(data[BODY + at : BODY + at + count], "little")

    match data[FIRST : FIRST + 4]:
        case b"VP8X":  # flags, then both less one, 24 bits each
            return number(7, 3) + 1, number(4, 3) + 1
        case b"VP8L":  # a byte of signature, then both less one, 14 bits each
            both = number(1, 4)
            return (both >> 14 & 0x3FFF) + 1, (both & 0x3FFF) + 1
        case b"VP8 ":  # six bytes of tag and start code; two bits of scale are in each number
            return number(8, 2) & 0x3FFF, number(6, 2) & 0x3FFF
    return 0, 0
