"""Pipelines as text, and what each pass says of itself."""

import pytest

from tcc.compiler.passes import INFERENCE, PASSES, PLAIN, RENAMED_PASSES, format_pipeline, parse
from tcc.compiler.support.diagnostics import UserError, make_file_span

HERE = make_file_span("command line: --passes")
LISTED = ", ".join(one.name for one in PASSES)


@pytest.mark.parametrize("passes", [PLAIN, INFERENCE, PASSES, ()])
def test_a_pipeline_is_its_text(passes) -> None:
    assert parse(format_pipeline(passes), HERE) == passes


def test_names_may_have_spaces_around_them_and_come_twice() -> None:
    found = parse(" drop_train_only , drop_identity,drop_train_only", HERE)
    assert format_pipeline(found) == "drop_train_only,drop_identity,drop_train_only"


def test_unknown_names_are_all_listed_with_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        parse("drop_train_only,fold_scales,,qqq", HERE)
    first, second, third = caught.value.diagnostics
    assert (first.code, first.message) == ("E0614", "there is no pass `fold_scales`")
    assert first.at == HERE
    assert first.help.startswith(f"did you mean `fold_scale`? known passes: {LISTED}; ")
    assert second.message == "there is no pass ``"
    assert third.help.startswith(f"known passes: {LISTED}; ")


@pytest.mark.parametrize(("old", "new"), RENAMED_PASSES.items())
def test_a_former_name_leads_to_the_new_one(old, new) -> None:
    with pytest.raises(UserError) as caught:
        parse(f"{PASSES[1].name},{old}", HERE)
    (found,) = caught.value.diagnostics
    assert (found.code, found.message) == ("E0614", f"there is no pass `{old}`")
    assert found.help == f"it is called `{new.name}` now"


def test_every_pass_says_what_it_is() -> None:
    assert len({one.name for one in PASSES}) == len(PASSES)
    assert all(0 <= one.bound <= 1e-3 for one in PASSES)
    assert all(one.doc.endswith(".") for one in PASSES)
    assert {one for pipeline in (PLAIN, INFERENCE) for one in pipeline} <= set(PASSES)
