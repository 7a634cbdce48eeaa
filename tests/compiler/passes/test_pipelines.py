"""Pipelines as text, and what each pass says of itself."""

import pytest

from tcc.compiler.passes import INFERENCE, PASSES, PLAIN, parse, spell
from tcc.compiler.support.diagnostics import UserError, whole_file

HERE = whole_file("command line: --passes")
LISTED = ", ".join(one.name for one in PASSES)


@pytest.mark.parametrize("passes", [PLAIN, INFERENCE, PASSES, ()])
def test_a_pipeline_is_its_text(passes) -> None:
    assert parse(spell(passes), HERE) == passes


def test_names_may_have_spaces_around_them_and_come_twice() -> None:
    found = parse(" prune , drop_identity,prune", HERE)
    assert spell(found) == "prune,drop_identity,prune"


def test_unknown_names_are_all_listed_with_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        parse("prune,fold_batchnorm,,qqq", HERE)
    first, second, third = caught.value.diagnostics
    assert (first.code, first.message) == ("E0614", "there is no pass `fold_batchnorm`")
    assert first.at == HERE
    assert first.help.startswith(f"did you mean `fold_batch_norm`? known passes: {LISTED}; ")
    assert second.message == "there is no pass ``"
    assert third.help.startswith(f"known passes: {LISTED}; ")


def test_every_pass_says_what_it_is() -> None:
    assert len({one.name for one in PASSES}) == len(PASSES)
    assert all(0 <= one.bound <= 1e-3 for one in PASSES)
    assert all(one.doc.endswith(".") for one in PASSES)
    assert {one for pipeline in (PLAIN, INFERENCE) for one in pipeline} <= set(PASSES)
