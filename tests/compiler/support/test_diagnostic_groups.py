"""Many diagnostics of one cause are shown as one."""

from tcc.compiler.support.diagnostics import (
    MIN_GROUP_SIZE,
    Diagnostic,
    Span,
    group_alike,
    make_file_span,
)


def gone(number, what="is gone"):
    place = make_file_span(f"set/df/{number}.jpg")
    return Diagnostic("E1218", f"this image {what} since the training", place, help="bring it back")


def test_equal_messages_name_the_other_places():
    (one,) = group_alike([gone(number) for number in range(50)])
    assert str(one) == (
        "error[E1218]: this image is gone since the training\n"
        "  --> set/df/0.jpg\n"
        "   = help: bring it back\n"
        f"   = 49 more like this: {', '.join(f'set/df/{n}.jpg' for n in range(1, 11))}, "
        "and 39 others"
    )


def test_messages_that_differ_in_names_and_numbers_are_alike():
    span = Span("net.yaml", 3, 1, "- conv")
    found = [
        Diagnostic("E0504", f"conv_{n}.weight has shape {n}x3, not 4x3", span) for n in range(9)
    ]
    (one,) = group_alike(found)
    assert len(one.members) == 9
    assert "8 more like this: conv_1.weight 1x3 (net.yaml:3), conv_2.weight 2x3 (net" in str(one)


def test_other_codes_and_words_stay_apart_in_their_order():
    odd = Diagnostic("E1201", "this line has no label", Span("index.csv", 7, 1, "a,"))
    found = [gone(1), odd, *map(gone, range(2, MIN_GROUP_SIZE + 1)), gone(9, "has other contents")]
    groups = group_alike(found)
    assert [each.members[0].code for each in groups] == ["E1218", "E1201", "E1218"]
    assert [len(each.members) for each in groups] == [MIN_GROUP_SIZE, 1, 1]
    assert sum(len(each.members) for each in groups) == len(found)


def test_few_are_shown_each():
    found = [gone(number) for number in range(MIN_GROUP_SIZE - 1)]
    assert [str(each) for each in group_alike(found)] == [str(each) for each in found]
