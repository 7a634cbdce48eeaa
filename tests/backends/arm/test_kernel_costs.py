"""Kernel costs: their file, the chosen kernels, and missing costs."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from float_kernels import A7, A53, force_kernels
from host_forms import HOST
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tcc.backends.arm.machine import MACHINES, Machine
from tcc.backends.arm.micro import core_costs
from tcc.backends.arm.micro.core_costs import parse_costs
from tcc.backends.arm.schedule import kernel_candidates
from tcc.backends.arm.schedule.program import build_program
from tcc.compiler.cli import app
from tcc.compiler.ops import Conv
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights

FILE = Path(core_costs.__file__).with_name(core_costs.COSTS_FILE)
TEXT = FILE.read_text("utf-8")
SHAPES = st.builds(
    lambda side, stride, groups, group_filters, depth, size: (
        Conv(groups * group_filters, (side, side), (stride, stride), side // 2, groups=groups),
        (groups * depth, size, size),
    ),
    *(st.integers(1, upper_bound) for upper_bound in (7, 3, 5, 20, 20, 20)),
)


def choose_kernel(
    op: Conv, shape: tuple[int, int, int], machine: Machine
) -> tuple[str, dict[str, float]]:
    """Return the kernel that costs select for a convolution, and its amounts."""
    add = NetBuilder(*shape)
    add("op", op)
    graph = add.build()
    (kernel,) = build_program(graph, sample_weights(graph), machine).kernels
    return kernel_candidates.count_amounts(kernel)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.target.name)
def test_each_core_has_costs_of_all_its_kernels(machine: Machine) -> None:
    """Each supported kernel is chosen for a convolution if it costs nothing."""
    cases = {
        "winograd": (Conv(8, (3, 3), padding=1), (8, 9, 9)),
        "float_matrix": (Conv(8, (1, 1)), (8, 9, 9)),
        "float_depthwise": (Conv(8, (3, 3), padding=1, groups=8), (8, 9, 9)),
        **{
            name: (Conv(8, (1, 1)), (8, 9, 9))
            for name in machine.costs.kernels
            if name.startswith("loops_")
        },
    }
    for name in machine.costs.kernels.keys() & cases.keys():
        assert choose_kernel(*cases[name], force_kernels(machine, name))[0] == name


@given(SHAPES, st.sampled_from([A7, A53, HOST]))
def test_counted_products_cover_the_macs_of_a_kernel(
    case: tuple[Conv, tuple[int, int, int]], machine: Machine
) -> None:
    op, shape = case
    name, amounts = choose_kernel(op, shape, force_kernels(machine, "float_matrix"))
    assert name == "float_matrix"
    assert all(amount >= 0 for amount in amounts.values())
    height = (shape[1] + 2 * (op.kernel[0] // 2) - op.kernel[0]) // op.stride[0] + 1
    assert amounts["products"] >= op.filters * height**2 * op.kernel[0] ** 2 * shape[0] // op.groups


def test_the_cheapest_kernel_is_chosen_and_winograd_must_save_enough() -> None:
    op, shape = Conv(32, (3, 3), padding=1), (32, 28, 28)
    assert choose_kernel(op, shape, A7)[0] == "winograd"
    min_saving = kernel_candidates.MIN_SAVED_SHARE
    for share, name in ((min_saving + 0.01, "winograd"), (min_saving - 0.01, "float_matrix")):
        kernels = dict(A7.costs.kernels)
        add = NetBuilder(*shape)
        add("op", op)
        costs = {}
        for kernel_name in ("winograd", "float_matrix"):
            (kernel,) = build_program(
                add.build(), sample_weights(add.build()), force_kernels(A7, kernel_name)
            ).kernels
            costs[kernel_name] = kernel_candidates.compute_cost(kernel, A7)
        scale = (1 - share) * costs["float_matrix"] / costs["winograd"]
        kernels["winograd"] = {key: cost * scale for key, cost in kernels["winograd"].items()}
        assert (
            choose_kernel(op, shape, replace(A7, cost_override=replace(A7.costs, kernels=kernels)))[
                0
            ]
            == name
        )


def damage_file(pattern: str, by: str) -> str:
    """Return the text of the file with one change."""
    changed_text, count = re.subn(pattern, by, TEXT, count=1, flags=re.MULTILINE)
    assert count
    return changed_text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (damage_file(r"^\[cortex_a7\]$", "[cortex_a7"), "it is not TOML"),
        (damage_file(r'^counted = "cycles"\n', ""), "[cortex_a7] has no `counted` and `tile`"),
        (
            damage_file('"cycles"', '"miles"'),
            "[cortex_a7] has `counted = 'miles'`; use one of cycles",
        ),
        (
            damage_file(r"^\[cortex_a7\.vector\]$", "[cortex_a7.victor]"),
            "`victor` is not a known kernel",
        ),
        (damage_file(r"^products = .*$", "product = 1"), "must have exactly the costs"),
        (
            damage_file(r"^products = .*$", "products = -1.0"),
            "the cost of `products` must be 0 or more",
        ),
        (
            damage_file(r"^products = .*$", "products = nan"),
            "the cost of `products` must be 0 or more",
        ),
        (
            damage_file(r"^products = .*$", "products = true"),
            "the cost of `products` must be 0 or more",
        ),
        ('[core]\ncounted = "cycles"\ntile = [4, 8]\n', "[core] has no costs of plain loops"),
    ],
)
def test_a_damaged_costs_file_is_reported_with_its_location(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.yaml").write_text(SPEC, "utf-8")
    monkeypatch.setattr(core_costs, "load_costs", lambda: parse_costs(text))
    outcome = CliRunner().invoke(app, ["build", "net.yaml", "--target", "arm-a7", "--no-cache"])
    assert outcome.exit_code == 1
    error = outcome.stderr
    assert "error[E0604]" in error
    assert message in error
    assert re.search(r"--> kernel_costs.toml:\d+:1", error)
    assert not Path("build").exists()


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        (
            re.sub(r"^\[cortex_a7(?=[.\]])", "[cortex_a99", TEXT, flags=re.MULTILINE),
            "core 'cortex_a7'",
        ),
        (
            re.sub(r"^\[cortex_a7\.float_matrix\]\n(?:.+\n)+", "", TEXT, flags=re.MULTILINE),
            "kernel 'float_matrix' of core 'cortex_a7'",
        ),
    ],
    ids=["a core", "a kernel"],
)
def test_missing_costs_are_reported_with_the_command_to_measure_them(
    text: str, subject: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A core or kernel added only to the code is no damaged installation."""
    monkeypatch.chdir(tmp_path)
    Path("net.yaml").write_text(SPEC, "utf-8")
    monkeypatch.setattr(core_costs, "load_costs", lambda: parse_costs(text))
    outcome = CliRunner().invoke(app, ["build", "net.yaml", "--target", "arm-a7", "--no-cache"])
    assert outcome.exit_code == 1
    assert f"error[E0604]: kernel_costs.toml has no entry for {subject}" in outcome.stderr
    assert "python tools/search_kernels.py search arm-a7" in outcome.stderr
    assert "install tcc again" not in outcome.stderr
    assert not Path("build").exists()


SPEC = """\
tcc: 1
name: net
input: {image: {shape: [3, 8, 8], preprocess: {resize: {size: [8, 8]}}}}
graph: [conv: {filters: 4, kernel: 3}, relu, global_avg_pool, flatten, linear: {units: 3}]
output: {scores: {}}
"""
