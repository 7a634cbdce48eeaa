"""Entries of the stage cache: whole or not there, bounded, whoever writes and wherever he dies."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tcc.compiler.support import stage_cache
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.stage_cache import StageCache, compute_key

ONE, OTHER = compute_key("size", {"a": 1}), compute_key("size", {"a": 2})
PARTS = {"first": b"\n\0 bytes", "empty": b"", "last": bytes(1000)}


@pytest.fixture
def cache(tmp_path):
    said = []
    found = StageCache(tmp_path / "tcc/stages", 100_000, said.append)
    found.said = said
    return found


def entry(cache, name=ONE, stage="size"):
    return cache.folder / stage / name


def names(cache):
    return {path.name for path in cache.folder.glob("*/*")}


def test_what_is_put_comes_back_and_nothing_else(cache):
    assert cache.get("size", ONE) is None
    cache.put("size", ONE, PARTS)
    assert cache.get("size", ONE) == PARTS
    assert list(cache.get("size", ONE)) == list(PARTS)
    assert cache.get("size", OTHER) is None
    assert cache.get("bundle", ONE) is None
    assert entry(cache).parent.stat().st_mode & 0o077 == 0
    assert [(u.stage, u.entries) for u in cache.uses() if u.entries] == [("size", 1)]


def test_keys_tell_values_and_stages_apart():
    assert (
        len(
            {
                compute_key("a", {}),
                compute_key("b", {}),
                compute_key("a", {"x": 1}),
                compute_key("a", {"x": "1"}),
            }
        )
        == 4
    )
    assert (
        len({compute_key("a", {"x": one}) for one in (None, False, 0.5, [], [None], "None")}) == 6
    )
    assert compute_key("a", {"x": 1, "y": 2}) == compute_key("a", {"y": 2, "x": 1})


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data + b"\0",
        lambda data: data.replace(b"bytes", b"bites"),
        lambda data: data.replace(b'"first"', b'"fir?t"'),
        lambda data: b"0" * 64 + data[64:],
        lambda data: b"\n" + data,
        lambda data: bytes(len(data)),
    ],
)
def test_a_damaged_entry_is_thrown_away(cache, damage):
    cache.put("size", ONE, PARTS)
    entry(cache).write_bytes(damage(entry(cache).read_bytes()))
    assert cache.get("size", ONE) is None
    assert not entry(cache).exists()
    cache.put("size", ONE, PARTS)
    assert cache.get("size", ONE) == PARTS


def test_every_flipped_bit_is_found(cache):
    cache.put("size", ONE, {"a": b"xyz"})
    whole = entry(cache).read_bytes()
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        entry(cache).write_bytes(data)
        assert cache.get("size", ONE) is None, place


@pytest.mark.parametrize(
    "head",
    [
        b"[]",
        b"{",
        b'{"stage": "size", "key": 1, "parts": {}}',
        b'{"stage": "size", "parts": {}}',
        b'{"stage": "size", "key": "KEY", "parts": {"a": -1, "b": 1}}',
        b'{"stage": "size", "key": "KEY", "parts": {"a": 9999999}}',
        b'{"stage": "size", "key": "KEY", "parts": ["a"]}',
        b'{"stage": "size", "key": "KEY", "parts": {"a": "x"}}',
        b'{"stage": "size", "key": "KEY", "parts": ' + b"[" * 100_000,
    ],
)
def test_a_forged_entry_whose_hash_holds_is_thrown_away(cache, head):
    import hashlib

    cache.put("size", ONE, PARTS)
    body = head.replace(b"KEY", ONE.encode()) + b"\n"
    entry(cache).write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    assert cache.get("size", ONE) is None


def test_an_entry_under_the_name_of_another_is_not_it(cache):
    cache.put("size", ONE, PARTS)
    cache.put("bundle", OTHER, PARTS)
    entry(cache).rename(entry(cache, OTHER))
    assert cache.get("size", OTHER) is None  # another key
    entry(cache, OTHER, "bundle").rename(entry(cache, OTHER))
    assert cache.get("size", OTHER) is None  # another stage


def test_a_folder_or_a_pipe_in_the_place_of_an_entry(cache):
    cache.put("size", OTHER, PARTS)
    os.mkfifo(entry(cache))
    assert cache.get("size", ONE) is None
    entry(cache, OTHER).unlink()
    entry(cache, OTHER).mkdir()
    assert cache.get("size", OTHER) is None
    cache.put("size", OTHER, PARTS)
    assert len(cache.said) == 1
    assert "nothing more is kept" in cache.said[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_entry_that_may_not_be_read(cache):
    cache.put("size", ONE, PARTS)
    entry(cache).chmod(0)
    assert cache.get("size", ONE) is None
    cache.put("size", ONE, PARTS)
    assert cache.get("size", ONE) == PARTS
    assert not cache.said


def test_what_was_used_longest_ago_makes_room(cache):
    numbers = [compute_key("size", {"number": number}) for number in range(12)]
    for age, name in enumerate(numbers[:9]):
        cache.put("size" if age % 2 else "bundle", name, {"a": bytes(10_000)})
        os.utime(entry(cache, name, "size" if age % 2 else "bundle"), (1000 + age, 1000 + age))
    assert cache.get("bundle", numbers[0])  # used now
    for name in numbers[9:]:
        cache.put("size", name, {"a": bytes(10_000)})
    assert sum(use.bytes for use in cache.uses()) <= cache.limit
    assert names(cache) == {numbers[0], *numbers[4:]}


def test_a_clock_that_was_set_back(cache):
    old = [compute_key("size", {"number": number}) for number in range(9)]
    ahead = time.time() + 1e6
    for name in old:
        cache.put("size", name, {"a": bytes(10_000)})
        os.utime(entry(cache, name), (ahead, ahead))
    for name in (ONE, OTHER):
        cache.put("size", name, {"a": bytes(10_000)})
    # What comes now stays, and what seems to be of the future goes.
    assert {ONE, OTHER} < names(cache)
    assert len(names(cache)) == 9


def test_an_entry_larger_than_the_limit_is_not_kept(cache):
    cache.put("size", OTHER, PARTS)
    cache.put("size", ONE, {"a": bytes(cache.limit)})
    assert names(cache) == {OTHER}
    assert not cache.said
    os.truncate(entry(cache, OTHER), cache.limit * 2)
    assert cache.get("size", OTHER) is None


def test_without_a_folder_nothing_is_kept():
    cache = StageCache(None)
    cache.store("size", ONE, PARTS)
    assert cache.get("size", ONE) is None
    assert not any(use.entries for use in cache.measure_usage() + cache.clear())


def test_a_place_where_nothing_can_be_written_is_told_once(tmp_path):
    (tmp_path / "file").write_text("")
    said = []
    cache = StageCache(tmp_path / "file/stages", 1000, said.append)
    for name in (ONE, OTHER):
        cache.store("size", name, {"a": b"x"})
        assert cache.get("size", name) is None
    assert len(said) == 1


PUT = """
import sys
from pathlib import Path
from tcc.compiler.support.stage_cache import StageCache, compute_key
cache = StageCache(Path(sys.argv[1]), int(sys.argv[2]), print)
for number in range(int(sys.argv[3])):
    for name in range(5):
        one = compute_key("size", {"name": name})
        found = cache.get("size", one)
        assert found in (None, {"a": bytes([name]) * 3000}), name
        cache.put("size", one, {"a": bytes([name]) * 3000})
        if not number: print(flush=True)
"""


def started(cache, rounds, limit=10_000, setup=""):
    words = [sys.executable, "-c", setup + PUT, str(cache.folder), str(limit), str(rounds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_several_processes_write_the_same_entries(cache):
    """With room for three of five, so that each removes what another reads."""
    running = [started(cache, 20) for _ in range(3)]
    ended = [one.communicate() for one in running]
    assert [one.returncode for one in running] == [0, 0, 0], ended
    assert not any(out.strip() + err for out, err in ended)
    assert 0 < len(names(cache)) <= 3
    assert not any(name.startswith(".") for name in names(cache))


def test_killed_writers_leave_nothing_that_hinders(cache):
    rng = random.Random(3)
    for _ in range(6):
        running = started(cache, 10_000)
        running.stdout.readline()
        time.sleep(rng.random() / 20)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        left = [one for one in cache.folder.glob("*/*") if not one.name.startswith(".")]
        for name in range(5):
            one = compute_key("size", {"name": name})
            whole = cache.get("size", one) == {"a": bytes([name]) * 3000}
            assert whole == any(path.name == one for path in left)
    (entry(cache, f".{ONE}.tcc-new-01234567")).write_bytes(b"half")
    cache.put("size", ONE, PARTS)
    assert not any(name.startswith(".") for name in names(cache))
    assert not cache.said


def test_what_a_killed_writer_left_is_cleared(cache):
    cache.put("size", ONE, PARTS)
    left = entry(cache, f".{OTHER}.tcc-new-01234567")
    mine = entry(cache, "notes.txt")
    for path in (left, mine):
        path.write_bytes(b"half")
    gone = cache.clear()
    assert sum(use.entries for use in gone) == 1
    assert names(cache) == {"notes.txt"}


def test_a_full_disk(cache):
    """As where a file may have 2000 bytes at most."""
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    running = started(cache, 3, setup=limited)
    out, err = running.communicate()
    assert running.returncode == 0, err
    assert out.count("nothing more is kept") == 1
    assert not names(cache)


@pytest.mark.parametrize(
    ("text", "bytes"),
    [("", 10**9), ("0", 0), ("7", 7), ("500 MB", 5 * 10**8), ("2gb", 2 * 10**9), (" 3KB ", 3000)],
)
def test_limits(monkeypatch, text, bytes):
    monkeypatch.setenv("TCC_CACHE_LIMIT", text)
    assert stage_cache.read_limit() == bytes


@pytest.mark.parametrize("text", ["-1", "1.5 GB", "MB", "much", "1 TB", "9" * 99, "٣", "1 GB GB"])
def test_limits_that_are_none(monkeypatch, text):
    monkeypatch.setenv("TCC_CACHE_LIMIT", text)
    with pytest.raises(UserError, match="E1400"):
        stage_cache.read_limit()


def test_places(monkeypatch, tmp_path):
    monkeypatch.delenv("TCC_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert stage_cache.find_cache_folder() == tmp_path / "tcc/stages"
    monkeypatch.setenv("XDG_CACHE_HOME", "below")  # of no account, as the specification has it
    monkeypatch.setenv("HOME", str(tmp_path))
    assert stage_cache.find_cache_folder() == tmp_path / ".cache/tcc/stages"
    monkeypatch.setenv("TCC_CACHE", str(tmp_path / "mine"))
    assert stage_cache.find_cache_folder() == tmp_path / "mine/stages"
    monkeypatch.setenv("TCC_CACHE", "mine")
    with pytest.raises(UserError, match="E1400"):
        stage_cache.find_cache_folder()


def test_a_folder_that_others_may_write_to_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("TCC_CACHE", str(tmp_path / "mine"))
    monkeypatch.delenv("TCC_CACHE_LIMIT")
    stage_cache.open_user_cache(print).store("size", ONE, PARTS)
    assert stage_cache.open_user_cache(print).get("size", ONE) == PARTS
    (tmp_path / "mine/stages").chmod(0o777)
    said = []
    found = stage_cache.open_user_cache(said.append)
    assert found.get("size", ONE) is None
    assert "only you write to" in said[0]
