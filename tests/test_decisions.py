"""docs/decisions: the index lists each decision once, with the status on its page."""

import re

import pytest

LINK = re.compile(r"\[(\d+)\]\((\d{4}-[a-z0-9-]+\.md)\)")


@pytest.fixture(scope="module")
def decisions(root):
    """The pages by number."""
    pages = sorted((root / "docs/decisions").glob("[0-9]*.md"))
    return {int(page.name[:4]): page for page in pages}


@pytest.fixture(scope="module")
def index_rows(root):
    """Each line of the index that lists a decision."""
    text = (root / "docs/decisions/README.md").read_text()
    return [line for line in text.splitlines() if re.match(r"- \[\d", line)]


def parse_status(text):
    """Return the kind of change and the numbers of the decisions that changed it."""
    match = re.search(r"(amended|superseded) by (.*)", text, re.IGNORECASE)
    return (match[1].lower(), [int(n) for n, _ in LINK.findall(match[2])]) if match else None


def test_each_decision_is_listed_once(decisions, index_rows):
    numbers = [int(LINK.match(row, 2)[1]) for row in index_rows]
    assert sorted(numbers) == sorted(decisions)


def test_each_link_is_to_the_page_of_its_number(decisions, index_rows):
    texts = [*index_rows, *(page.read_text() for page in decisions.values())]
    for text in texts:
        for number, name in LINK.findall(text):
            assert decisions[int(number)].name == name


def test_pages_and_index_state_the_same_status(decisions, index_rows):
    from_index = {int(LINK.match(row, 2)[1]): parse_status(row) for row in index_rows}
    from_pages = {}
    for number, page in decisions.items():
        title, empty, status = page.read_text().splitlines()[:3]
        assert title.startswith(f"# {number}. ")
        assert empty == ""
        from_pages[number] = parse_status(status) if status.startswith("Status: ") else None
    assert from_pages == from_index
    assert sum(status is not None for status in from_pages.values()) >= 20


def test_only_later_decisions_change_a_decision(index_rows):
    for row in index_rows:
        if status := parse_status(row):
            assert status[1], row
            assert min(status[1]) > int(LINK.match(row, 2)[1]), row


def test_replaced_decisions_link_to_their_replacement(decisions):
    for number, page in decisions.items():
        for line in page.read_text().splitlines():
            if line.startswith("Replaces "):
                for replaced in re.findall(r"\[decision (\d+)\]", line):
                    status = parse_status(decisions[int(replaced)].read_text().splitlines()[2])
                    assert status, f"{decisions[int(replaced)].name} has no status"
                    assert number in status[1]


def test_the_status_is_only_at_the_top(decisions):
    for page in decisions.values():
        body = "\n".join(page.read_text().splitlines()[3:])
        assert not re.search(
            r"^\W*(status|superseded|amended)\b", body, re.IGNORECASE | re.MULTILINE
        )
