"""spec/passes.md matches the passes."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_passes_save_a_fifth_of_ddsnet_and_cost_no_network_more_in_float() -> None:
    text = (ROOT / "spec" / "passes.md").read_text()
    rows = [re.findall(r"[^| ]+", line) for line in text.splitlines() if line.count("|") == 8][2:]
    macs = {row[0]: [float(cell.replace(",", "")) for cell in row[4:]] for row in rows}
    assert macs["ddsnet"][:2] == [283.74, 221.40]
    assert len(macs) >= 14
    assert all(fused <= unfused for unfused, fused, _ in macs.values())
