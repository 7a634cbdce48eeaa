"""The stage cache: complete entries, a limited size, and parallel or killed writers."""

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

FIRST_KEY, SECOND_KEY = compute_key("size", {"a": 1}), compute_key("size", {"a": 2})
PARTS = {"first": b"\n\0 bytes", "empty": b"", "last": bytes(1000)}


@pytest.fixture
def cache(tmp_path):
    messages = []
    new_cache = StageCache(tmp_path / "tcc/stages", 100_000, messages.append)
    new_cache.reported = messages
    return new_cache


def get_entry_path(cache, name=FIRST_KEY, stage="size"):
    return cache.folder / stage / name


def list_names(cache):
    return {path.name for path in cache.folder.glob("*/*")}


def test_only_the_stored_entry_is_returned(cache):
    assert cache.get("size", FIRST_KEY) is None
    cache.store("size", FIRST_KEY, PARTS)
    assert cache.get("size", FIRST_KEY) == PARTS
    assert list(cache.get("size", FIRST_KEY)) == list(PARTS)
    assert cache.get("size", SECOND_KEY) is None
    assert cache.get("bundle", FIRST_KEY) is None
    assert get_entry_path(cache).parent.stat().st_mode & 0o077 == 0
    assert [(u.stage, u.entries) for u in cache.measure_usage() if u.entries] == [("size", 1)]


def test_keys_differ_by_value_and_stage():
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
        len(
            {compute_key("a", {"x": setting}) for setting in (None, False, 0.5, [], [None], "None")}
        )
        == 6
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
def test_damaged_entry_is_removed(cache, damage):
    cache.store("size", FIRST_KEY, PARTS)
    get_entry_path(cache).write_bytes(damage(get_entry_path(cache).read_bytes()))
    assert cache.get("size", FIRST_KEY) is None
    assert not get_entry_path(cache).exists()
    cache.store("size", FIRST_KEY, PARTS)
    assert cache.get("size", FIRST_KEY) == PARTS


def test_every_flipped_bit_is_detected(cache):
    cache.store("size", FIRST_KEY, {"a": b"xyz"})
    content = get_entry_path(cache).read_bytes()
    for byte_index in range(len(content)):
        data = bytearray(content)
        data[byte_index] ^= 1 << byte_index % 8
        get_entry_path(cache).write_bytes(data)
        assert cache.get("size", FIRST_KEY) is None, byte_index


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
def test_forged_entry_with_a_valid_hash_is_refused(cache, head):
    import hashlib

    cache.store("size", FIRST_KEY, PARTS)
    body = head.replace(b"KEY", FIRST_KEY.encode()) + b"\n"
    get_entry_path(cache).write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    assert cache.get("size", FIRST_KEY) is None


def test_entry_under_another_name_is_refused(cache):
    cache.store("size", FIRST_KEY, PARTS)
    cache.store("bundle", SECOND_KEY, PARTS)
    get_entry_path(cache).rename(get_entry_path(cache, SECOND_KEY))
    assert cache.get("size", SECOND_KEY) is None  # another key
    get_entry_path(cache, SECOND_KEY, "bundle").rename(get_entry_path(cache, SECOND_KEY))
    assert cache.get("size", SECOND_KEY) is None  # another stage


def test_folder_or_pipe_in_place_of_an_entry_is_handled(cache):
    cache.store("size", SECOND_KEY, PARTS)
    os.mkfifo(get_entry_path(cache))
    assert cache.get("size", FIRST_KEY) is None
    get_entry_path(cache, SECOND_KEY).unlink()
    get_entry_path(cache, SECOND_KEY).mkdir()
    assert cache.get("size", SECOND_KEY) is None
    cache.store("size", SECOND_KEY, PARTS)
    assert len(cache.reported) == 1
    assert "is off for this run" in cache.reported[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_entry_is_replaced(cache):
    cache.store("size", FIRST_KEY, PARTS)
    get_entry_path(cache).chmod(0)
    assert cache.get("size", FIRST_KEY) is None
    cache.store("size", FIRST_KEY, PARTS)
    assert cache.get("size", FIRST_KEY) == PARTS
    assert not cache.reported


def test_least_recently_used_entries_are_removed(cache):
    numbers = [compute_key("size", {"number": number}) for number in range(12)]
    for age, name in enumerate(numbers[:9]):
        cache.store("size" if age % 2 else "bundle", name, {"a": bytes(10_000)})
        os.utime(
            get_entry_path(cache, name, "size" if age % 2 else "bundle"), (1000 + age, 1000 + age)
        )
    assert cache.get("bundle", numbers[0])  # used now
    for name in numbers[9:]:
        cache.store("size", name, {"a": bytes(10_000)})
    assert sum(use.bytes for use in cache.measure_usage()) <= cache.limit
    assert list_names(cache) == {numbers[0], *numbers[4:]}


def test_entries_with_future_times_are_removed_first(cache):
    old = [compute_key("size", {"number": number}) for number in range(9)]
    ahead = time.time() + 1e6
    for name in old:
        cache.store("size", name, {"a": bytes(10_000)})
        os.utime(get_entry_path(cache, name), (ahead, ahead))
    for name in (FIRST_KEY, SECOND_KEY):
        cache.store("size", name, {"a": bytes(10_000)})
    # New entries stay, and entries with a future time are removed.
    assert {FIRST_KEY, SECOND_KEY} < list_names(cache)
    assert len(list_names(cache)) == 9


def test_entry_larger_than_the_limit_is_not_stored(cache):
    cache.store("size", SECOND_KEY, PARTS)
    cache.store("size", FIRST_KEY, {"a": bytes(cache.limit)})
    assert list_names(cache) == {SECOND_KEY}
    assert not cache.reported
    os.truncate(get_entry_path(cache, SECOND_KEY), cache.limit * 2)
    assert cache.get("size", SECOND_KEY) is None


def test_without_a_folder_nothing_is_stored():
    cache = StageCache(None)
    cache.store("size", FIRST_KEY, PARTS)
    assert cache.get("size", FIRST_KEY) is None
    assert not any(use.entries for use in cache.measure_usage() + cache.clear())


def test_unwritable_folder_is_reported_once(tmp_path):
    (tmp_path / "file").write_text("")
    messages = []
    cache = StageCache(tmp_path / "file/stages", 1000, messages.append)
    for name in (FIRST_KEY, SECOND_KEY):
        cache.store("size", name, {"a": b"x"})
        assert cache.get("size", name) is None
    assert len(messages) == 1


PUT_SCRIPT = """
import sys
from pathlib import Path
from tcc.compiler.support.stage_cache import StageCache, compute_key
cache = StageCache(Path(sys.argv[1]), int(sys.argv[2]), print)
for number in range(int(sys.argv[3])):
    for name in range(5):
        one = compute_key("size", {"name": name})
        found = cache.get("size", one)
        assert found in (None, {"a": bytes([name]) * 3000}), name
        cache.store("size", one, {"a": bytes([name]) * 3000})
        if not number: print(flush=True)
"""


def start_writer(cache, rounds, limit=10_000, setup=""):
    command = [sys.executable, "-c", setup + PUT_SCRIPT, str(cache.folder), str(limit), str(rounds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_parallel_writers_do_not_disturb_each_other(cache):
    """With room for three of five entries, each process removes entries that another reads."""
    running = [start_writer(cache, 20) for _ in range(3)]
    ended = [process.communicate() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], ended
    assert not any(out.strip() + err for out, err in ended)
    assert 0 < len(list_names(cache)) <= 3
    assert not any(name.startswith(".") for name in list_names(cache))


def test_killed_writers_do_not_block_later_ones(cache):
    rng = random.Random(3)
    for _ in range(6):
        running = start_writer(cache, 10_000)
        running.stdout.readline()
        time.sleep(rng.random() / 20)
        running.send_signal(signal.SIGKILL)
        running.communicate()
        leftovers = [path for path in cache.folder.glob("*/*") if not path.name.startswith(".")]
        for name in range(5):
            key = compute_key("size", {"name": name})
            is_complete = cache.get("size", key) == {"a": bytes([name]) * 3000}
            assert is_complete == any(path.name == key for path in leftovers)
    (get_entry_path(cache, f".{FIRST_KEY}.tcc-new-01234567")).write_bytes(b"half")
    cache.store("size", FIRST_KEY, PARTS)
    assert not any(name.startswith(".") for name in list_names(cache))
    assert not cache.reported


def test_leftovers_of_a_killed_writer_are_cleared(cache):
    cache.store("size", FIRST_KEY, PARTS)
    leftover = get_entry_path(cache, f".{SECOND_KEY}.tcc-new-01234567")
    notes = get_entry_path(cache, "notes.txt")
    for path in (leftover, notes):
        path.write_bytes(b"half")
    gone = cache.clear()
    assert sum(use.entries for use in gone) == 1
    assert list_names(cache) == {"notes.txt"}


def test_full_disk_is_reported_once(cache):
    """Simulated by a limit of 2000 bytes per file."""
    limited = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
    running = start_writer(cache, 3, setup=limited)
    out, err = running.communicate()
    assert running.returncode == 0, err
    assert out.count("is off for this run") == 1
    assert not list_names(cache)


@pytest.mark.parametrize(
    ("text", "bytes"),
    [("", 10**9), ("0", 0), ("7", 7), ("500 MB", 5 * 10**8), ("2gb", 2 * 10**9), (" 3KB ", 3000)],
)
def test_cache_limits_are_parsed(monkeypatch, text, bytes):
    monkeypatch.setenv("TCC_CACHE_LIMIT", text)
    assert stage_cache.read_limit() == bytes


@pytest.mark.parametrize("text", ["-1", "1.5 GB", "MB", "much", "1 TB", "9" * 99, "٣", "1 GB GB"])
def test_invalid_cache_limits_are_refused(monkeypatch, text):
    monkeypatch.setenv("TCC_CACHE_LIMIT", text)
    with pytest.raises(UserError, match="E1400"):
        stage_cache.read_limit()


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("TCC_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert stage_cache.find_cache_folder() == tmp_path / "tcc/stages"
    monkeypatch.setenv("XDG_CACHE_HOME", "below")  # ignored, as the specification requires
    monkeypatch.setenv("HOME", str(tmp_path))
    assert stage_cache.find_cache_folder() == tmp_path / ".cache/tcc/stages"
    monkeypatch.setenv("TCC_CACHE", str(tmp_path / "mine"))
    assert stage_cache.find_cache_folder() == tmp_path / "mine/stages"
    monkeypatch.setenv("TCC_CACHE", "mine")
    with pytest.raises(UserError, match="E1400"):
        stage_cache.find_cache_folder()


def test_folder_writable_by_others_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("TCC_CACHE", str(tmp_path / "mine"))
    monkeypatch.delenv("TCC_CACHE_LIMIT")
    stage_cache.open_user_cache(print).store("size", FIRST_KEY, PARTS)
    assert stage_cache.open_user_cache(print).get("size", FIRST_KEY) == PARTS
    (tmp_path / "mine/stages").chmod(0o777)
    messages = []
    user_cache = stage_cache.open_user_cache(messages.append)
    assert user_cache.get("size", FIRST_KEY) is None
    assert "only you can write to" in messages[0]
