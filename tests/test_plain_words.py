"""`tools/check_words.py` refuses vague names and archaic words, with file, line and fix."""

import pytest

RULES = {
    "names": {
        "folders": ["code"],
        "vague": [{"words": "found told", "instead": "say what it is, such as `missing_keys`"}],
        "allowed": {},
    },
    "verbs": {"words": ["get find"], "protocol_names": [], "min_share": {}},
    "prose": {
        "pages": ["*.md"],
        "skipped_pages": ["history.md"],
        "packages": ["code/*"],
        "terms": ["held-out"],
        "max_per_1000": 4,
        "refused": [{"words": "anew", "instead": "again"}],
        "counted": [
            {"words": "says", "instead": "shows"},
            {"words": "held", "instead": "kept"},
        ],
        "allowed": {},
        "limits": {},
    },
}


@pytest.fixture
def check(root, tmp_path, monkeypatch):
    """Write files, apply the rules with some of them changed, and return the messages."""
    monkeypatch.syspath_prepend(str(root / "tools"))
    from check_words import WordCheck

    def check_files(files, **changes):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        rules = {table: {**RULES[table], **changes.get(table, {})} for table in RULES}
        return WordCheck(tmp_path, rules).run()

    return check_files


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "_found: int = 1",
        "def find(found): ...",
        "def find(*, found=1): ...",
        "def find(*found): ...",
        "def find(**found): ...",
        "def found(): ...",
        "async def found(): ...",
        "class Found: ...",
        "class Node:\n    found: int",
        "self.found = 1",
        "for key, found in ():\n    pass",
        "with open(1) as found:\n    pass",
        "try:\n    pass\nexcept OSError as found:\n    pass",
        "match 1:\n    case int() as found:\n        pass",
        "match 1:\n    case [*found]:\n        pass",
        "match 1:\n    case {**found}:\n        pass",
        "if found := 1:\n    pass",
        "import math as found",
        "keys = [1 for found in ()]",
        "key = lambda found: 1",
    ],
)
def test_a_vague_name_is_refused_with_line_and_fix(check, source):
    messages = check({"code/quant/scale.py": f'"""Scales."""\n\n{source}\n'})
    assert len(messages) == 1
    assert messages[0].startswith("code/quant/scale.py:")
    assert int(messages[0].split(":")[1]) >= 3
    assert "is vague: say what it is, such as `missing_keys`" in messages[0]


def test_the_reported_line_is_the_line_of_the_name(check):
    messages = check({"code/a.py": "nodes = 1\nkeys = 2\nfound = 3\n"})
    assert messages == [
        "code/a.py:3: the name `found` is vague: say what it is, such as `missing_keys`"
    ]


@pytest.mark.parametrize(
    "source",
    ["found_nodes = 1", "print(found)", "report.found = 1", "open(found=1)", "from a import found"],
)
def test_clear_names_and_imported_names_are_allowed(check, source):
    assert check({"code/a.py": source}) == []


def test_a_listed_exception_applies_to_its_file_only(check):
    files = {"code/a.py": "found = 1\n", "code/b.py": "found = 1\n"}
    allowed = {"allowed": {"code/a.py: found": "a key of calibration.json"}}
    assert [m[:12] for m in check(files, names=allowed)] == ["code/b.py:1:"]


def test_an_unused_exception_is_reported(check):
    unused = {"allowed": {"code/a.py: found": "a key of calibration.json"}}
    prose = {"allowed": {"a.md: anew": "a title"}, "limits": {"b.md": 9}}
    messages = check({"code/a.py": "nodes = 1\n"}, names=unused, prose=prose)
    assert [m.split("'")[1] for m in messages] == ["code/a.py: found", "a.md: anew", "b.md"]
    assert all(m.endswith("remove the line") for m in messages)


def test_a_package_with_too_few_verbs_is_refused_with_the_functions(check):
    source = "def get_node(): ...\n\n\ndef node(): ...\n"
    verbs = {"min_share": {"code/ir": 0.6}}
    messages = check(
        {"code/ir/a.py": source, "code/data/b.py": "def weights(): ...\n"}, verbs=verbs
    )
    assert messages[0].startswith("code/ir: 1 of 2 functions do not begin with a verb")
    assert messages[1:] == ["  code/ir/a.py:4: node"]


@pytest.mark.parametrize(
    "source",
    [
        "class Node:\n    @property\n    def shape(self): ...\n",
        "class Node:\n    @functools.cached_property\n    def shape(self): ...\n",
        "class Node:\n    def __len__(self): ...\n",
        "class Node:\n    def torch(self): ...\n",
        "def _find_node(): ...\n",
    ],
)
def test_properties_and_protocol_names_need_no_verb(check, source):
    verbs = {"min_share": {"code": 1.0}, "protocol_names": ["torch"]}
    assert check({"code/a.py": source}, verbs=verbs) == []


def test_a_refused_word_is_reported_with_its_line(check):
    messages = check({"a.md": "# Title\n\nBuild it anew.\n", "history.md": "Anew.\n"})
    assert messages == ["a.md:3: 'anew': write again"]


@pytest.mark.parametrize(
    "page",
    [
        "```text\nanew\n```\n",
        "````md\n```sh\nanew\n```\n````\n",
        "~~~\nanew\n~~~\n",
        "Run `tcc anew` or ``anew``.\n",
        "[The page](anew.md) and https://example.org/anew\n",
        "<a id='anew'></a>\n",
    ],
)
def test_code_and_urls_are_not_checked(check, page):
    assert check({"a.md": page}) == []


def test_text_after_a_code_block_is_checked(check):
    page = "```sh\nanew\n```\n\nBuild it anew.\n"
    assert check({"a.md": page}) == ["a.md:5: 'anew': write again"]


def test_a_page_with_too_many_listed_words_is_refused(check):
    page = "It says so.\n" * 3
    messages = check({"a.md": page, "b.md": "It says so.\n" * 2})
    assert messages[0].startswith(
        "a.md: 3 of 9 words are not plain (333.3 per 1,000); the limit is 4 per 1,000."
    )
    assert messages[1:] == [f"  a.md:{line}: 'says': write shows" for line in (1, 2, 3)]
    assert check({"a.md": page}, prose={"limits": {"a.md": 334}}) == []


def test_a_long_report_is_truncated(check):
    messages = check({"a.md": "It says so.\n" * 20})
    assert len(messages) == 14
    assert messages[-1] == "  and 8 more"


def test_terms_of_the_field_are_allowed(check):
    assert check({"a.md": "The held-out images.\n" * 9}) == []
    assert check({"a.md": "What is held is kept.\n" * 9}) != []


def test_docstrings_and_messages_are_checked(check):
    source = '''"""Build anew."""


def get_node(key):
    """Return it.

    >>> get_node("built anew at night")
    """
    raise ValueError(f"no node {key}: build the graph anew")


KEY = "anew"
'''
    messages = check({"code/ir/a.py": source})
    assert messages == [f"code/ir/a.py:{line}: 'anew': write again" for line in (1, 9)]
