"""Pipelines as text, and descriptions of passes."""

import pytest

from tcc.compiler.passes import INFERENCE, PASSES, PLAIN, RENAMED_PASSES, format_pipeline, parse
from tcc.compiler.support.diagnostics import UserError, make_file_span

HERE = make_file_span("command line: --passes")
PASS_NAMES = ", ".join(compiler_pass.name for compiler_pass in PASSES)


@pytest.mark.parametrize("passes", [PLAIN, INFERENCE, PASSES, ()])
def test_a_pipeline_round_trips_as_text(passes) -> None:
    assert parse(format_pipeline(passes), HERE) == passes


def test_names_may_repeat_and_have_spaces_around_them() -> None:
    pipeline = parse(" drop_train_only , drop_identity,drop_train_only", HERE)
    assert format_pipeline(pipeline) == "drop_train_only,drop_identity,drop_train_only"


def test_all_unknown_names_are_listed_with_a_suggestion() -> None:
    with pytest.raises(UserError) as caught:
        parse("drop_train_only,fold_scales,,qqq", HERE)
    unknown, misspelt, third = caught.value.diagnostics
    assert (unknown.code, unknown.message) == ("E0614", "there is no pass `fold_scales`")
    assert unknown.at == HERE
    assert unknown.help.startswith(f"did you mean `fold_scale`? known passes: {PASS_NAMES}; ")
    assert misspelt.message == "there is no pass ``"
    assert third.help.startswith(f"known passes: {PASS_NAMES}; ")


@pytest.mark.parametrize(("old", "new"), RENAMED_PASSES.items())
def test_a_renamed_pass_suggests_the_new_name(old, new) -> None:
    with pytest.raises(UserError) as caught:
        parse(f"{PASSES[1].name},{old}", HERE)
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.message) == ("E0614", f"there is no pass `{old}`")
    assert diagnostic.help == f"use its new name, `{new.name}`"


def test_every_pass_has_a_description() -> None:
    assert len({compiler_pass.name for compiler_pass in PASSES}) == len(PASSES)
    assert all(0 <= compiler_pass.bound <= 1e-3 for compiler_pass in PASSES)
    assert all(compiler_pass.doc.endswith(".") for compiler_pass in PASSES)
    assert {compiler_pass for pipeline in (PLAIN, INFERENCE) for compiler_pass in pipeline} <= set(
        PASSES
    )
