"""Write every file that is made from other ones: `make generate`.

    python tools/generate.py [--check]

Each `make_*.py` beside this file is a generator: it writes files that lie in the repository, and
with `--check` writes nothing and fails when one is out of date. To add one: its file.
"""

import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
EXCLUDED = {"make_environment.py"}
"""Tools of the name of a generator that make nothing for the repository."""


def list_generators() -> list[Path]:
    """Return every generator, in order."""
    return sorted(path for path in TOOLS.glob("make_*.py") if path.name not in EXCLUDED)


def main() -> int:
    """Run every generator; return how many fail, or say that their files are out of date."""
    options = sys.argv[1:]
    exit_codes = [subprocess.call([sys.executable, path, *options]) for path in list_generators()]
    return sum(code != 0 for code in exit_codes)


if __name__ == "__main__":
    sys.exit(main())
