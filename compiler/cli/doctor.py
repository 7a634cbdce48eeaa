"""`tcc doctor`: check that tcc works and what is missing; `tcc dev doctor`: show everything."""

import os
import platform
import shutil
import sys
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from tcc.compiler.cli import failures
from tcc.compiler.cli.options import ReportOptions
from tcc.compiler.support import memory_limit
from tcc.compiler.support.console import Report, format_bytes
from tcc.compiler.support.external_tools import EXTRAS, Tool, describe_install

BASE = {
    "ml-dtypes": "ml_dtypes",
    "msgspec": "msgspec",
    "networkx": "networkx",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "pillow": "PIL",
    "rich": "rich",
    "ruamel.yaml": "ruamel.yaml",
    "safetensors": "safetensors",
    "threadpoolctl": "threadpoolctl",
    "typer": "typer",
}
"""The required packages, and for each the module that shows that it works."""
ABSENT = "not installed"
ONNX_RUNTIME = {
    "u8s8": "ONNX Runtime runs int8 files without extra options",
    "u8u8": "ONNX Runtime needs session.x64quantprecision=1 for int8 files; `tcc run` sets it",
}
"""How ONNX Runtime multiplies unsigned activations by signed weights."""
MIN_FREE_BYTES = 1 << 30
"""Bytes of free disk below which a build can fail."""


def check_installation(*, report: ReportOptions) -> None:
    """Check that tcc works on this machine, and show how to install what is missing."""
    _report(report, details=False)


def show_installation(*, report: ReportOptions) -> None:
    """Show each package and tool with its version, and this machine."""
    _report(report, details=True)


def _report(report: Report, *, details: bool) -> None:
    packages = list(_check_needed())
    broken = [p for p in packages if p["problem"]]
    # Backends import packages that may be broken, which would end this command.
    tools = _list_tools() if not broken else []
    packages += _list_optional({tool.name for tool in tools})
    document: dict[str, Any] = {
        "works": not broken,
        "system": _describe_system(),
        "packages": packages,
        "tools": [asdict(tool) for tool in tools],
    }
    if not report.quiet:
        if details:
            _print_system(report, document["system"])
        else:
            _print_health(report, document)
        _print_packages(report, document["packages"], tools, every=details)
    report.print_document(document)
    if broken:
        raise typer.Exit(failures.TOOL)


def _describe_system() -> dict[str, Any]:
    from tcc.compiler.support import atomic_files, cpu
    from tcc.compiler.version import __version__

    features = cpu.read_features()
    folders = {"working folder": Path.cwd(), "temporary folder": atomic_files.find_scratch_root()}
    free = {name: shutil.disk_usage(path).free for name, path in folders.items()}
    return {
        "tcc": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "flags": [flag for flag in cpu.INTEGER_FLAGS if flag in features],
        "products": asdict(cpu.select_product_types(features)),
        "free_bytes": free,
        "low_on_disk": [
            folder_name for folder_name, count in free.items() if count < MIN_FREE_BYTES
        ],
    }


def _check_needed() -> Iterator[dict[str, Any]]:
    """Yield version and problem of each required package."""
    from importlib import import_module, metadata

    for name, module in BASE.items():
        version = problem = None
        try:
            version = metadata.version(name)
            # An installed package may fail to load, for example without a system library. Only an
            # import shows it.
            import_module(module)
        except metadata.PackageNotFoundError:
            problem = ABSENT
        except Exception as error:  # a broken package can fail in any way
            if memory_limit.is_caused_by_shortage(error):
                raise  # the package is not broken
            problem = f"does not load: {error}".splitlines()[0]
        yield _describe_package(name, version, problem, needed=True)


def _list_optional(tools: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield the packages of extras that are not tools of targets."""
    from tcc.compiler.support import external_tools

    for name in (name for names in EXTRAS.values() for name in names if name not in tools):
        version = external_tools.installed_version(name)
        yield _describe_package(name, version, None if version else ABSENT, needed=False)


def _describe_package(
    name: str, version: str | None, problem: str | None, *, needed: bool
) -> dict[str, Any]:
    command = describe_install(name) if problem else None
    return {
        "name": name, "version": version, "needed": needed, "problem": problem, "install": command
    }  # fmt: skip


def _list_tools() -> list[Tool]:
    from tcc.compiler.targets import devices

    tools = {tool.name: tool for device in devices.list_devices() for tool in device.tools}
    return [tool for name, tool in tools.items() if name not in BASE]


def _print_health(report: Report, document: dict[str, Any]) -> None:
    system = document["system"]
    state = (
        "works" if document["works"] else "does not work: required packages are missing or broken"
    )
    report.print_text(f"tcc {system['tcc']} {state} with Python {system['python']}")
    for folder_name in system["low_on_disk"]:
        report.print_text(
            f"only {format_bytes(system['free_bytes'][folder_name])} free in the "
            f"{folder_name}: builds can fail"
        )
    report.print_text("`tcc dev doctor` shows all packages, tools and this machine")


def _print_system(report: Report, system: dict[str, Any]) -> None:
    free = [
        f"{format_bytes(count)} free in the {folder_name}"
        for folder_name, count in system["free_bytes"].items()
    ]
    products = system["products"]
    report.print_text(
        f"tcc {system['tcc']}, Python {system['python']} ({system['executable']})\n"
        f"{system['platform']}, {system['processors']} processors, "
        f"{' '.join(system['flags']) or 'no known features'}\n"
        f"{ONNX_RUNTIME[products['form']]}: {products['why']}\n"
        f"{', '.join(free)}"
        f"{'; builds can fail' if system['low_on_disk'] else ''}"
    )


def _print_packages(
    report: Report, packages: list[dict[str, Any]], tools: list[Tool], *, every: bool
) -> None:
    """Print the missing or broken packages and tools, or all of them."""
    rows = [
        (p["name"], p["version"] or "-", p["problem"] or "here", p["install"] or "")
        for p in packages
    ]
    for tool in tools:
        state, install = ("here", "") if tool.version else ("missing", tool.install)
        rows.append((tool.name, tool.version or "-", state, install))
    visible_rows = [row for row in rows if every or row[2] != "here"]
    if visible_rows:
        report.print_text("")
        report.print_table(("what", "version", "state", "install it with"), visible_rows)
