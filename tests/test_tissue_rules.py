"""Tissue rules on synthetic slides: the default misses least and includes no glass."""

import pytest

from tcc.compiler.slides import tissue_mask

pytest.importorskip("openslide", reason="needs the extra `slides`")


def test_the_default_tissue_rule_misses_least_and_includes_no_glass(monkeypatch, root, tmp_path):
    monkeypatch.syspath_prepend(root / "tools")
    import tissue_rules

    for seed, (name, stains) in enumerate(tissue_rules.SLIDES.items()):
        rows = list(tissue_rules.compare(*tissue_rules.draw(stains, seed), tmp_path))
        missed = {rule: share for rule, share, _ in rows}
        excess = {rule: share for rule, _, share in rows}
        assert set(missed) == {"any", "wide", "paper"}
        assert missed[tissue_mask.DEFAULT_RULE] == min(missed.values()), name
        assert excess[tissue_mask.DEFAULT_RULE] < 0.001, name
