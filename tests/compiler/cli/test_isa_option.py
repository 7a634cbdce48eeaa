"""`--isa` of run, verify and bench selects the instruction set of a host bundle's program."""

import subprocess
from pathlib import Path

import host_forms
import pytest

from tcc.backends.arm.execute import runner
from tcc.backends.arm.machine import MACHINES
from tcc.backends.arm.micro.cores import ISAS

pytestmark = pytest.mark.skipif(
    not host_forms.HOST.has_isa_variants, reason="only x86-64 has a choice of instruction sets"
)
LOWEST_ISA = "x86-64-v2"


@pytest.fixture
def host(built_for_host: Path) -> Path:
    """A bundle of the tiny network for this machine. No test changes it."""
    return built_for_host


def supports_isa(host: Path, name: str) -> bool:
    """Return whether this processor supports an instruction set, by the program's own check."""
    (program,) = host.glob("model/*-run")
    args = [program, "--isa", name, "--describe"]
    return subprocess.run(args, capture_output=True, check=False).returncode == 0


def test_programs_use_the_requested_instruction_set(host, tcc, picture):
    assert supports_isa(host, LOWEST_ISA)
    for args in (["run", host, picture], ["verify", host], ["bench", host, "--runs", "2"]):
        outcome = tcc(*args, "--isa", LOWEST_ISA, "--json")
        assert outcome.code == 0, outcome.err
    (benched,) = outcome.document["bundles"]
    assert benched["how"] == f"this machine as {LOWEST_ISA}, one thread"


@pytest.mark.parametrize("command", ["run", "verify", "bench"])
def test_invalid_isa_is_refused(host, built, tcc, picture, command):
    image_args = [picture] if command == "run" else []
    names = ", ".join(isa.name for isa in ISAS)
    outcome = tcc(command, host, *image_args, "--isa", "avx2")
    assert outcome.code == 2
    assert "error[E0601]: there is no such instruction set" in outcome.err
    assert "command line: --isa" in outcome.err
    assert f"use one of {names}" in outcome.err
    other_outcome = tcc(command, built, *image_args, "--isa", LOWEST_ISA)
    assert other_outcome.code == 2
    assert "onnxruntime has no choice of instruction sets" in other_outcome.err
    lacking = [isa.name for isa in ISAS if not supports_isa(host, isa.name)]
    for name in lacking:
        outcome = tcc(command, host, *image_args, "--isa", name)
        assert (
            outcome.code,
            "error[E0601]: this processor lacks this instruction set" in outcome.err,
        ) == (
            2,
            True,
        )
        assert "command line: --isa" in outcome.err


def test_isa_is_refused_for_a_board(host, tcc):
    outcome = tcc("bench", host, "--ssh", "nowhere", "--isa", LOWEST_ISA)
    assert outcome.code == 2
    assert "`--isa` has no effect: a board uses its own instruction set" in outcome.err


def test_isa_is_refused_on_other_processors():
    for machine in MACHINES:
        if not machine.has_isa_variants:
            with pytest.raises(Exception, match="has no choice of instruction sets"):
                runner.check_isa(machine, LOWEST_ISA)


def test_runner_source_has_the_expected_refusal_text():
    source = Path(runner.__file__).parents[1] / "runtime/runner.c"
    refused = runner.ISA_REFUSAL.decode().removeprefix("--isa: ")
    assert refused in source.read_text("utf-8")
