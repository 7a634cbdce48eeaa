"""The table of packages: rows match measurements, and faults in a package are found."""

import re
import sys
from dataclasses import replace

import pytest

from tcc.compiler.zoo.shipped import list_specs


@pytest.fixture(scope="module")
def pulsar_packages(root):
    sys.path.insert(0, str(root / "tools"))
    import pulsar_packages

    yield pulsar_packages
    sys.path.remove(str(root / "tools"))


def test_the_table_lists_every_network_within_one_step(root):
    page = (root / "docs/pulsar.md").read_text()
    form = (
        r"^\| `(\w+)` \| [\d.]+, [\d.]+, [\d.]+ \| (\d+e-\d+) \| (\d+) \| (\d+) \| [\d.]+% \| \d+"
        r" \| \d+ of \d+ change \|$"
    )
    rows = re.findall(form, page, re.MULTILINE)
    assert [name for name, *_ in rows] == list(list_specs())
    assert all(float(float_error) < 1e-5 for _, float_error, *_ in rows)
    assert {int(step_error) for *_, step_error in rows} <= {0, 1}


@pytest.mark.parametrize(
    "name",
    [
        "fastnet_block",
        pytest.param("squeezenet", marks=pytest.mark.nightly),
    ],
)
def test_a_table_row_matches_a_new_measurement(pulsar_packages, root, name):
    """The float error, and so the number of differing integers, also depends on the processor."""
    head = f"| `{name}` | "
    rows = (root / "docs/pulsar.md").read_text().splitlines()
    (documented,) = (row.split(" | ") for row in rows if row.startswith(head))
    measured = pulsar_packages.format_row(name).split(" | ")
    floats, share = 2, 5
    assert float(measured[floats]) < 1e-5
    assert float(measured[share].rstrip("%")) == pytest.approx(
        float(documented[share].rstrip("%")), rel=0.3
    )
    for column, (documented_cell, measured_cell) in enumerate(
        zip(documented, measured, strict=True)
    ):
        assert column in (floats, share) or documented_cell == measured_cell, column


def make_bit_flip(index):
    """Return a function that flips one bit."""
    return lambda data: bytes([*data[:index], data[index] ^ 1, *data[index + 1 :]])


DAMAGES = {
    "a file that is lost": ("labels.json", None, "files"),
    "another deviation": ("config.prototxt", lambda data: data.replace(b"std: 1", b"std: 1.1"), "preprocessing of golden 1 differs"),
    "another scale": ("config.prototxt", lambda data: data.replace(b"slope_divisor: 255", b"slope_divisor: 256"), "levels"),
    "an unknown key": ("config.prototxt", lambda data: data + b"colour: 1\n", "colour"),
    "another golden": ("goldens/1.bin", make_bit_flip(0), "a golden"),
}  # fmt: skip


def test_faults_in_a_package_are_found(pulsar_packages):
    """Each corrupted file ends the check of the package."""
    from tcc.backends.pulsar.chips import AX620
    from tcc.compiler.data.dataset import read_dataset
    from tcc.compiler.frontend.spec import load
    from tcc.compiler.zoo.shipped import get_samples_folder

    spec, dataset = (
        load(list_specs()["fastnet_block"]),
        read_dataset(get_samples_folder()).select_first(4),
    )
    package = next(pulsar_packages.build_packages(spec, dataset)[1])
    assert pulsar_packages.check_package(package, AX620, spec, dataset) < 1e-6
    full_dataset = read_dataset(get_samples_folder())
    with pytest.raises(AssertionError, match="calibration images: the package has 3 items"):
        pulsar_packages.check_package(package, AX620, spec, full_dataset)
    for name, (path, spoil, message) in DAMAGES.items():
        files = dict(package.files)
        data_of = files.pop(f"model/{path}")
        if spoil:
            files[f"model/{path}"] = spoil(data_of)
            assert spoil(data_of) != data_of, name
        with pytest.raises(Exception, match=message):
            pulsar_packages.check_package(replace(package, files=files), AX620, spec, dataset)
