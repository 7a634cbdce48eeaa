"""What each pass does to small networks, as `PASS.txt` beside this file shows it."""

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
        "tools/make_goldens.py writes it anew"
    )
    assert cases[0].before != cases[0].after, "the first case shows what the pass changes"
    assert len({case.title for case in cases}) == len(cases) == snapshot.count("# ")


def test_every_snapshot_file_belongs_to_a_pass():
    names = {path.stem for path in pass_snapshots.FOLDER.glob("*.txt")}
    assert names == {step.name for step in PASSES}
