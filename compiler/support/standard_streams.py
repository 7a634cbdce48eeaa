"""Standard output and standard error that outlive their readers."""

import io
import os
import sys
from typing import Any, TextIO


class _Descriptor(io.FileIO):
    """A descriptor; what is written after its reader has left, as `head` does, goes nowhere."""

    def write(self, data: Any) -> int:
        """Write bytes; return how many."""
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)


def prepare() -> None:
    """Have writing to both streams end no command: for want of a reader, or of a character."""
    sys.stdout = _make_lasting(sys.stdout)
    sys.stderr = _make_lasting(sys.stderr)


def _make_lasting(stream: TextIO) -> TextIO:
    # None where the descriptor is closed; what tests put in its place is no file.
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    buffered = io.BufferedWriter(_Descriptor(stream.fileno(), "w", closefd=False))
    # File names need not be text, and a terminal need not be UTF-8.
    return io.TextIOWrapper(
        buffered,
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
