"""Regenerate every derived file: `make generate`.

    python tools/generate.py [--check]

Each `make_*.py` in this folder is a generator: it writes files of the repository. With `--check` it
writes nothing and fails if a file is out of date. To add a generator, add such a file.
"""

import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
EXCLUDED = {"make_environment.py"}
"""Tools with the name of a generator that write no file of the repository."""


def list_generators() -> list[Path]:
    """Return every generator, in order."""
    return sorted(path for path in TOOLS.glob("make_*.py") if path.name not in EXCLUDED)


def main() -> int:
    """Run every generator, or with `--check` compare its files; return the number of failures."""
    options = sys.argv[1:]
    exit_codes = [subprocess.call([sys.executable, path, *options]) for path in list_generators()]
    return sum(code != 0 for code in exit_codes)


if __name__ == "__main__":
    sys.exit(main())
