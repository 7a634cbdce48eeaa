"""`tcc` as a process: exit codes, signals, streams, full disks and imports."""

import contextlib
import importlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "PIL", "networkx", "numpy", "onnx", "onnxruntime", "pydantic", "rich", "ruamel",
    "safetensors", "torch", "tvm", "yaml",
}  # fmt: skip
PROGRAM = "import sys; from tcc.compiler.cli import main; sys.exit(main())"
BUILD = ("build", "tiny.yaml", "--target", "onnxruntime", "-q")
HANGING_BUILD = """
import sys, time
from tcc.compiler.bundle import goldens
def hang(*_):
    print("stuck", flush=True)
    time.sleep(600)
goldens.build_goldens = hang
from tcc.compiler.cli import main
main()
"""
KILL_AT_CALL = """
import os, signal, sys
from pathlib import Path
call, number = sys.argv.pop(1), int(sys.argv.pop(1))
owner = os if call == "fsync" else Path
original, calls = getattr(owner, call), []
def kill_process(*arguments):
    calls.append(1)
    if len(calls) == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
setattr(owner, call, kill_process)
from tcc.compiler.cli import main
main()
"""


def read_tree(folder: Path) -> dict[str, bytes]:
    file_paths = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in file_paths}


def test_command_line_imports_no_heavy_library():
    program = (
        "import sys, tcc.compiler.cli\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert HEAVY & set(completed.stdout.split()) == set()


@pytest.mark.parametrize(
    "arguments", [(), ("--help",), ("-h",), ("build", "--help"), ("--version",)]
)
def test_help_imports_no_heavy_library(process, arguments):
    program = (
        "import sys, atexit\n"
        "atexit.register(lambda: print(*sorted(m.partition('.')[0] for m in sys.modules),"
        " file=sys.stderr))\n" + PROGRAM
    )
    outcome = process(*arguments, program=program)
    assert outcome.code == 0
    assert outcome.out
    assert HEAVY & set(outcome.err.split()) == set()


def test_help_lists_every_command(tcc):
    sections = tcc("--help").out.partition("Start:")[2]
    assert re.findall(r"^([A-Z]\w+):", sections, re.MULTILINE) == [
        "Build", "Inspect", "Deploy", "Maintain",
    ]  # fmt: skip
    commands = re.findall(r"^  ([a-z-]+)  ", sections, re.MULTILINE)
    own_commands = {
        "check",
        "show",
        "calibrate",
        "build",
        "run",
        "import",
        "targets",
        "doctor",
        "fmt",
    }
    assert own_commands <= set(commands)
    groups = {
        group: re.findall(r"^  ([a-z]+)  ", tcc(group, "--help").out, re.MULTILINE)
        for group in ("slide", "trust", "dev")
    }
    assert len(groups["slide"]) > 1
    every = [[command] for command in commands if command not in groups]
    for args in (*every, *([group, kind] for group, kinds in groups.items() for kind in kinds)):
        text = tcc(*args, "--help").out
        text = tcc(*args, "--help-all").out if "--help-all" in text else text
        assert all(option in text for option in ("--json", "--quiet", "--verbose"))


def test_shell_completion_knows_specs_and_targets(process):
    def completed(command_line):
        count = str(len(command_line.split(" ")) - 1)
        env = {"_TCC_COMPLETE": "complete_bash", "COMP_WORDS": command_line, "COMP_CWORD": count}
        return process(env=env).out.split()

    assert completed("tcc imp") == ["import"]
    assert completed("tcc plot grad") == ["gradcam"]
    assert "ddsnet" in completed("tcc check dds")
    assert completed("tcc build --target host,onnx") == ["host,onnxruntime"]


def test_completion_script_is_for_the_calling_shell(home):
    # tcc looks for the shell among its parent processes: here there is always one.
    command = f"{sys.executable} -c '{PROGRAM}' --show-completion; exit $?"
    completed = subprocess.run(["bash", "-c", command], check=False, capture_output=True, text=True)
    assert (completed.returncode, completed.stderr) == (0, "")
    assert "complete -o default -F _tcc_completion tcc" in completed.stdout


class TestUsage:
    def test_misspelt_command_has_a_suggestion(self, tcc):
        outcome = tcc("bild")
        assert (outcome.code, outcome.out) == (2, "")
        assert "No such command 'bild'. Did you mean 'build', 'field'?" in outcome.err

    def test_misspelt_option_is_refused(self, tcc):
        outcome = tcc("build", "--tagret", "x")
        assert outcome.code == 2
        assert "Usage: tcc build [OPTIONS] [SPEC]" in outcome.err
        assert "--target" in outcome.err

    @pytest.mark.parametrize("arguments", [(), ("slide",), ("plot",)])
    def test_missing_command_prints_the_help(self, tcc, arguments):
        outcome = tcc(*arguments)
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out == tcc(*arguments, "--help").out

    def test_missing_argument_is_refused(self, tcc):
        outcome = tcc("run")
        assert outcome.code == 2
        assert "Missing argument 'BUNDLE'" in outcome.err

    def test_usage_error_as_json(self, tcc):
        outcome = tcc("check", "--nope", "--json")
        assert outcome.code == 2
        assert outcome.document == {"error": "No such option: --nope", "exit": 2, "diagnostics": []}


class TestErrors:
    def test_user_error_as_json(self, tcc):
        outcome = tcc("check", "nothing.yaml", "--json")
        assert outcome.code == 2
        assert outcome.document["error"] == "the file `nothing.yaml` does not exist"
        (diagnostic,) = outcome.document["diagnostics"]
        assert (diagnostic["code"], diagnostic["severity"]) == ("E0608", "error")
        assert "error[E0608]" in outcome.err

    def test_internal_error_is_one_line(self, tcc, monkeypatch):
        # These modules keep references to what they import.
        importlib.import_module("tcc.compiler.frontend.spec_tests")
        spec_check = importlib.import_module("tcc.compiler.driver.spec_check")
        monkeypatch.setattr(spec_check, "compute_cost", lambda graph: 1 // 0)
        outcome = tcc("check", "tiny.yaml")
        assert (outcome.code, outcome.out) == (1, "")
        assert outcome.err == (
            "internal error: ZeroDivisionError: integer division or modulo by zero\n"
            "   = help: this is a bug in tcc; please report it with the output of --verbose\n"
        )
        assert "Traceback" in tcc("check", "tiny.yaml", "--verbose").err
        document = tcc("check", "tiny.yaml", "--json").document
        assert document["exit"] == 1
        monkeypatch.setenv("TCC_DEBUG", "1")
        assert "Traceback" in tcc("check", "tiny.yaml").err

    def test_control_characters_are_replaced(self, tcc):
        outcome = tcc("check", "x\x1b[31my")
        assert outcome.code == 2
        assert "\x1b" not in outcome.err

    def test_unencodable_text_is_escaped(self, process, home):
        text = (home / "tiny.yaml").read_text().replace("'owl'", "'猫'")
        (home / "tiny.yaml").write_text(text)
        env = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
        outcome = process("show", "tiny.yaml", "--stage", "spec", env=env)
        assert (outcome.code, outcome.err) == (0, "")
        assert "\\u732b" in outcome.out


class TestStreams:
    def test_closed_pipe_is_no_error(self, home):
        command = f"{sys.executable} -c '{PROGRAM}' show ddsnet | head -1"
        completed = subprocess.run(
            ["bash", "-c", command], check=False, capture_output=True, text=True
        )
        assert (completed.stdout, completed.stderr) == ("graph ddsnet {\n", "")

    def test_full_standard_output_is_reported(self, process):
        with open("/dev/full", "w") as full:
            outcome = process("check", "tiny.yaml", stdout=full)
        assert outcome.code == 1
        assert "error[E0604]: cannot go on: No space left on device\n" in outcome.err
        assert "--> <standard output>" in outcome.err
        assert "Traceback" not in outcome.err

    def test_closed_standard_output_is_no_error(self, home):
        command = f"{sys.executable} -c '{PROGRAM}' check tiny.yaml >&-"
        completed = subprocess.run(["bash", "-c", command], check=False, capture_output=True)
        assert (completed.returncode, completed.stderr) == (0, b"")


class TestInterrupted:
    @pytest.mark.parametrize(
        ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
    )
    def test_signal_stops_the_command_cleanly(self, built, home, number, code):
        files_before = read_tree(home)
        # A shell starts background processes with some signals ignored.
        reset = f"import signal; signal.signal({int(number)}, signal.SIG_DFL)\n"
        if number == signal.SIGINT:
            reset = reset.replace("SIG_DFL", "default_int_handler")
        command = [sys.executable, "-c", reset + HANGING_BUILD, *BUILD]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout
            assert child.stdout.readline() == "stuck\n"
            child.send_signal(number)
            _, text = child.communicate(timeout=300)
        assert child.returncode == code
        assert "Traceback" not in text
        assert read_tree(home) == files_before

    @pytest.mark.parametrize(("call", "number"), [("fsync", 3), ("rename", 1), ("rename", 2)])
    def test_kill_loses_nothing(self, process, tcc, built, home, call, number):
        """Killed while writing, before and between the two renames that replace a bundle."""
        files_before = read_tree(built)
        outcome = process(call, number, *BUILD, "--seed", 5, program=KILL_AT_CALL)
        assert outcome.code == -signal.SIGKILL
        image = home / "x.png"
        image.write_bytes(files_before["goldens/1/image.png"])
        assert tcc("run", built, image, "-q").code == 0
        assert read_tree(built) == files_before
        assert tcc(*BUILD, "--seed", 5).code == 0
        assert (
            "random (seed 5)"
            in json.loads((built / "manifest.json").read_text())["weights"]["notice"]
        )
        assert [p.name for p in built.parent.iterdir()] == [built.name]


class TestDisk:
    @pytest.fixture
    def small(self, tmp_path):
        """A disk of 64 KiB."""
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tcc-test", str(folder)]
        with contextlib.suppress(OSError):
            if subprocess.run(command, check=False, capture_output=True).returncode == 0:
                yield folder
                subprocess.run(["umount", str(folder)], check=True)
                return
        pytest.skip("cannot mount a small disk")

    def test_full_disk_leaves_no_partial_file(self, process, small, home):
        outcome = process(*BUILD, "--out", small)
        assert outcome.code == 1
        assert "error[E0604]: cannot write this: No space left on device" in outcome.err
        assert "no partial file is left" in outcome.err
        assert list(small.iterdir()) == []

    def test_full_disk_keeps_the_old_bundle(self, tcc, built, full_disk):
        files_before = read_tree(built)
        with full_disk(after=4):
            outcome = tcc(*BUILD, "--seed", 5, "--json")
        assert outcome.code == 1
        assert outcome.document["diagnostics"][0]["code"] == "E0604"
        assert read_tree(built) == files_before
        assert [p.name for p in built.parent.iterdir()] == [built.name]

    def test_file_as_output_folder_is_refused(self, tcc, home):
        outcome = tcc(*BUILD, "--out", "tiny.yaml")
        assert outcome.code == 2
        assert "error[E0603]: cannot write this" in outcome.err


class TestTools:
    def test_targets(self, tcc):
        outcome = tcc("targets")
        assert outcome.code == 0
        assert outcome.out.splitlines()[0].split() == (
            ["target", "what", "precisions", "calibrates", "builds", "runs", "here"]
        )
        target_by_name = {
            target["name"]: target for target in tcc("targets", "--json").document["targets"]
        }
        assert {"onnxruntime", "arm-a7", "host"} <= set(target_by_name)
        assert target_by_name["onnxruntime"]["aliases"] == ["ort"]
        assert (
            target_by_name["onnxruntime"]["builds"] is target_by_name["onnxruntime"]["runs"] is True
        )
        abilities = [target_by_name["ax620"][can] for can in ("calibrates", "builds", "runs")]
        assert abilities == [True, True, False]
        assert tcc("targets", "-q").out.split() == list(target_by_name)

    def test_targets_list_missing_tools(self, process):
        document = process("targets", "--json", env={"PATH": "/nonexistent"}).document
        (arm,) = (target for target in document["targets"] if target["name"] == "arm-a7")
        assert arm["runs"] is False
        assert "apt-get install" in arm["missing"][-1]["install"]
        text = process("targets", env={"PATH": "/nonexistent"}).out
        assert "install it: apt-get install" in text

    def test_doctor(self, tcc):
        outcome = tcc("doctor")
        assert outcome.code == 0
        assert outcome.out.startswith("tcc ")
        document = tcc("doctor", "--json").document
        assert document["works"] is True
        assert {"numpy", "onnx", "typer"} <= {package["name"] for package in document["packages"]}
        assert document["system"]["free_bytes"]["working folder"] > 0
        products = document["system"]["products"]
        assert products["form"] in {"u8s8", "u8u8"}
        details = tcc("dev", "doctor")
        assert products["why"] in details.out
        assert "onnxruntime" in details.out
        assert "onnxruntime" not in outcome.out
        assert tcc("dev", "doctor", "--json").document.keys() == document.keys()

    def test_doctor_reports_broken_packages(self, process, home):
        """A package that does not load is named with its install command, and the exit code is 3."""
        (home / "safetensors.py").write_text("raise ImportError('no such symbol')")
        outcome = process("doctor", "--json", env={"PYTHONPATH": str(home)})
        assert outcome.code == 3
        (package,) = (p for p in outcome.document["packages"] if p["problem"])
        assert package["name"] == "safetensors"
        assert package["problem"] == "does not load: no such symbol"
        assert package["install"] == "pip install safetensors"
        assert "safetensors" in process("doctor", env={"PYTHONPATH": str(home)}).out


@pytest.mark.slow
def test_arm_program_runs_under_qemu_or_reports_it_missing(process, tcc, home, picture):
    import shutil

    assert tcc("build", "tiny.yaml", "--target", "arm-a7", "-q").code == 0
    bundle = home / "build/tiny-arm-a7-fp32"
    outcome = process("run", bundle, picture, "--json", env={"PATH": "/nonexistent"})
    assert outcome.code == 3
    assert outcome.document["tool"]["name"] == "qemu-arm"
    assert "help: install it: apt-get install" in outcome.err
    if not shutil.which("qemu-arm"):
        pytest.skip("qemu-arm is not installed")
    assert tcc("build", "tiny.yaml", "--target", "onnxruntime", "-q").code == 0
    arm = tcc("run", bundle, picture, "--json").document["images"][0]
    ort = tcc("run", "build/tiny-onnxruntime-fp32", picture, "--json").document["images"][0]
    for name, output in arm["outputs"].items():
        assert output["raw"] == pytest.approx(ort["outputs"][name]["raw"], abs=1e-6)
