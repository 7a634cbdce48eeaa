"""Texts of a package: the build scripts for the host and the container, and README.txt."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from tcc.backends.pulsar.chips import Chip, Toolchain

ARCHIVE = "calibration.tar"
"""The file of calibration inputs."""
LOG = "log.txt"
DONE_LINE = "tcc: every command is done"
"""The last line of a log, unless a command failed or the log is truncated."""
FIRST_COMMAND = "cd /data"
PERMIT_COMMAND = "chmod -R a+rwX ."
"""The last command in the container, even after a failure: files there belong to root."""
GOLDENS = "goldens"

BUILD_SCRIPT = """\
#!/bin/sh
# Compiles this package. Needs docker and an image of {tool}:
#
#     sh build.sh [FOLDER]
#
# FOLDER (default: next to the bundle) gets a copy of the package, the compiled network and {log}.
# Then compare the compiled network with the reference: tcc verify BUNDLE --logs FOLDER/{log}
# IMAGE=name:tag selects the image. The tool needs about 32 GB of memory. The calibration inputs
# are in {name}.{archive} next to the bundle; CALIBRATION=file selects another file.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${{1:-$here/../../{name}.out}}
calibration=${{CALIBRATION:-$here/../../{name}.{archive}}}
[ ! -f "$here/{archive}" ] || calibration=$here/{archive}
if [ "$(sha256sum <"$calibration" | cut -d ' ' -f 1)" != {digest} ]; then
    echo "$calibration differs from the calibration file of this package: set CALIBRATION" >&2
    exit 2
fi
calibration=$(realpath "$calibration")
image=${{IMAGE:-$(docker image ls --format '{{{{.Repository}}}}:{{{{.Tag}}}}' |
    grep -E '^({images}):' | sort -V | tail -n 1)}}
if [ -z "$image" ]; then
    echo "docker has no image of {tool} ({images}): load one with docker load, or set IMAGE" >&2
    exit 3
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
for path in "$here"/*; do
    [ "$path" = "$here/{archive}" ] || cp -R "$path" "$out"
done
rm -f "$out/{result}" "$out/{log}"
name=tcc-$$-$(date +%s)
trap 'docker rm -f "$name" >/dev/null 2>&1 || true; rm -f "$out/{archive}"' EXIT
trap 'exit 143' HUP INT TERM
# The archive is not copied: the container mounts the file.
ln -sf "/{archive}" "$out/{archive}"
docker run -i --rm --name "$name" --net host --shm-size 32g -v "$out:/data" \\
    -v "$calibration:/{archive}:ro" "$image" <"$here/compile.sh" 2>&1 | tee "$out/{log}"
if [ ! -f "$out/{result}" ]; then
    echo "{tool} wrote no {result}: see the end of $out/{log}" >&2
    exit 1
fi
echo "$out/{result}"
if ! grep -q '^{done}' "$out/{log}"; then
    echo "the network compiled, but a later command failed: see the end of $out/{log}" >&2
    exit 4
fi
"""


@dataclass(frozen=True, slots=True)
class NpuTool:
    """A vendor tool: its name, the repositories of its images, and its output file."""

    name: str
    images: tuple[str, ...]
    output_file: str


def build_host_script(tool: NpuTool, name: str, archive: bytes) -> bytes:
    """Return build.sh, which runs the tool's image in docker.

    Args:
        tool: The tool that compiles the package.
        name: The bundle's name.
        archive: The calibration inputs.
    """
    return BUILD_SCRIPT.format(
        tool=tool.name,
        images="|".join(tool.images),
        result=tool.output_file,
        log=LOG,
        name=name,
        done=DONE_LINE,
        archive=ARCHIVE,
        digest=hashlib.sha256(archive).hexdigest(),
    ).encode()


def build_container_script(lines: Sequence[str]) -> bytes:
    """Return the script that runs in the container; no command reads the script's input.

    The log has each command before its output, so the last command is known after a failure.
    """
    # The shell reads its commands from standard input; a tool must not consume them.
    quiet = (f"{line} </dev/null" for line in lines)
    head = (
        "# build.sh runs this script in the container.",
        "set -ex",
        FIRST_COMMAND,
        f"trap '{PERMIT_COMMAND}' EXIT",
    )
    return "\n".join([*head, *quiet, f"echo '{DONE_LINE}'", ""]).encode()


COMMON_README = """\
{title}

{tool} compiles this folder to a file for the NPU. On a machine with docker and its image, run:

    sh build.sh

This folder has no part of {tool}. It was written without running {tool}, unless manifest.json has
an entry `compiled`. To compare the compiled network with the reference, pass the log to tcc:

    tcc verify BUNDLE --logs {name}.out/log.txt

calibration.tar has {count} of this network's calibration images, after resize and crop. The file
is {name}.calibration.tar, next to the bundle. It is not part of the bundle, unless
`--include-images` put it into this folder. build.sh passes it to the tool and copies it nowhere.
No other file has images of yours; goldens/ has the bundle's own test images.
"""
PULSAR_README = """
Pulsar computes the quantization scales itself and accepts none from outside. report/int8.json of
the bundle has the accuracy drop of tcc's int8 model: only an estimate of Pulsar's.

On the board, in the folder runner/: compile classify.cc with the command at its top, then run:

    ./classify model.joint ../goldens/1.bin

The input is {input}. `run_joint model.joint --data 1.bin --bin-out-dir out` reads the same bytes.
"""
PULSAR2_README = """
config.json compiles model_qdq.onnx, which has tcc's scales. config_native.json compiles
model.onnx, the float model; the tool then computes the scales:

    pulsar2 build --config config_native.json --input model.onnx --output_dir out_native \\
        --target_hardware {hardware}

On the board, in the folder runner/: compile classify.cc with the command at its top, or use
classify.py, which needs PyAXEngine:

    ./classify compiled.axmodel ../goldens/1.bin
    python3 classify.py compiled.axmodel ../goldens/1.bin

The input is {input}.
"""
IMAGE_INPUT = (
    "8-bit pixel values, channels last, as in goldens/1.png, or a PPM or PGM file of that size"
)
FLOAT_INPUT = "float32 values, preprocessed, in the order of the network's axes"


def render_readme(chip: Chip, count: int, name: str, *, image: bool) -> bytes:
    """Return README.txt of a package; `count` is the number of its images."""
    tool_readme = {Toolchain.PULSAR: PULSAR_README, Toolchain.PULSAR2: PULSAR2_README}[
        chip.toolchain
    ]
    text = (COMMON_README + tool_readme).format(
        title=chip.title,
        tool=chip.toolchain.value,
        hardware=chip.hardware,
        name=name,
        count=count,
        input=IMAGE_INPUT if image else FLOAT_INPUT,
    )
    return text.encode()
