"""Show which releases of runtimes compute what was recorded, each in an environment of its own.

    python tools/prove_runtimes.py onnxruntime==1.31.1 ai-edge-litert==2.3.0

pip puts each release into a folder that comes before all others; there `recorded_outputs.py` runs
the target that the release is the runtime of, and what it says goes into the record that `tcc
verify` reads. A release that cannot be had, or does not start, is told and not recorded. Exit 1:
one computes otherwise.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tcc.compiler.support import external_tools
from tcc.compiler.support.external_tools import ProvenRelease

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "compiler" / "support" / external_tools.PROVEN_RECORD
TARGETS = {"onnxruntime": "onnxruntime", "ai-edge-litert": "tflite"}
NETWORKS = "small,ddsnet-blood"
HEAD = """\
# Releases of runtimes that compute what tests/golden/outputs has, by tools/prove_runtimes.py.
# `found` is what one computes otherwise.
"""


def proved(package: str, version: str, networks: str) -> ProvenRelease | None:
    """Return what a release computes; None where it cannot be had or does not start."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        pip += ["--no-deps", "--target", folder, f"{package}=={version}"]
        if subprocess.run(pip, check=False).returncode:
            print(f"{package} {version} cannot be had")
            return None
        path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
        env = {**os.environ, "PYTHONPATH": path}
        ask = f"from importlib.metadata import version as v; print(v({package!r}))"
        here = subprocess.run(
            [sys.executable, "-c", ask], env=env, capture_output=True, text=True, check=True
        )
        if here.stdout.strip() != version:
            raise SystemExit(f"{package} {here.stdout.strip()} ran in place of {version}")
        run = [sys.executable, str(ROOT / "tools" / "recorded_outputs.py")]
        run += ["--networks", networks, "--targets", TARGETS[package]]
        done = subprocess.run(run, env=env, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    if done.stderr.strip() and "Traceback" in done.stderr:
        print(f"{package} {version} does not start: {done.stderr.strip().splitlines()[-1]}")
        return None
    wrong = [line for line in lines if " gives " in line or " is off " in line or " shown" in line]
    if bool(done.returncode) != bool(wrong):
        raise SystemExit(f"{package} {version}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return ProvenRelease(package, version, tuple(networks.split(",")), "; ".join(wrong)[:300])


def text(releases: list[ProvenRelease]) -> str:
    """Return the record."""
    rows = [HEAD]
    for one in sorted(releases, key=lambda each: (each.package, _numbers(each.version))):
        rows.append(f'["{one.package}"."{one.version}"]')
        rows.append(f"networks = {json.dumps(list(one.networks))}")
        rows.append(f"found = {json.dumps(one.deviation)}\n")
    return "\n".join(rows)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def main() -> int:
    """Prove what the command line lists."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("releases", nargs="+", metavar="PACKAGE==VERSION")
    words.add_argument("--networks", default=NETWORKS, metavar="N[,N...]")
    options = words.parse_args()
    known = {(each.package, each.version): each for each in external_tools.load_proven_releases()}
    wrong = 0
    for word in options.releases:
        package, _, version = word.partition("==")
        if package not in TARGETS or not version:
            words.error(f"{word}: one of {', '.join(TARGETS)}, `==`, and a version")
        if found := proved(package, version, options.networks):
            known[package, version] = found
            wrong += not found.is_exact
            RECORD.write_text(text(list(known.values())))
            print(f"{package} {version}: {found.deviation or 'as recorded'}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
