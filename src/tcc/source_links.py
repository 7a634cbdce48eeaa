"""Check the symbolic links of a checkout, so that a missing one gives a message and no traceback.

The folders of the package are at the top level of a checkout, and links in `src/tcc` combine them
into one package. Git with `core.symlinks=false` and some archives write small text files instead of
links, or omit them. A source distribution and an installed package contain the folders themselves.

The build (`setup.py`), the tests and the Makefile run this file; `import tcc` imports it.
"""

import sys
from pathlib import Path

FOLDERS = ("backends", "compiler", "spec", "zoo")


def find_problem(package: Path) -> str:
    """Return what is wrong with the folders of the package and how to fix it; empty if nothing is.

    Args:
        package: The folder `tcc`, in `src` of a checkout or where it is installed.
    """
    missing = [name for name in FOLDERS if not (package / name).is_dir()]
    if not missing:
        return ""
    root = package.parent.parent
    if not (root / "pyproject.toml").is_file():
        return f"the folder {package / missing[0]} is missing: install tcc again"
    absent = [name for name in missing if not (root / name).is_dir()]
    if absent:
        return f"the folder {root / absent[0]} is missing: unpack the archive or clone again"
    kind = "a file" if (package / missing[0]).is_file() else "missing"
    targets = " ".join(f"../../{name}" for name in FOLDERS)
    return (
        f"src/tcc/{missing[0]} is {kind} but must be a link to ../../{missing[0]}: run "
        f"`ln -sf {targets} src/tcc` in {root}; in a git checkout, run `git config "
        "core.symlinks true` first"
    )


PROBLEM = find_problem(Path(__file__).resolve().parent)
if PROBLEM and __name__ == "__main__":
    sys.exit(PROBLEM)
if PROBLEM:
    raise ImportError(PROBLEM)
