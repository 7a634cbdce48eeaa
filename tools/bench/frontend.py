"""Time the front end on a spec of many layers, relative to reading its YAML text.

    python tools/bench/frontend.py [LAYERS]

Prints JSON: medians in seconds of CPU time, and the ratio of compiling a spec (text, checks,
expansion, graph) to loading the same text into plain data with ruamel.yaml.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML

from tcc.compiler.frontend.spec import load

HEAD = "tcc: 1\nname: bench\ninput: {image: {shape: [3, 32, 32]}}\noutput: {y: {}}\ngraph:\n"
LAYER = "  - conv: {filters: 16, kernel: 3, padding: 1}\n  - batch_norm\n  - relu\n"
RUNS = 7


def measure_median_seconds(work: Callable[[], object]) -> float:
    """Return the median CPU time of several runs in seconds."""
    times = []
    for _ in range(RUNS):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return statistics.median(times)


def main() -> None:
    """Run the benchmark and print the result."""
    layers = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.yaml"
        path.write_text(HEAD + LAYER * (layers // 3) + "  - relu\n" * (layers % 3))
        tcc_seconds = measure_median_seconds(lambda: load(path))
        text = path.read_text()
        ruamel_seconds = measure_median_seconds(lambda: YAML(typ="safe", pure=True).load(text))
    print(
        json.dumps(
            {
                "layers": layers,
                "tcc_s": tcc_seconds,
                "ruamel_s": ruamel_seconds,
                "ratio": tcc_seconds / ruamel_seconds,
            }
        )
    )


if __name__ == "__main__":
    main()
