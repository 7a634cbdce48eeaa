"""State of a slide's run: whether it is finished, and which run is working on it.

The state is in a hidden folder next to the results. Its digest includes the times of the slide's
file, to detect a changed slide. The result itself contains no times, so that it is reproducible.

Only one run of those that share a results folder works on a slide. Results are reproducible and are
written atomically: the lease only avoids duplicate work, and correctness does not depend on it.

On one machine, the kernel's lock on the lease shows whether its owner is alive. Machines that share
a disk may not see each other's locks. The owner therefore writes a heartbeat to the lease every
`HEARTBEAT_SECONDS` seconds. If another machine sees no change for `STALE_SECONDS` seconds by its
own clock, it assumes that the owner is dead or disconnected. This assumes that a file that one
machine wrote and closed is visible to others within `STALE_SECONDS` minus one heartbeat, as with
NFS; clocks need not agree. An owner that was wrongly assumed dead finds another token in its lease,
and stops.
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
"""Maximum bytes of a result's name: file systems allow 255, and temporary names are longer."""
MAX_RECORD_BYTES = 1 << 24
"""Maximum size of a record or summary in bytes."""


def check_name(result_folder: Path) -> None:
    """Check that a result's name is short enough for temporary names (E0603)."""
    if len(os.fsencode(result_folder.name)) > MAX_NAME_BYTES:
        error = OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        raise atomic_files.explain(error, result_folder, "write this")


def get_work_folder(result_folder: Path) -> Path:
    """Return the folder of the state and the unfinished work of a slide."""
    name = hashlib.sha256(os.fsencode(result_folder.name)).hexdigest()[:16]
    return result_folder.parent / WORK_FOLDER / name


def get_block_folder(result_folder: Path, digest: str) -> Path:
    """Return the folder of a job's finished blocks."""
    return get_work_folder(result_folder) / f"blocks-{digest}"


def compute_digest(slide: Path, bundle: bytes, settings: Sequence[object]) -> str:
    """Return a hex digest of everything that affects a slide's result.

    Args:
        slide: The slide's file; its size and times are included.
        bundle: The bundle's manifest.
        settings: All other parameters.

    Raises:
        OSError: The slide does not exist.
    """
    file = slide.stat()
    file_state: list[Any] = [os.fsencode(slide.name).hex(), file.st_size]
    file_state += [file.st_mtime_ns, file.st_ctime_ns, hashlib.sha256(bundle).hexdigest()]
    return hashlib.sha256(json.dumps([__version__, file_state, *settings]).encode()).hexdigest()


def read_finished_summary(result_folder: Path, request_digest: str) -> dict[str, Any] | None:
    """Return the summary of a result, if it is complete and matches the request."""
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
    """Record that a result is finished, and remove its blocks."""
    work_folder = get_work_folder(result_folder)
    record = {"request": request_digest, "result": _compute_result_digest(result_folder)}
    atomic_files.write_file(work_folder / RECORD, json.dumps(record).encode())
    for block_folder in work_folder.glob("blocks-*"):
        atomic_files.remove_path(block_folder)


def _compute_result_digest(result_folder: Path) -> str:
    """Return a digest that changes if files of the result are removed or changed.

    It covers names, sizes and the summary.
    """
    sizes = sorted(
        (path.name, path.stat().st_size) for path in result_folder.iterdir() if path.is_file()
    )
    hasher = hashlib.sha256(json.dumps(sizes).encode())
    with regular_files.open_file(result_folder / SUMMARY) as file:
        hasher.update(file.read(MAX_RECORD_BYTES))
    return hasher.hexdigest()


HEARTBEAT_SECONDS, STALE_SECONDS = 5.0, 60.0
LOCK_WAIT_SECONDS = 3.0
"""Maximum delay until the lock of a killed process is released."""
POLL_SECONDS = 0.2
"""Interval for polling the lease of another run."""
LEASE_NAME = "lease"
MAX_LEASE_BYTES = 4096
"""Maximum size of a lease in bytes."""


@dataclass(eq=False)
class SlideLease:
    """This run's lease of a slide; it publishes the progress of the patches."""

    path: Path
    token: str
    patches: tuple[int, int] = (0, 0)
    lost_event: threading.Event = field(default_factory=threading.Event)

    def check(self, slide: Path) -> None:
        """Stop if another run has taken over the slide (E1309)."""
        if self.lost_event.is_set():
            raise _build_conflict_error(slide, "it took over, because it saw no sign of this run")

    def send_heartbeat(self) -> None:
        """Write a heartbeat, unless another run owns the lease by now."""
        with suppress(OSError):  # a temporary failure of the disk is no reason to stop
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
        # Write in place, and close: other machines see closed files, and keep the same file open.
        with self.path.open("r+b") as file:
            file.write(json.dumps(document).encode())
            file.truncate()

    def send_heartbeats(self, stop_event: threading.Event) -> None:
        """Write heartbeats until the event is set."""
        while not stop_event.wait(HEARTBEAT_SECONDS):
            self.send_heartbeat()


@contextmanager
def lock_slide(folder: Path, slide: Path) -> Iterator[SlideLease]:
    """Acquire the lease of a slide, in the folder of its unfinished work.

    Raises:
        UserError: Another live run owns the lease (E1309), or the folder is not writable.
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
    """Return the finished and total patches of a lease's owner; None if they are unknown."""
    with suppress(OSError, TypeError, ValueError, KeyError):
        done_count, total = _parse_lease(_read_lease(folder / LEASE_NAME))["patches"]
        return (done_count, total) if type(done_count) is type(total) is int else None
    return None


def _wait_for_lease(path: Path, descriptor: int, slide: Path) -> SlideLease:
    """Acquire a lease that no live run owns."""
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
    """Wait until the lease's owner is known to be dead; an owner on this kernel held the lock."""
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
    # Open the file each time: NFS checks for changes of other machines when a file is opened.
    with path.open("rb") as file:
        return file.read(MAX_LEASE_BYTES)


def _parse_lease(content: bytes) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        document = json.loads(content)
        return document if isinstance(document, dict) else {}
    return {}


def _read_boot_id() -> str:
    """Return an identifier of the running kernel that changes with every boot."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return os.urandom(8).hex()


def _describe_owner(path: Path) -> str:
    with suppress(OSError):
        document = _parse_lease(_read_lease(path))
        if "host" in document:
            return f"process {document.get('pid')} on {document['host']}"[:100]
    return ""


def _build_conflict_error(slide: Path, label: str) -> UserError:
    help = "run the command again when that run has ended; finished patches are kept"
    message = "another run is working on this slide"
    return fail("E1309", message, make_file_span(str(slide)), label=label, help=help)
