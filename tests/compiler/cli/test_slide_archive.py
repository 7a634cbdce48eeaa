"""`tcc slide run` on folders of slides: parallel runs, clusters, and damaged slides."""

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
from drawn_slides import PINK, PURPLE, build_colour_bundle, draw_pixels, write

from tcc.compiler.slides import slide_archive, slide_record
from tcc.compiler.support import task_runners

pytest.importorskip("openslide", reason="needs the extra `slides`")
SLIDE_ARGS = ("--at", 0.5, "--patch", 32, "--rule", "wide", "-q")
PROGRAM = "import sys; from tcc.compiler.cli import main; sys.exit(main())"
SLOW_STORE = """
import time
from tcc.compiler.slides import patch_grid, slide_job
patch_grid.BLOCK_SIDE = 64
store = slide_job.BlockWorker._store
def store_slowly(self, *args):
    time.sleep(0.05)
    store(self, *args)
slide_job.BlockWorker._store = store_slowly
"""
"""Code that runs before a child's program, so that it is still working when it is killed."""


@pytest.fixture
def bundle(tcc, home):
    return build_colour_bundle(tcc, home)


@pytest.fixture
def archive(home):
    """Three slides in two folders, two with the same name, and other files next to them."""
    for number, name in enumerate(("b.tif", "deep er/b.tif", "deep er/c\nd.tif")):
        path = home / "scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        area = (64, 128, 256, 256 + 32 * number)
        tumour = (128, 160, 192 + 32 * number, 224)
        write(path, draw_pixels(320, 384, (*area, PINK), (*tumour, PURPLE)), levels=2)
    (home / "scans/notes.txt").write_text("a note")
    (home / "scans/.thumbs.tif").write_text("hidden")
    (home / "scans/deep er/up").symlink_to(home / "scans")
    return home / "scans"


def read_contents(folder):
    """Return every file of a folder except the work files of runs."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and slide_record.WORK_FOLDER not in path.parts
    }


@pytest.fixture
def expected(tcc, bundle, archive, home):
    """The files that each slide gives in a separate run."""
    folder_by_slide = {}
    for name in ("b.tif", "deep er/b.tif", "deep er/c\nd.tif"):
        folder = home / "expected" / Path(name).parent
        outcome = tcc("slide", "run", bundle, archive / name, *SLIDE_ARGS, "-o", folder)
        assert outcome.code == 0, outcome.err
        folder_by_slide |= {str(Path(name).with_suffix("")): folder}
    assert len(read_contents(home / "expected")) == 27
    return read_contents(home / "expected")


def test_damaged_slides_do_not_stop_the_others(tcc, bundle, archive, expected, home):
    (archive / "cut.svs").write_bytes((archive / "b.tif").read_bytes()[:2000])
    (archive / "gone.ndpi").symlink_to(home / "nothing")
    args = ("slide", "run", bundle, "scans", *SLIDE_ARGS, "-o", "out", "--workers", 2)
    outcome = tcc(*args, "--json")
    assert outcome.code == 2
    assert read_contents("out") == expected
    assert [member["folder"] for member in outcome.document["slides"]] == [
        "out/b", "out/deep er/b", "out/deep er/c\nd",
    ]  # fmt: skip
    assert outcome.document["failed"] == [
        {"slide": "scans/cut.svs", "state": "failed: E1300"},
        {"slide": "scans/gone.ndpi", "state": "failed: E1300"},
    ]
    files = [member["file"] for member in outcome.document["diagnostics"]]
    assert files == ["scans/cut.svs", "scans/gone.ndpi"]
    assert outcome.document["left_out"] == ["scans/notes.txt"]
    # A later run keeps finished results and adds repaired slides.
    times = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*") if path.is_file()}
    (archive / "gone.ndpi").unlink()
    (archive / "cut.svs").write_bytes((archive / "b.tif").read_bytes())
    outcome = tcc(*(arg for arg in args if arg != "-q"))
    assert outcome.code == 0, outcome.err
    assert "3 of 4 slides are finished" in outcome.err
    assert "skipped files that are not slides by suffix: scans/notes.txt" in outcome.err
    rows = [re.split("  +", line)[:2] for line in outcome.out.splitlines()]
    assert rows == [
        ["slide", "state"],
        ["scans/b.tif", "done before"],
        ["scans/cut.svs", "done"],
        ["scans/deep er/b.tif", "done before"],
        ["scans/deep er/c\ufffdd.tif", "done before"],
    ]
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert read_contents("out/cut")["probabilities.npy"] == expected["b/probabilities.npy"]


def test_folder_without_slides_is_refused(tcc, bundle, home):
    (home / "empty").mkdir()
    outcome = tcc("slide", "run", bundle, "empty", *SLIDE_ARGS)
    assert outcome.code == 2
    assert "error[E1316]: there is no slide in this folder\n  --> empty" in outcome.err


def test_conflicting_result_folders_are_refused(tcc, bundle, archive, home):
    write(archive / "deep er.tif", draw_pixels(64, 64))
    outcome = tcc("slide", "run", bundle, "scans", *SLIDE_ARGS)
    assert outcome.code == 2
    assert "the result of this slide would be inside the result of another" in outcome.err
    (archive / "deep er.tif").rename(archive / "b.svs")
    assert "two slides are named b" in tcc("slide", "run", bundle, "scans", *SLIDE_ARGS).err
    (archive / "b.svs").unlink()
    args = [arg for arg in SLIDE_ARGS if arg not in ("--rule", "wide")]
    outcome = tcc("slide", "run", bundle, "scans", *args, "--mask", "mask.png")
    assert "`--mask` has no effect: it is for one slide" in outcome.err
    outcome = tcc("slide", "run", bundle, "scans", *SLIDE_ARGS, "--dask", "local", "--slurm", "cpu")
    assert "`--slurm` has no effect: `--dask` runs the slides" in outcome.err
    assert not (home / "slides").exists()


def test_results_among_the_slides_are_ignored(tcc, bundle, archive, home):
    (archive / "deep er/up").unlink()
    (archive / "deep er/b.tif").unlink()
    (archive / "deep er/c\nd.tif").unlink()
    assert tcc("slide", "run", bundle, "scans", *SLIDE_ARGS, "-o", "scans").code == 0
    assert (archive / "b/probabilities.ome.tif").exists()
    document = tcc("slide", "run", bundle, "scans", *SLIDE_ARGS, "-o", "scans", "--json").document
    assert [(slide_row["folder"], slide_row["finished_before"]) for slide_row in document["slides"]] == [
        ("scans/b", True),
    ]  # fmt: skip


def test_options_are_passed_to_the_task_of_each_slide(tcc, bundle, archive, home, monkeypatch):
    tasks = []

    def run(task):
        tasks.append(task)
        return slide_archive.build_lost_outcome(task, "nothing runs here")

    monkeypatch.setattr(slide_archive, "run_task", run)
    args = ("--tumour", "tumour", "--skip-damaged", "--mpp", 0.5, "--workers", 8, "--json")
    outcome = tcc("slide", "run", bundle, "scans", *SLIDE_ARGS, *args)
    assert outcome.code == 1
    assert [diagnostic["code"] for diagnostic in outcome.document["diagnostics"]] == ["E1318"] * 3
    sizes = [Path(task.path).stat().st_size for task in tasks]
    assert sizes == sorted(sizes, reverse=True)
    for task in tasks:
        assert task.path == str(home / task.typed_path)
        fixed = ("--at=0.5", "--patch=32", "--rule=wide", "--tumour=tumour", "--skip-damaged")
        assert set(task.arguments) >= {*fixed, "--mpp=0.5", "--workers=2", "--json", "--quiet"}
        assert (
            f"--output={(home / 'slides' / Path(task.typed_path).relative_to('scans')).parent}"
            in (task.arguments)
        )


@pytest.mark.parametrize(
    ("code", "out", "problem_code"),
    [
        (0, '{"slides": [{"patches": 3}]}', None),
        (1, "Traceback", "E1318"),
        (3, '{"error": "openslide is needed"}', "E1318"),
        (-9, "", "E1310"),
    ],
)
def test_outcomes_of_a_slide_process_are_reported(monkeypatch, code, out, problem_code):
    tries = []

    def run(args, options):
        tries.append(args)
        return task_runners.CommandOutcome(code, out, "its stderr")

    monkeypatch.setattr(task_runners, "run_command", run)
    child_end = slide_archive.run_task(slide_archive.SlideTask(("slide",), "/scans/s.tif", "s.tif"))
    assert [problem.code for problem in child_end.problems] == (
        [problem_code] if problem_code else []
    )
    assert len(tries) == (slide_archive.MAX_TRIES if code < 0 else 1)
    if problem_code is None:
        assert child_end.document == {"patches": 3}


@pytest.fixture
def lease(tmp_path, monkeypatch):
    """Take a lease quickly."""
    monkeypatch.setattr(slide_record, "LOCK_WAIT_SECONDS", 0)
    monkeypatch.setattr(slide_record, "POLL_SECONDS", 0.01)
    folder = tmp_path / "work"
    folder.mkdir()
    return lambda: slide_record.lock_slide(folder, tmp_path / "s.tif")


def write_remote_lease(folder, beat):
    lease_json = {"token": "theirs", "kernel": "another", "host": "far", "pid": 7, "beat": beat}
    (folder / "lease").write_text(json.dumps(lease_json | {"patches": [3, 4]}))


def test_active_lease_of_another_machine_is_respected(lease, tmp_path):
    write_remote_lease(tmp_path / "work", 0)
    assert slide_record.read_progress(tmp_path / "work") == (3, 4)
    beats = threading.Timer(0.1, write_remote_lease, (tmp_path / "work", 1))
    beats.start()
    with pytest.raises(slide_record.UserError, match="another run") as error_info, lease():
        pass
    assert error_info.value.diagnostics[0].label == "process 7 on far"
    beats.join()


def test_stale_lease_of_another_machine_is_replaced(lease, tmp_path, monkeypatch):
    monkeypatch.setattr(slide_record, "STALE_SECONDS", 0.05)
    write_remote_lease(tmp_path / "work", 0)
    with lease() as own_lease:
        assert json.loads((tmp_path / "work/lease").read_text())["token"] == own_lease.token
    assert (tmp_path / "work/lease").read_bytes() == b""


def test_lost_lease_is_detected(lease, tmp_path, monkeypatch):
    with lease() as own_lease:
        own_lease.check(tmp_path / "s.tif")
        own_lease.send_heartbeat()
        write_remote_lease(tmp_path / "work", 0)
        own_lease.send_heartbeat()
        with pytest.raises(slide_record.UserError, match="another run is working on this slide"):
            own_lease.check(tmp_path / "s.tif")
    assert slide_record.read_progress(tmp_path / "work") == (3, 4)


def test_lease_of_a_dead_local_process_is_replaced(lease, tmp_path):
    for lease_bytes in (
        b"",
        b"\0" * 9,
        b"[1]",
        json.dumps({"kernel": slide_record._read_boot_id()}).encode(),
    ):
        (tmp_path / "work/lease").write_bytes(lease_bytes)
        slide_record.STALE_SECONDS, stale = 0.05, slide_record.STALE_SECONDS
        try:
            with lease() as own_lease:
                assert own_lease.token
        finally:
            slide_record.STALE_SECONDS = stale


def start_command(*args, **options):
    command = [sys.executable, "-c", PROGRAM, *map(str, args)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, **quiet, **options)


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not (reached := condition()):
        assert time.monotonic() < until
        time.sleep(0.05)
    return reached


def list_processes(home):
    """Return the ids of processes that write slides into a folder."""
    process_ids = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if f"--output={home}".encode() in path.read_bytes():
                process_ids.append(int(path.parent.name))
    return process_ids


@pytest.fixture
def slow_slides(monkeypatch, archive, expected):
    """Slow down the process of each slide, so that it can be killed while it works."""
    monkeypatch.setattr(task_runners, "PROGRAM", SLOW_STORE + task_runners.PROGRAM)
    program = f"from tcc.compiler.support import task_runners; task_runners.PROGRAM = {task_runners.PROGRAM!r}\n"
    monkeypatch.setattr(sys.modules[__name__], "PROGRAM", program + PROGRAM)


@pytest.mark.slow
def test_killed_run_leaves_no_process_and_resumes(tcc, bundle, slow_slides, expected, home):
    args = ("slide", "run", bundle, "scans", *SLIDE_ARGS, "-o", "out", "--workers", 2)
    run = start_command(*args)
    blocks = wait_for(lambda: list(Path("out").rglob("*.npy")))
    run.kill()
    run.wait()
    wait_for(lambda: not list_processes(home), 10)
    times_before = {path: path.stat().st_mtime_ns for path in blocks if path.exists()}
    outcome = tcc(*args)
    assert outcome.code == 0, outcome.err
    assert times_before
    assert read_contents("out") == expected


@pytest.mark.slow
def test_killed_slide_process_is_replaced(tcc, bundle, slow_slides, expected, home):
    killed = []

    def kill():
        killed.extend(wait_for(lambda: list_processes(home) and list(Path("out").rglob("*.npy"))))
        os.kill(list_processes(home)[0], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    outcome = tcc("slide", "run", bundle, "scans", *SLIDE_ARGS, "-o", "out", "--workers", 2)
    thread.join()
    assert killed
    assert outcome.code == 0, outcome.err
    assert read_contents("out") == expected


@pytest.mark.slow
def test_two_runs_share_a_folder_of_slides(tcc, bundle, slow_slides, expected, home):
    args = ("slide", "run", bundle, "scans", *SLIDE_ARGS, "-o", "out")
    other_run = start_command(*args)
    wait_for(lambda: list(Path("out").rglob("*.npy")))
    outcome = tcc(*args, "--json")
    assert outcome.code in (0, 2)
    states = {failure["state"] for failure in outcome.document.get("failed", ())}
    assert states <= {"another run"}
    assert other_run.wait() in (0, 2)
    assert read_contents("out") == expected
    assert tcc(*args).code == 0


@pytest.mark.slow
def test_submitit_jobs_run_the_slides(tcc, bundle, archive, expected, home, monkeypatch):
    """Without Slurm, but with its interface: tasks go out as files, and their outcomes come back."""
    pytest.importorskip("submitit", reason="needs the extra `sweep`")
    monkeypatch.setattr(task_runners, "CLUSTER", "local")
    (archive / "cut.svs").write_bytes((archive / "b.tif").read_bytes()[:2000])
    args = ("slide", "run", bundle, "scans", *SLIDE_ARGS, "-o", "out", "--slurm", "cpu", "--json")
    outcome = tcc(*args)
    assert outcome.code == 2, outcome.err
    assert [diagnostic["code"] for diagnostic in outcome.document["diagnostics"]] == ["E1300"]
    assert len(outcome.document["slides"]) == 3
    assert read_contents("out") == expected
    assert len(list(Path("out/.tcc-slides/slurm").glob("*_result.pkl"))) == 4


def test_missing_slurm_is_reported(tcc, bundle, archive, home, monkeypatch):
    pytest.importorskip("submitit", reason="needs the extra `sweep`")
    monkeypatch.setenv("PATH", str(home))
    outcome = tcc("slide", "run", bundle, "scans", *SLIDE_ARGS, "--slurm", "cpu")
    assert outcome.code == 2
    assert "error[E1317]: Slurm is not installed here\n  --> cpu\n" in outcome.err
    for name, text in (("srun", "exit 0"), ("sbatch", "echo sbatch: error: no cpu >&2; exit 1")):
        (home / name).write_text(f"#!/bin/sh\n{text}\n")
        (home / name).chmod(0o755)
    outcome = tcc("slide", "run", bundle, "scans", *SLIDE_ARGS, "--slurm", "cpu")
    assert outcome.code == 2
    assert "error[E1317]: Slurm rejected these jobs\n  --> cpu\n" in outcome.err
    assert "= sbatch: error: no cpu" in outcome.err


@pytest.mark.slow
def test_dask_cluster_survives_a_killed_worker(tcc, bundle, slow_slides, expected, home):
    distributed = pytest.importorskip("distributed", reason="needs the extra `sweep`")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    args = ("slide", "run", bundle, "scans", *SLIDE_ARGS, "-o", "out", "--json")
    killed = []
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        # The workers' processes must be equally slow.
        client.run(setattr, task_runners, "PROGRAM", task_runners.PROGRAM)
        numbers = client.run(os.getpid)

        def kill():
            wait_for(lambda: list(Path("out").rglob("*.npy")))
            (child, *_) = list_processes(home)
            parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
            killed.append(parent)
            os.kill(parent, signal.SIGKILL)
            wait_for(lambda: not Path(f"/proc/{child}").exists(), 10)

        thread = threading.Thread(target=kill)
        thread.start()
        outcome = tcc(*args, "--dask", cluster.scheduler_address)
        thread.join()
    assert killed[0] in numbers.values()
    assert outcome.code == 0, outcome.err
    assert len(outcome.document["slides"]) == 3
    assert read_contents("out") == expected
