"""Write or check the files of a generator."""

import sys
from collections.abc import Mapping
from pathlib import Path


def write_or_check(text_by_path: Mapping[Path, str]) -> int:
    """Write and report the files that differ from their new text; return the exit code.

    With `--check`, write nothing and fail if a file is out of date.
    """
    stale = [
        path for path, text in text_by_path.items() if not path.exists() or path.read_text() != text
    ]
    check = "--check" in sys.argv
    for path in stale:
        if check:
            print(f"{path.name} is out of date: run tools/{Path(sys.argv[0]).name}")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text_by_path[path])
            print(f"written: {path.name}")
    return int(check and bool(stale))
