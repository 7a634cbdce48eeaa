"""Runs the modules of the page in Node."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

SITE = Path(__file__).resolve().parents[1] / "backends/web/site"
NODE = shutil.which("node")
needs_node = pytest.mark.skipif(not NODE, reason="needs Node.js: apt-get install nodejs")


def run_node(code, folder, *arguments):
    """Return the JSON output of a module. It can import modules of the page as `site/NAME`."""
    script = folder / "script.mjs"
    script.write_text(code.replace("'site/", f"'{SITE.as_uri()}/"))
    command = [NODE, script, *arguments]
    completed = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout)


CONTRACTS = """
import { readFileSync, writeFileSync } from 'node:fs';
import { apply } from 'site/contract.js';
const folder = process.argv[2];
const found = [];
const given = readFileSync(folder + '/images.bin');
const parts = JSON.parse(readFileSync(folder + '/cases.json')).map(({ contract, shape, at, image }) => {
  const [height, width] = image;
  const data = given.subarray(at, at + 3 * height * width);
  try {
    const values = apply(contract, { height, width, data }, shape);
    found.push(values.length);
    return Buffer.from(values.buffer);
  } catch (error) {
    found.push(error.message);
    return Buffer.alloc(0);
  }
});
writeFileSync(folder + '/tensors.bin', Buffer.concat(parts));
console.log(JSON.stringify(found));
"""


def compute_tensors(folder, cases):
    """Return the tensors that the page computes: cases are (contract as JSON, shape, pixels)."""
    records, offset = [], 0
    with (folder / "images.bin").open("wb") as file:
        for contract, shape, image in cases:
            file.write(image.tobytes())
            records.append(
                {"contract": contract, "shape": shape, "at": offset, "image": image.shape[:2]}
            )
            offset += image.nbytes
    (folder / "cases.json").write_text(json.dumps(records))
    counts = run_node(CONTRACTS, folder, folder)
    values = np.fromfile(folder / "tensors.bin", "<f4")
    start = 0
    for count, (_, shape, _) in zip(counts, cases, strict=True):
        if isinstance(count, str):
            yield count
        else:
            yield values[start : start + count].reshape(shape)
            start += count
