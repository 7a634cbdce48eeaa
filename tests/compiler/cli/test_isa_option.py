"""`--isa` of run, verify and bench: which instructions a host bundle's program uses here."""

import subprocess
from pathlib import Path

import host_forms
import pytest

from tcc.backends.arm.execute import runner
from tcc.backends.arm.machine import MACHINES
from tcc.backends.arm.micro.cores import ISAS

pytestmark = pytest.mark.skipif(
    not host_forms.HOST.has_isa_variants, reason="instruction sets are chosen among on x86-64 alone"
)
LEAST = "x86-64-v2"


@pytest.fixture
def host(built_for_host: Path) -> Path:
    """A bundle of the tiny network for this machine, which no test changes."""
    return built_for_host


def has(host: Path, name: str) -> bool:
    """Return whether this processor has an instruction set, by what the program itself says."""
    (program,) = host.glob("model/*-run")
    words = [program, "--isa", name, "--describe"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_programs_use_what_they_are_told_to(host, tcc, picture):
    assert has(host, LEAST)
    for words in (["run", host, picture], ["verify", host], ["bench", host, "--runs", "2"]):
        ended = tcc(*words, "--isa", LEAST, "--json")
        assert ended.code == 0, ended.err
    (benched,) = ended.document["bundles"]
    assert benched["how"] == f"this machine as {LEAST}, one thread"


@pytest.mark.parametrize("command", ["run", "verify", "bench"])
def test_what_cannot_be_is_refused(host, built, tcc, picture, command):
    more = [picture] if command == "run" else []
    names = ", ".join(isa.name for isa in ISAS)
    ended = tcc(command, host, *more, "--isa", "avx2")
    assert ended.code == 2
    assert "error[E0601]: there is no such instruction set" in ended.err
    assert "command line: --isa" in ended.err
    assert f"say one of {names}" in ended.err
    other = tcc(command, built, *more, "--isa", LEAST)
    assert other.code == 2
    assert "what is built for onnxruntime chooses no instruction set" in other.err
    lacking = [isa.name for isa in ISAS if not has(host, isa.name)]
    for name in lacking:
        ended = tcc(command, host, *more, "--isa", name)
        assert (ended.code, "error[E0601]: this processor has no such" in ended.err) == (2, True)
        assert "command line: --isa" in ended.err


def test_a_board_makes_its_own_choice(host, tcc):
    ended = tcc("bench", host, "--ssh", "nowhere", "--isa", LEAST)
    assert ended.code == 2
    assert "`--isa` has no effect: a board chooses its own instructions" in ended.err


def test_other_processors_have_no_choice():
    for machine in MACHINES:
        if not machine.has_isa_variants:
            with pytest.raises(Exception, match="chooses no instruction set"):
                runner.check_isa(machine, LEAST)


def test_a_program_that_lacks_a_set_says_so_in_the_words_that_are_looked_for():
    source = Path(runner.__file__).parents[1] / "runtime/runner.c"
    refused = runner.ISA_REFUSAL.decode().removeprefix("--isa: ")
    assert refused in source.read_text("utf-8")
