"""The program `tcc`: it installs signal handlers before the slow import of the command line."""

from tcc.compiler.support import process_setup


def main() -> None:
    """Run `tcc` in its own process."""
    process_setup.catch_signals()
    process_setup.set_single_blas_thread()
    from tcc.compiler.cli import main as run

    run()
