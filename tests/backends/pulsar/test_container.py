"""Selection of a tool's docker image."""

import subprocess

import pytest

from tcc.backends.pulsar import container, scripts
from tcc.backends.pulsar.scripts import NpuTool

TOOL = NpuTool("Pulsar2", ("pulsar2", "axera/pulsar2"), "out/compiled.axmodel")


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """A fake docker that lists images and prints the one it should run."""
    program = tmp_path / "docker"
    image_list = "pulsar2:6.0-lite\\npulsar2:10.1\\npulsar2:9.9\\nother/pulsar2:11.0\\n"
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = image ]; then printf "{image_list}"; exit; fi\n'
        'if [ "$1" = run ]; then for image; do :; done; echo "image: $image"; fi\n'
    )
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@pytest.mark.usefixtures("docker")
def test_image_versions_compare_as_numbers():
    assert container.find_image(TOOL).name == "pulsar2:10.1"


@pytest.mark.usefixtures("docker")
def test_the_build_script_selects_the_same_image(tmp_path):
    package = tmp_path / "net/model"
    package.mkdir(parents=True)
    (package / "build.sh").write_bytes(scripts.build_host_script(TOOL, "net", b"images"))
    (tmp_path / "net.calibration.tar").write_bytes(b"images")
    (package / "compile.sh").write_text("true\n")
    command = ["sh", str(package / "build.sh"), str(tmp_path / "out")]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    assert "image: pulsar2:10.1" in output
