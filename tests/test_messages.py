"""The table of all messages."""

import sys
from importlib import import_module
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tools"))
make_messages = import_module("make_messages")
Message = make_messages.Message

SOURCE = '''
"""A docstring of several words."""
fail("E0607", f"the file has {len(rows)} rows of {kind.name}", place, help="write the rows again")
raise ValueError("a text without any code")
app.command(help=typer.Option("-x", help="help that commands.md has"))
LABELS = {"key": "two words", "type": "dict[str, int] | None", "c": "int x = y + z;"}
print(f"{count} images, {', '.join(choose('not one of these'))} left over")
'''


def test_messages_have_a_code_a_text_and_a_fix():
    assert make_messages.read_messages(SOURCE) == [
        Message("the file has {...} rows of {name}", "E0607", "write the rows again"),
        Message("a text without any code"),
        Message("{count} images, {...} left over"),
        Message("not one of these"),
    ]


def test_a_table_row_is_one_markdown_line():
    row = Message("a | b\nof *c* [d]", "E0101", "").format_row()
    assert row == r"| E0101 | a \| b of \*c\* \[d\] |  |"
