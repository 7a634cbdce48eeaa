"""Open ten thousand changed signed bundles in this process.

    python tools/fuzz/signed_reads.py [--count N] [--seed N]

The cases and their expected answers are those of the front `signatures`. Exits with 1 if a bundle
opens that should be refused, if a valid one is refused, or if an error has no code.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

from case import Case, Outcome
from signatures import SIGNATURES, Request
from signed_templates import build_signatures

from tcc.compiler.bundle import bundle_folder
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.targets import devices

SECONDS = 20.0
"""The maximum time for one bundle in seconds."""


def open_bundle(case: Case) -> tuple[int, str]:
    """Open a case's bundle in this folder; return the corresponding exit code, and the error."""
    request = Request.from_arguments(case.arguments)
    key = Path(f"{request.key}.pub") if request.key else None
    try:
        policy = devices.create_signature_policy(key, any_key=request.has_trust_option)
        bundle_folder.read_bundle(Path("b"), devices.find_precision, policy)
    except UserError as error:
        return 2, error.diagnostics[0].code
    except Exception:
        return 1, traceback.format_exc()
    return 0, ""


def main() -> int:
    """Run the selected cases."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    build_signatures()
    codes: Counter[str] = Counter()
    failures, slowest, start = 0, 0.0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="signed-reads-") as base_folder:
        for number in range(options.count):
            case = SIGNATURES.make(Random(f"signed reads {options.seed} {number}"))
            folder = Path(base_folder) / str(number)
            folder.mkdir()
            os.chdir(folder)
            for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
                os.environ[name] = str(folder / name.lower())
            assert case.prepare
            assert case.check
            case.prepare(folder)
            started = time.process_time()
            code, error = open_bundle(case)
            seconds = time.process_time() - started
            slowest = max(slowest, seconds)
            wrong = error if code == 1 else case.check(Outcome(code, "", "", 0, 0, 0), folder)
            if wrong or seconds > SECONDS:
                failures += 1
                print(f"{number}: {wrong or seconds}: {' '.join(case.arguments)}", flush=True)
            codes[error if code == 2 else str(code)] += 1
            shutil.rmtree(folder)
        os.chdir("/")
    counts = {
        "cases": options.count,
        "codes": dict(sorted(codes.items())),
        "failed": failures,
        "slowest_s": round(slowest, 2),
        "minutes": round((time.monotonic() - start) / 60, 1),
    }
    print(json.dumps(counts))
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
