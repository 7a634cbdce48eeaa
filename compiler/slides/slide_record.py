"""What is known of a slide's run beside its result: whether it is finished, and who works on it.

It lies in a hidden folder beside the results. The result itself holds no times, so that it is the
same wherever it was made; whether a slide's file is the one that it was made of is told by them.

Of all runs that share a folder of results, one works on a slide. What a run makes of a slide is the
same whoever makes it, and is written whole: a lease saves work that would be done twice, and no
result rests on it. On one machine the kernel's lock of the lease tells whether its holder lives.
Machines that share a disk may not see each other's locks: so its holder writes into it every
`HEARTBEAT_SECONDS` seconds, and where somebody else has seen no change for `STALE_SECONDS` seconds
by a clock of his own, the holder is dead, or cut off. Assumed is that what one machine wrote and
closed, another reads within `STALE_SECONDS` less a beat, as NFS has it; clocks need not agree. Who
was taken for dead and is not finds another's name in his lease, and stops.
"""

import errno
import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tcc.compiler.slides import saved_result
from tcc.compiler.slides.saved_result import SUMMARY
from tcc.compiler.support import atomic_files, json_records, regular_files
from tcc.compiler.support.diagnostics import UserError, fail, make_file_span
from tcc.compiler.version import __version__

WORK_FOLDER = ".tcc-slides"
RECORD = "finished.json"
MAX_NAME_BYTES = 230
"""Bytes of a result's name: file systems take 255, and while it is written it has a longer one."""
MAX_RECORD_BYTES = 1 << 24
"""Bytes of a record, and of a summary, that are read."""


def check_name(result_folder: Path) -> None:
    """Refuse a name that leaves no room for what it is called while it is written (E0603)."""
    if len(os.fsencode(result_folder.name)) > MAX_NAME_BYTES:
        error = OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        raise atomic_files.explain(error, result_folder, "write this")


def get_work_folder(result_folder: Path) -> Path:
    """Return where that of a slide lies whose result is to lie at a place."""
    name = hashlib.sha256(os.fsencode(result_folder.name)).hexdigest()[:16]
    return result_folder.parent / WORK_FOLDER / name


def get_block_folder(result_folder: Path, digest: str) -> Path:
    """Return where the finished blocks of a job lie."""
    return get_work_folder(result_folder) / f"blocks-{digest}"


def compute_digest(slide: Path, bundle: bytes, settings: Sequence[object]) -> str:
    """Return what tells runs apart whose results differ, in hex.

    Args:
        slide: Its file: one that was touched is another.
        bundle: The bundle's manifest.
        settings: What else decides.

    Raises:
        OSError: There is no such slide.
    """
    file = slide.stat()
    file_state: list[Any] = [os.fsencode(slide.name).hex(), file.st_size]
    file_state += [file.st_mtime_ns, file.st_ctime_ns, hashlib.sha256(bundle).hexdigest()]
    return hashlib.sha256(json.dumps([__version__, file_state, *settings]).encode()).hexdigest()


def read_finished_summary(result_folder: Path, request_digest: str) -> dict[str, Any] | None:
    """Return the summary of the result at a place, if it is whole and what is asked for."""
    with suppress(OSError, ValueError, RecursionError):
        with regular_files.open_file(get_work_folder(result_folder) / RECORD) as file:
            record = json.loads(file.read(MAX_RECORD_BYTES))
        if record == {"request": request_digest, "result": _compute_result_digest(result_folder)}:
            with regular_files.open_file(result_folder / SUMMARY) as file:
                summary: dict[str, Any] = json_records.encode(
                    saved_result.decode_summary(file.read(MAX_RECORD_BYTES))
                )
                return summary
    return None


def mark_finished(result_folder: Path, request_digest: str) -> None:
    """Note that a result is finished, and clear away what it was made of."""
    work_folder = get_work_folder(result_folder)
    record = {"request": request_digest, "result": _compute_result_digest(result_folder)}
    atomic_files.write_file(work_folder / RECORD, json.dumps(record).encode())
    for block_folder in work_folder.glob("blocks-*"):
        atomic_files.remove_path(block_folder)


def _compute_result_digest(result_folder: Path) -> str:
    """Return what tells a result from one that files were taken from, or that is another."""
    sizes = sorted(
        (path.name, path.stat().st_size) for path in result_folder.iterdir() if path.is_file()
    )
    hasher = hashlib.sha256(json.dumps(sizes).encode())
    with regular_files.open_file(result_folder / SUMMARY) as file:
        hasher.update(file.read(MAX_RECORD_BYTES))
    return hasher.hexdigest()


HEARTBEAT_SECONDS, STALE_SECONDS = 5.0, 60.0
LOCK_WAIT_SECONDS = 3.0
"""Seconds that the lock of a process that was just killed may take to be gone."""
POLL_SECONDS = 0.2
"""Seconds between two looks at a lease that another holds."""
LEASE_NAME = "lease"
MAX_LEASE_BYTES = 4096
"""Bytes of a lease that are read."""


@dataclass(eq=False)
class SlideLease:
    """A slide that is ours: the progress of its patches is told to whoever looks."""

    path: Path
    token: str
    patches: tuple[int, int] = (0, 0)
    lost_event: threading.Event = field(default_factory=threading.Event)

    def check(self, slide: Path) -> None:
        """Stop where another took the slide over meanwhile (E1309)."""
        if self.lost_event.is_set():
            raise _build_conflict_error(slide, "it took this run for dead")

    def send_heartbeat(self) -> None:
        """Say that we live, unless the lease is another's by now."""
        with suppress(OSError):  # a disk that is away for a while is no reason to stop
            content = _read_lease(self.path)
            if content and _parse_lease(content).get("token") != self.token:
                self.lost_event.set()
            if not self.lost_event.is_set():
                self._write()

    def _write(self) -> None:
        document: dict[str, Any] = {
            "token": self.token,
            "kernel": _read_boot_id(),
            "pid": os.getpid(),
        }
        document |= {"host": platform.node(), "beat": time.monotonic(), "patches": self.patches}
        # In place, opened and closed: other machines see what is closed, and keep the file.
        with self.path.open("r+b") as file:
            file.write(json.dumps(document).encode())
            file.truncate()

    def send_heartbeats(self, stop_event: threading.Event) -> None:
        """Go on saying so until it is ended."""
        while not stop_event.wait(HEARTBEAT_SECONDS):
            self.send_heartbeat()


@contextmanager
def lock_slide(folder: Path, slide: Path) -> Iterator[SlideLease]:
    """Give the lease of a slide, which lies in the folder of its unfinished work.

    Raises:
        UserError: Another run has it, and lives (E1309), or the folder cannot be written.
    """
    path = folder / LEASE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise atomic_files.explain(error, path, "write this") from error
    stop_event = threading.Event()
    try:
        lease = _wait_for_lease(path, descriptor, slide)
        thread = threading.Thread(target=lease.send_heartbeats, args=(stop_event,), daemon=True)
        thread.start()
        yield lease
        stop_event.set()
        thread.join()
        if not lease.lost_event.is_set():
            os.ftruncate(descriptor, 0)
    finally:
        stop_event.set()
        os.close(descriptor)


def read_progress(folder: Path) -> tuple[int, int] | None:
    """Return how many patches of how many whoever holds a lease has done; None if nobody says."""
    with suppress(OSError, TypeError, ValueError, KeyError):
        done_count, total = _parse_lease(_read_lease(folder / LEASE_NAME))["patches"]
        return (done_count, total) if type(done_count) is type(total) is int else None
    return None


def _wait_for_lease(path: Path, descriptor: int, slide: Path) -> SlideLease:
    """Return a lease that nobody alive holds."""
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while (is_exact := atomic_files.lock(descriptor)) is None:
        if time.monotonic() > deadline:
            raise _build_conflict_error(slide, _describe_owner(path))
        time.sleep(POLL_SECONDS)
    try:
        _wait_for_dead_owner(path, slide, exact=is_exact)
        lease = SlideLease(path, os.urandom(8).hex())
        lease._write()
    except OSError as error:
        raise atomic_files.explain(error, path, "write this") from error
    return lease


def _wait_for_dead_owner(path: Path, slide: Path, *, exact: bool) -> None:
    """Wait until it is clear that a lease's holder is dead; one of this kernel had the lock."""
    old_content = _read_lease(path)
    if not old_content or (exact and _parse_lease(old_content).get("kernel") == _read_boot_id()):
        return
    deadline = time.monotonic() + STALE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        new_content = _read_lease(path)
        if not new_content:
            return
        if new_content != old_content:
            raise _build_conflict_error(slide, _describe_owner(path))


def _read_lease(path: Path) -> bytes:
    # Opened anew each time: that is when a shared disk is asked for what others wrote.
    with path.open("rb") as file:
        return file.read(MAX_LEASE_BYTES)


def _parse_lease(content: bytes) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        document = json.loads(content)
        return document if isinstance(document, dict) else {}
    return {}


def _read_boot_id() -> str:
    """Return what tells the running kernel from any other, and from itself before it was booted."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return os.urandom(8).hex()


def _describe_owner(path: Path) -> str:
    with suppress(OSError):
        document = _parse_lease(_read_lease(path))
        if "host" in document:
            return f"process {document.get('pid')} of {document['host']}"[:100]
    return ""


def _build_conflict_error(slide: Path, label: str) -> UserError:
    help = "its patches are not lost: run the command again when that run has ended"
    message = "another run works on this slide"
    return fail("E1309", message, make_file_span(str(slide)), label=label, help=help)
