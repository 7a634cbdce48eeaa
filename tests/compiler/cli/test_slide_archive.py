"""`tcc slide run` on archives: folders of slides, several runs, clusters, and what is broken."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from drawn_slides import PINK, PURPLE, colour_bundle, drawn, write

from tcc.compiler.slides import slide_archive, slide_record
from tcc.compiler.support import task_runners

pytest.importorskip("openslide", reason="needs the extra `slides`")
WORDS = ("--at", 0.5, "--patch", 32, "--rule", "wide", "-q")
PROGRAM = "import sys; from tcc.compiler.cli import main; sys.exit(main())"
SLOWLY = """
import time
from tcc.compiler.slides import patch_grid, slide_job
patch_grid.BLOCK_SIDE = 64
store = slide_job.BlockWorker._store
def slow(self, *given):
    time.sleep(0.05)
    store(self, *given)
slide_job.BlockWorker._store = slow
"""
"""Put before a child's program, so that it is at work when it is killed."""


@pytest.fixture
def bundle(tcc, home):
    return colour_bundle(tcc, home)


@pytest.fixture
def archive(home):
    """Three slides in two folders, two of one name, and what is found beside slides."""
    for number, name in enumerate(("b.tif", "deep er/b.tif", "deep er/c\nd.tif")):
        path = home / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        area = (64, 128, 256, 256 + 32 * number)
        tumour = (128, 160, 192 + 32 * number, 224)
        write(path, drawn(320, 384, (*area, PINK), (*tumour, PURPLE)), levels=2)
    (home / "scans/notes.txt").write_text("a note")
    (home / "scans/.thumbs.tif").write_text("hidden")
    (home / "scans/deep er/up").symlink_to(home / "scans")
    return home / "scans"


def contents(folder):
    """Every file of a folder but what is kept of runs."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and slide_record.WORK_FOLDER not in path.parts
    }


@pytest.fixture
def expected(tcc, bundle, archive, home):
    """What each slide gives by itself."""
    made = {}
    for name in ("b.tif", "deep er/b.tif", "deep er/c\nd.tif"):
        place = home / "expected" / Path(name).parent
        done = tcc("slide", "run", bundle, archive / name, *WORDS, "-o", place)
        assert done.code == 0, done.err
        made |= {str(Path(name).with_suffix("")): place}
    assert len(contents(home / "expected")) == 27
    return contents(home / "expected")


def test_a_folder_in_which_slides_are_broken(tcc, bundle, archive, expected, home):
    (archive / "cut.svs").write_bytes((archive / "b.tif").read_bytes()[:2000])
    (archive / "gone.ndpi").symlink_to(home / "nothing")
    words = ("slide", "run", bundle, "scans", *WORDS, "-o", "out", "--workers", 2)
    done = tcc(*words, "--json")
    assert done.code == 2
    assert contents("out") == expected
    assert [each["folder"] for each in done.document["slides"]] == [
        "out/b", "out/deep er/b", "out/deep er/c\nd",
    ]  # fmt: skip
    assert done.document["failed"] == [
        {"slide": "scans/cut.svs", "state": "failed: E1300"},
        {"slide": "scans/gone.ndpi", "state": "failed: E1300"},
    ]
    files = [each["file"] for each in done.document["diagnostics"]]
    assert files == ["scans/cut.svs", "scans/gone.ndpi"]
    assert done.document["left_out"] == ["scans/notes.txt"]
    # Another night: what is finished is left as it is, what was mended is made.
    times = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*") if path.is_file()}
    (archive / "gone.ndpi").unlink()
    (archive / "cut.svs").write_bytes((archive / "b.tif").read_bytes())
    done = tcc(*(word for word in words if word != "-q"))
    assert done.code == 0, done.err
    assert "3 of 4 slides are finished" in done.err
    assert "left out, as no slides by their names: scans/notes.txt" in done.err
    rows = [re.split("  +", line)[:2] for line in done.out.splitlines()]
    assert rows == [
        ["slide", "state"],
        ["scans/b.tif", "done before"],
        ["scans/cut.svs", "done"],
        ["scans/deep er/b.tif", "done before"],
        ["scans/deep er/c\ufffdd.tif", "done before"],
    ]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert contents("out/cut")["probabilities.npy"] == expected["b/probabilities.npy"]


def test_a_folder_without_slides(tcc, bundle, home):
    (home / "empty").mkdir()
    done = tcc("slide", "run", bundle, "empty", *WORDS)
    assert done.code == 2
    assert "error[E1316]: there is no slide in this folder\n  --> empty" in done.err


def test_what_an_archive_cannot_be(tcc, bundle, archive, home):
    write(archive / "deep er.tif", drawn(64, 64))
    done = tcc("slide", "run", bundle, "scans", *WORDS)
    assert done.code == 2
    assert "the result of this slide would lie in the result of another" in done.err
    (archive / "deep er.tif").rename(archive / "b.svs")
    assert "two slides are called b" in tcc("slide", "run", bundle, "scans", *WORDS).err
    (archive / "b.svs").unlink()
    words = [word for word in WORDS if word not in ("--rule", "wide")]
    done = tcc("slide", "run", bundle, "scans", *words, "--mask", "mask.png")
    assert "`--mask` has no effect: it is for one slide" in done.err
    done = tcc("slide", "run", bundle, "scans", *WORDS, "--dask", "local", "--slurm", "cpu")
    assert "`--slurm` has no effect: `--dask` says where slides run" in done.err
    assert not (home / "slides").exists()


def test_results_among_the_slides_are_no_slides(tcc, bundle, archive, home):
    (archive / "deep er/up").unlink()
    (archive / "deep er/b.tif").unlink()
    (archive / "deep er/c\nd.tif").unlink()
    assert tcc("slide", "run", bundle, "scans", *WORDS, "-o", "scans").code == 0
    assert (archive / "b/probabilities.ome.tif").exists()
    found = tcc("slide", "run", bundle, "scans", *WORDS, "-o", "scans", "--json").document
    assert [(one["folder"], one["finished_before"]) for one in found["slides"]] == [
        ("scans/b", True),
    ]  # fmt: skip


def test_what_each_slide_is_told_and_where_it_runs(tcc, bundle, archive, home, monkeypatch):
    found = []

    def run(task):
        found.append(task)
        return slide_archive.build_lost_outcome(task, "nothing runs here")

    monkeypatch.setattr(slide_archive, "run_task", run)
    words = ("--tumour", "tumour", "--skip-damaged", "--mpp", 0.5, "--workers", 8, "--json")
    done = tcc("slide", "run", bundle, "scans", *WORDS, *words)
    assert done.code == 1
    assert [each["code"] for each in done.document["diagnostics"]] == ["E1318"] * 3
    sizes = [Path(task.path).stat().st_size for task in found]
    assert sizes == sorted(sizes, reverse=True)
    for task in found:
        assert task.path == str(home / task.typed)
        fixed = ("--at=0.5", "--patch=32", "--rule=wide", "--tumour=tumour", "--skip-damaged")
        assert set(task.words) >= {*fixed, "--mpp=0.5", "--workers=2", "--json", "--quiet"}
        assert f"--output={(home / 'slides' / Path(task.typed).relative_to('scans')).parent}" in (
            task.words
        )


@pytest.mark.parametrize(
    ("code", "out", "found"),
    [
        (0, '{"slides": [{"patches": 3}]}', None),
        (1, "Traceback", "E1318"),
        (3, '{"error": "openslide is needed"}', "E1318"),
        (-9, "", "E1310"),
    ],
)
def test_how_a_slides_own_run_may_end(monkeypatch, code, out, found):
    tries = []

    def run(words, more):
        tries.append(words)
        return task_runners.CommandOutcome(code, out, "what it said")

    monkeypatch.setattr(task_runners, "run_command", run)
    end = slide_archive.run_task(slide_archive.SlideTask(("slide",), "/scans/s.tif", "s.tif"))
    assert [each.code for each in end.problems] == ([found] if found else [])
    assert len(tries) == (slide_archive.MAX_TRIES if code < 0 else 1)
    if found is None:
        assert end.document == {"patches": 3}


@pytest.fixture
def lease(tmp_path, monkeypatch):
    """Take a lease quickly."""
    monkeypatch.setattr(slide_record, "LOCK_WAIT_SECONDS", 0)
    monkeypatch.setattr(slide_record, "POLL_SECONDS", 0.01)
    folder = tmp_path / "work"
    folder.mkdir()
    return lambda: slide_record.lock_slide(folder, tmp_path / "s.tif")


def elsewhere(folder, beat):
    about = {"token": "theirs", "kernel": "another", "host": "far", "pid": 7, "beat": beat}
    (folder / "lease").write_text(json.dumps(about | {"patches": [3, 4]}))


def test_a_lease_of_another_machine_that_lives(lease, tmp_path):
    elsewhere(tmp_path / "work", 0)
    assert slide_record.read_progress(tmp_path / "work") == (3, 4)
    beats = threading.Timer(0.1, elsewhere, (tmp_path / "work", 1))
    beats.start()
    with pytest.raises(slide_record.UserError, match="another run") as found, lease():
        pass
    assert found.value.diagnostics[0].label == "process 7 of far"
    beats.join()


def test_a_lease_of_another_machine_that_is_dead(lease, tmp_path, monkeypatch):
    monkeypatch.setattr(slide_record, "STALE_SECONDS", 0.05)
    elsewhere(tmp_path / "work", 0)
    with lease() as own:
        assert json.loads((tmp_path / "work/lease").read_text())["token"] == own.token
    assert (tmp_path / "work/lease").read_bytes() == b""


def test_a_lease_that_another_took_over(lease, tmp_path, monkeypatch):
    with lease() as own:
        own.check(tmp_path / "s.tif")
        own.send_heartbeat()
        elsewhere(tmp_path / "work", 0)
        own.send_heartbeat()
        with pytest.raises(slide_record.UserError, match="another run works on this slide"):
            own.check(tmp_path / "s.tif")
    assert slide_record.read_progress(tmp_path / "work") == (3, 4)


def test_a_lease_of_a_dead_process_of_this_machine(lease, tmp_path):
    for left in (
        b"",
        b"\0" * 9,
        b"[1]",
        json.dumps({"kernel": slide_record._read_boot_id()}).encode(),
    ):
        (tmp_path / "work/lease").write_bytes(left)
        slide_record.STALE_SECONDS, stale = 0.05, slide_record.STALE_SECONDS
        try:
            with lease() as own:
                assert own.token
        finally:
            slide_record.STALE_SECONDS = stale


def started(*words, **options):
    command = [sys.executable, "-c", PROGRAM, *map(str, words)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, **quiet, **options)


def wait_for(what, seconds=120):
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return found


def processes(home):
    """The numbers of processes that run slides into a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if f"--output={home}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.fixture
def slowly(monkeypatch, archive, expected):
    """Have each slide's own process be slow, so that it can be killed at work."""
    monkeypatch.setattr(task_runners, "PROGRAM", SLOWLY + task_runners.PROGRAM)
    program = f"from tcc.compiler.support import task_runners; task_runners.PROGRAM = {task_runners.PROGRAM!r}\n"
    monkeypatch.setattr(sys.modules[__name__], "PROGRAM", program + PROGRAM)


@pytest.mark.slow
def test_a_run_that_was_killed_leaves_nobody_and_goes_on(tcc, bundle, slowly, expected, home):
    words = ("slide", "run", bundle, "scans", *WORDS, "-o", "out", "--workers", 2)
    run = started(*words)
    blocks = wait_for(lambda: list(Path("out").rglob("*.npy")))
    run.kill()
    run.wait()
    wait_for(lambda: not processes(home), 10)
    before = {path: path.stat().st_mtime_ns for path in blocks if path.exists()}
    done = tcc(*words)
    assert done.code == 0, done.err
    assert before
    assert contents("out") == expected


@pytest.mark.slow
def test_a_process_that_is_killed_is_replaced(tcc, bundle, slowly, expected, home):
    killed = []

    def kill():
        killed.extend(wait_for(lambda: processes(home) and list(Path("out").rglob("*.npy"))))
        os.kill(processes(home)[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    done = tcc("slide", "run", bundle, "scans", *WORDS, "-o", "out", "--workers", 2)
    thread.join()
    assert killed
    assert done.code == 0, done.err
    assert contents("out") == expected


@pytest.mark.slow
def test_two_runs_share_a_folder(tcc, bundle, slowly, expected, home):
    words = ("slide", "run", bundle, "scans", *WORDS, "-o", "out")
    other = started(*words)
    wait_for(lambda: list(Path("out").rglob("*.npy")))
    done = tcc(*words, "--json")
    assert done.code in (0, 2)
    states = {each["state"] for each in done.document.get("failed", ())}
    assert states <= {"another run"}
    assert other.wait() in (0, 2)
    assert contents("out") == expected
    assert tcc(*words).code == 0


@pytest.mark.slow
def test_jobs_of_submitit(tcc, bundle, archive, expected, home, monkeypatch):
    """Not Slurm, but what stands between: the task goes out as a file, and its end comes back."""
    pytest.importorskip("submitit", reason="needs the extra `sweep`")
    monkeypatch.setattr(task_runners, "CLUSTER", "local")
    (archive / "cut.svs").write_bytes((archive / "b.tif").read_bytes()[:2000])
    words = ("slide", "run", bundle, "scans", *WORDS, "-o", "out", "--slurm", "cpu", "--json")
    done = tcc(*words)
    assert done.code == 2, done.err
    assert [each["code"] for each in done.document["diagnostics"]] == ["E1300"]
    assert len(done.document["slides"]) == 3
    assert contents("out") == expected
    assert len(list(Path("out/.tcc-slides/slurm").glob("*_result.pkl"))) == 4


def test_where_there_is_no_slurm(tcc, bundle, archive, home, monkeypatch):
    pytest.importorskip("submitit", reason="needs the extra `sweep`")
    monkeypatch.setenv("PATH", str(home))
    done = tcc("slide", "run", bundle, "scans", *WORDS, "--slurm", "cpu")
    assert done.code == 2
    assert "error[E1317]: there is no Slurm here\n  --> cpu\n" in done.err
    for name, text in (("srun", "exit 0"), ("sbatch", "echo sbatch: error: no cpu >&2; exit 1")):
        (home / name).write_text(f"#!/bin/sh\n{text}\n")
        (home / name).chmod(0o755)
    done = tcc("slide", "run", bundle, "scans", *WORDS, "--slurm", "cpu")
    assert done.code == 2
    assert "error[E1317]: Slurm does not take these jobs\n  --> cpu\n" in done.err
    assert "= sbatch: error: no cpu" in done.err


@pytest.mark.slow
def test_a_dask_cluster_of_which_a_worker_is_killed(tcc, bundle, slowly, expected, home):
    distributed = pytest.importorskip("distributed", reason="needs the extra `sweep`")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    words = ("slide", "run", bundle, "scans", *WORDS, "-o", "out", "--json")
    killed = []
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        # The workers' own processes have to be as slow.
        client.run(setattr, task_runners, "PROGRAM", task_runners.PROGRAM)
        numbers = client.run(os.getpid)

        def kill():
            wait_for(lambda: list(Path("out").rglob("*.npy")))
            (child, *_) = processes(home)
            parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
            killed.append(parent)
            os.kill(parent, signal.SIGKILL)
            wait_for(lambda: not Path(f"/proc/{child}").exists(), 10)

        thread = threading.Thread(target=kill)
        thread.start()
        done = tcc(*words, "--dask", cluster.scheduler_address)
        thread.join()
    assert killed[0] in numbers.values()
    assert done.code == 0, done.err
    assert len(done.document["slides"]) == 3
    assert contents("out") == expected
