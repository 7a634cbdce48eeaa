"""Write every file that is made from other ones: `make generate`.

    python tools/generate.py [--check]

Each `make_*.py` beside this file is a generator: it writes files that lie in the repository, and
with `--check` writes nothing and fails when one is out of date. To add one: its file.
"""

import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
OTHERS = {"make_environment.py"}
"""Tools of the name of a generator that make nothing for the repository."""


def generators() -> list[Path]:
    """Return every generator, in order."""
    return sorted(path for path in TOOLS.glob("make_*.py") if path.name not in OTHERS)


def main() -> int:
    """Run every generator; return how many fail, or say that their files are out of date."""
    words = sys.argv[1:]
    ended = [subprocess.call([sys.executable, path, *words]) for path in generators()]
    return sum(code != 0 for code in ended)


if __name__ == "__main__":
    sys.exit(main())
