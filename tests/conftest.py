"""Fixtures that every test may use."""

import gc
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from package_folders import ROOT

# Before any test imports ONNX Runtime: its telemetry is off, here and in other processes.
import tcc as _  # noqa: F401
from tcc.compiler.support import user_folders

# Every run tries the same examples, so that many of them find no more than they once did, and none
# is timed; `--hypothesis-profile=explore` tries others.
settings.register_profile("same", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("explore", deadline=None)
settings.load_profile("same")


# Thousands of tests, and the libraries that they import, are objects that stay: whoever collects
# garbage, as `tcc bench` does before it measures, walked over all of them, for seconds each time.
gc.disable()


def pytest_collection_finish() -> None:
    """Have collections of garbage leave out what is here now."""
    _keep()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After each file, have them leave out what it brought, such as modules and sets of examples."""
    if nextitem is not None and nextitem.path != item.path:
        _keep()


def _keep() -> None:
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what tries the whole: a test that takes a minute must not be begun last."""
    items.sort(key=lambda item: item.path.parent != ROOT / "tests")


LEFT_OUT = pytest.StashKey[int]()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Tell the process that reports: where tests run in several, it collects none itself."""
    if items and hasattr(config := items[0].config, "workeroutput"):
        config.workeroutput["deselected"] = config.workeroutput.get("deselected", 0) + len(items)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear it; each process has deselected the same."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("deselected", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were left out, as pytest does where it runs in one process."""
    config = terminalreporter.config
    if count := config.stash.get(LEFT_OUT, 0):
        by = f" by -m {config.option.markexpr!r}" if config.option.markexpr else ""
        terminalreporter.write_line(f"{count} tests deselected{by}")


@pytest.fixture(scope="session", autouse=True)
def session_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of this run's own for what tcc is not to forget, here and in other processes."""
    folder = tmp_path_factory.mktemp("state")
    # Kernels that earlier runs compiled are taken where they are sealed by the same key.
    user_folders.seal("", b"")
    if (key := user_folders.locate_key_file()) and key.is_file():
        (folder / "tcc/seal").mkdir(0o700, parents=True)
        shutil.copy(key, folder / "tcc/seal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))  # whom the user trusts
        patch.setenv("XDG_STATE_HOME", str(folder))
        # Each test builds what it looks at; those of the cache have one of their own.
        patch.setenv("TCC_CACHE_LIMIT", "0")
        patch.setenv("TCC_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the checkout, which not every machine has."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the reference data in {folder}")
    return folder
