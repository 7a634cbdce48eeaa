"""Many diagnostics with one cause are shown as one."""

from tcc.compiler.support.diagnostics import (
    MIN_GROUP_SIZE,
    Diagnostic,
    Span,
    group_alike,
    make_file_span,
)


def create_missing_image(number, predicate="is gone"):
    span = make_file_span(f"set/df/{number}.jpg")
    return Diagnostic(
        "E1218", f"this image {predicate} since the training", span, help="bring it back"
    )


def test_equal_messages_list_the_other_locations():
    (group,) = group_alike([create_missing_image(number) for number in range(50)])
    assert str(group) == (
        "error[E1218]: this image is gone since the training\n"
        "  --> set/df/0.jpg\n"
        "   = help: bring it back\n"
        f"   = 49 more like this: {', '.join(f'set/df/{n}.jpg' for n in range(1, 11))}, "
        "and 39 others"
    )


def test_messages_with_other_names_and_numbers_are_grouped():
    span = Span("net.yaml", 3, 1, "- conv")
    diagnostics = [
        Diagnostic("E0504", f"conv_{n}.weight has shape {n}x3, not 4x3", span) for n in range(9)
    ]
    (group,) = group_alike(diagnostics)
    assert len(group.members) == 9
    assert "8 more like this: conv_1.weight 1x3 (net.yaml:3), conv_2.weight 2x3 (net" in str(group)


def test_other_messages_are_not_grouped_and_keep_their_order():
    odd = Diagnostic("E1201", "this line has no label", Span("index.csv", 7, 1, "a,"))
    diagnostics = [
        create_missing_image(1),
        odd,
        *map(create_missing_image, range(2, MIN_GROUP_SIZE + 1)),
        create_missing_image(9, "has other contents"),
    ]
    groups = group_alike(diagnostics)
    assert [group.members[0].code for group in groups] == ["E1218", "E1201", "E1218"]
    assert [len(group.members) for group in groups] == [MIN_GROUP_SIZE, 1, 1]
    assert sum(len(group.members) for group in groups) == len(diagnostics)


def test_few_diagnostics_are_not_grouped():
    diagnostics = [create_missing_image(number) for number in range(MIN_GROUP_SIZE - 1)]
    assert [str(diagnostic) for diagnostic in group_alike(diagnostics)] == [
        str(diagnostic) for diagnostic in diagnostics
    ]
