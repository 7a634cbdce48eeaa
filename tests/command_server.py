"""Runs commands of `tcc` that stand on standard input, a JSON list of words a line.

Each runs in a process that is forked from this one, which has imported what every installation
holds; of tcc and of what its extras bring it has imported nothing.
"""

import importlib
import json
import os
import sys
import tempfile

import tcc

EVERYWHERE = ("msgspec", "numpy", "onnx", "onnxruntime", "ruamel.yaml", "typer")


def main() -> None:
    """Answer each line with the exit code, and with all that the command printed."""
    assert tcc.__version__
    for name in EVERYWHERE:
        importlib.import_module(name)
    for line in sys.stdin:
        code, text = run(json.loads(line))
        sys.stdout.write(f"{json.dumps({'code': code, 'text': text})}\n")
        sys.stdout.flush()


def run(arguments: list[str]) -> tuple[int, str]:
    """Return the exit code of a command (negative: a signal), and what it printed."""
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
    """Be `tcc` with these words, as the script that pip installs is."""
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
