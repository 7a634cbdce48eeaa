"""The program `tcc`: ready for signals before it imports the command line, which takes a while."""

from tcc.compiler.support import end_signals


def main() -> None:
    """Run `tcc` as a process of its own."""
    end_signals.catch()
    from tcc.compiler.cli import main as run

    run()
