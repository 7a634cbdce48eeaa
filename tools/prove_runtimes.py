"""Check releases of runtimes against the recorded outputs, each in its own environment.

    python tools/prove_runtimes.py onnxruntime==1.31.1 ai-edge-litert==2.3.0

pip installs each release into a temporary folder that takes precedence. There,
`recorded_outputs.py` runs the target that uses the release. The result goes to the record that `tcc
verify` reads. A release that cannot be installed or does not start is reported, but not recorded.
Exit 1: a release has different outputs.
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
# Runtime releases compared with tests/golden/outputs, written by tools/prove_runtimes.py.
# `found` lists a release's differences; it is empty if the recorded networks match.
"""


def evaluate_release(package: str, version: str, networks: str) -> ProvenRelease | None:
    """Return how a release compares; None if it cannot be installed or does not start."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        pip += ["--no-deps", "--target", folder, f"{package}=={version}"]
        if subprocess.run(pip, check=False).returncode:
            print(f"{package} {version}: pip cannot install it")
            return None
        path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
        env = {**os.environ, "PYTHONPATH": path}
        version_program = f"from importlib.metadata import version as v; print(v({package!r}))"
        version_process = subprocess.run(
            [sys.executable, "-c", version_program],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        if version_process.stdout.strip() != version:
            raise SystemExit(
                f"{package} {version_process.stdout.strip()} was imported instead of {version}"
            )
        run = [sys.executable, str(ROOT / "tools" / "recorded_outputs.py")]
        run += ["--networks", networks, "--targets", TARGETS[package]]
        process = subprocess.run(run, env=env, capture_output=True, text=True, check=False)
    lines = process.stdout.splitlines()
    if process.stderr.strip() and "Traceback" in process.stderr:
        print(f"{package} {version} does not start: {process.stderr.strip().splitlines()[-1]}")
        return None
    wrong = [line for line in lines if " gives " in line or " is off " in line or " shown" in line]
    if bool(process.returncode) != bool(wrong):
        raise SystemExit(
            f"{package} {version}: exit {process.returncode}\n{process.stdout}{process.stderr}"
        )
    return ProvenRelease(package, version, tuple(networks.split(",")), "; ".join(wrong)[:300])


def format_record(releases: list[ProvenRelease]) -> str:
    """Return the text of the record."""
    rows = [HEAD]
    for proven in sorted(
        releases, key=lambda release: (release.package, _parse_version(release.version))
    ):
        rows.append(f'["{proven.package}"."{proven.version}"]')
        rows.append(f"networks = {json.dumps(list(proven.networks))}")
        rows.append(f"found = {json.dumps(proven.deviation)}\n")
    return "\n".join(rows)


def _parse_version(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def main() -> int:
    """Check the releases that the command line lists."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("releases", nargs="+", metavar="PACKAGE==VERSION")
    parser.add_argument("--networks", default=NETWORKS, metavar="N[,N...]")
    options = parser.parse_args()
    proven_by_version = {
        (release.package, release.version): release
        for release in external_tools.load_proven_releases()
    }
    wrong = 0
    for requirement in options.releases:
        package, _, version = requirement.partition("==")
        if package not in TARGETS or not version:
            parser.error(
                f"{requirement}: write PACKAGE==VERSION; the packages are {', '.join(TARGETS)}"
            )
        if proven := evaluate_release(package, version, options.networks):
            proven_by_version[package, version] = proven
            wrong += not proven.is_exact
            RECORD.write_text(format_record(list(proven_by_version.values())))
            print(f"{package} {version}: {proven.deviation or 'matches the recorded outputs'}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
