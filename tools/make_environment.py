"""Create a virtual environment, or report what is missing: make_environment.py FOLDER.

This file must also run on Pythons older than the project requires, to report that instead of a
syntax error.
"""

import subprocess
import sys

OLDEST = (3, 11)


def main(folder: str) -> str:
    """Create the environment; return an error message, or None."""
    if sys.version_info[:2] < OLDEST:
        version = ".".join(map(str, sys.version_info[:2]))
        min_version = ".".join(map(str, OLDEST))
        return (
            f"tcc needs Python {min_version} or newer, but this is {version}; run make "
            f"PYTHON=python{min_version}"
        )
    exit_code = subprocess.call([sys.executable, "-m", "venv", "--clear", folder])
    return (
        "Python's venv module does not work here; on Debian, run apt-get install python3-venv"
        * bool(exit_code)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) or 0)
