"""The commands and code blocks of a page, and functions to run them."""

import os
import re
import subprocess
import sys


def find_blocks(text, language):
    """Return the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def list_commands(text):
    """Return the lines of the shell blocks, without comments."""
    lines = (line for block in find_blocks(text, "sh") for line in block.splitlines())
    return [line.partition("  #")[0].strip() for line in lines]


def write_program(folder, name, arguments):
    """Write a program that runs this Python with some arguments, followed by its own."""
    (folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {arguments} "$@"\n')
    (folder / name).chmod(0o755)


def create_environment(folder):
    """Return an environment in which `tcc` and `python` run with this Python."""
    main = folder / "tcc_main.py"
    main.write_text("from tcc.compiler.cli import main\nmain()\n")
    write_program(folder, "tcc", main)
    write_program(folder, "python", "")
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


def run(line, folder, environment):
    """Run a line of a page and return its output. tcc must refuse a line `! command`."""
    refused = line.startswith("! ")
    process = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line.removeprefix("! ")],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = f"$ {line}\n{process.stdout}{process.stderr}"
    assert process.returncode in ((2, 4) if refused else (0,)), report
    assert bool(re.search(r"^error", process.stderr, re.MULTILINE)) == refused, report
    assert "Traceback" not in process.stderr
    return process.stdout
