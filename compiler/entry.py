"""The program `tcc`: ready for signals before it imports the command line, which takes a while."""

from tcc.compiler.support import process_setup


def main() -> None:
    """Run `tcc` as a process of its own."""
    process_setup.catch_signals()
    process_setup.set_single_blas_thread()
    from tcc.compiler.cli import main as run

    run()
