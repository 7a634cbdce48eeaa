"""Fixtures for all tests."""

import gc
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from package_folders import ROOT

# Before any test imports ONNX Runtime: turn its telemetry off, also in child processes.
import tcc as _  # noqa: F401
from tcc.compiler.support import user_folders

# Every run uses the same examples without a deadline. `--hypothesis-profile=explore` tries others.
settings.register_profile("same", deadline=None, derandomize=True, max_examples=50)
settings.register_profile("explore", deadline=None)
settings.load_profile("same")


# Thousands of tests and their libraries are permanent objects. A garbage collection, as `tcc bench`
# does before it measures, would visit all of them for seconds each time.
gc.disable()


def pytest_collection_finish() -> None:
    """Exclude all current objects from garbage collection."""
    _keep()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After each file, exclude the objects that it added, such as modules and example sets."""
    if nextitem is not None and nextitem.path != item.path:
        _keep()


def _keep() -> None:
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the system tests in tests/: a test of a minute must not start last."""
    items.sort(key=lambda item: item.path.parent != ROOT / "tests")


LEFT_OUT = pytest.StashKey[int]()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Report deselected tests to the controller process, which collects none itself."""
    if items and hasattr(config := items[0].config, "workeroutput"):
        config.workeroutput["deselected"] = config.workeroutput.get("deselected", 0) + len(items)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Store the number of deselected tests. It is the same in each worker."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("deselected", 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests were deselected, as pytest does in a single process."""
    config = terminalreporter.config
    if count := config.stash.get(LEFT_OUT, 0):
        by = f" by -m {config.option.markexpr!r}" if config.option.markexpr else ""
        terminalreporter.write_line(f"{count} tests deselected{by}")


@pytest.fixture(scope="session", autouse=True)
def session_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of this run for the persistent state of tcc, also in child processes."""
    folder = tmp_path_factory.mktemp("state")
    # Kernels of earlier runs are reused if they are sealed with the same key.
    user_folders.seal("", b"")
    if (key := user_folders.locate_key_file()) and key.is_file():
        (folder / "tcc/seal").mkdir(0o700, parents=True)
        shutil.copy(key, folder / "tcc/seal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(folder / "config"))  # keys that the user trusts
        patch.setenv("XDG_STATE_HOME", str(folder))
        # Each test builds its artifacts. Tests of the cache use a separate cache.
        patch.setenv("TCC_CACHE_LIMIT", "0")
        patch.setenv("TCC_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The root folder of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data next to the checkout. Not every machine has it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the reference data in {folder}")
    return folder
