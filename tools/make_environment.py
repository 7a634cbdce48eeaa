"""Make a virtual environment, or say what is missing: make_environment.py FOLDER.

Runs on Pythons older than the project's own, so that these get a message and no syntax error.
"""

import subprocess
import sys

OLDEST = (3, 11)


def main(folder: str) -> str:
    """Make the environment; return why it cannot be made, or nothing."""
    if sys.version_info[:2] < OLDEST:
        version = ".".join(map(str, sys.version_info[:2]))
        min_version = ".".join(map(str, OLDEST))
        return (
            f"tcc needs Python {min_version} or newer, and this is {version}: make "
            f"PYTHON=python{min_version}"
        )
    exit_code = subprocess.call([sys.executable, "-m", "venv", "--clear", folder])
    return "Python's venv does not work here; on Debian: apt-get install python3-venv" * bool(
        exit_code
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) or 0)
