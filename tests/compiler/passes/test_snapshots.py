"""The effect of each pass on small networks, as in `PASS.txt` next to this file."""

import pass_snapshots
import pytest

from tcc.compiler.passes import PASSES

passes = pytest.mark.parametrize("step", PASSES, ids=lambda step: step.name)


@passes
def test_passes_match_their_snapshots(step):
    path = pass_snapshots.FOLDER / f"{step.name}.txt"
    cases = list(pass_snapshots.generate_snapshots(step))
    snapshot = path.read_text()
    assert snapshot == "\n".join(case.text for case in cases), (
        "run tools/make_goldens.py to update the file"
    )
    assert cases[0].graph_before != cases[0].graph_after, "the first case must show a change"
    assert len({case.title for case in cases}) == len(cases) == snapshot.count("# ")


def test_every_snapshot_file_belongs_to_a_pass():
    names = {path.stem for path in pass_snapshots.FOLDER.glob("*.txt")}
    assert names == {step.name for step in PASSES}
