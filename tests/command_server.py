"""Runs `tcc` commands from standard input, one JSON list of arguments per line.

Each command runs in a fork of this process. This process has imported the dependencies of every
installation, but nothing of tcc or its extras.
"""

import importlib
import json
import os
import sys
import tempfile

import tcc

EVERYWHERE = ("msgspec", "numpy", "onnx", "onnxruntime", "ruamel.yaml", "typer")


def main() -> None:
    """Answer each line with the exit code and the output of the command."""
    assert tcc.__version__
    for name in EVERYWHERE:
        importlib.import_module(name)
    for line in sys.stdin:
        code, text = run(json.loads(line))
        sys.stdout.write(f"{json.dumps({'code': code, 'text': text})}\n")
        sys.stdout.flush()


def run(arguments: list[str]) -> tuple[int, str]:
    """Return the exit code of a command (negative: a signal) and its output."""
    with tempfile.TemporaryFile() as output_file:
        if not (child := os.fork()):
            for descriptor in (1, 2):
                os.dup2(output_file.fileno(), descriptor)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            begin(arguments)
        status = os.waitpid(child, 0)[1]
        output_file.seek(0)
        return os.waitstatus_to_exitcode(status), output_file.read().decode(errors="replace")


def begin(arguments: list[str]) -> None:
    """Run `tcc` with these arguments, like the script that pip installs."""
    sys.argv = ["tcc", *arguments]
    from tcc.compiler.cli import main as command

    try:
        command()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
