"""The printed graph of every shipped spec, as written and as devices run it, is the golden one."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_printed_graphs_are_the_golden_ones() -> None:
    tool = ROOT / "tools" / "make_goldens.py"
    done = subprocess.run(
        [sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
