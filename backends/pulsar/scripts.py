"""The texts of a package: what compiles it, here and in the container, and its README.txt."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from tcc.backends.pulsar.chips import Chip, Toolchain

ARCHIVE = "calibration.tar"
"""The file of what a network is calibrated with."""
LOG = "log.txt"
DONE_LINE = "tcc: every command is done"
"""The last line of a log, unless a command failed, or the log is cut off."""
FIRST_COMMAND = "cd /data"
PERMIT_COMMAND = "chmod -R a+rwX ."
"""What ends the work in the container, where files belong to root; done or not."""
GOLDENS = "goldens"

BUILD_SCRIPT = """\
#!/bin/sh
# Compiles this package where docker and an image of {tool} are:
#
#     sh build.sh [FOLDER]
#
# FOLDER, by default beside the bundle, gets a copy of the package, the compiled network and
# {log}, of which `tcc verify BUNDLE --logs FOLDER/{log}` tells how near the NPU comes.
# IMAGE=name:tag chooses the image. The tool wants some 32 GB of memory. The images to calibrate
# with lie beside the bundle, in {name}.{archive}, unless CALIBRATION names the file.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${{1:-$here/../../{name}.out}}
calibration=${{CALIBRATION:-$here/../../{name}.{archive}}}
[ ! -f "$here/{archive}" ] || calibration=$here/{archive}
if [ "$(sha256sum <"$calibration" | cut -d ' ' -f 1)" != {digest} ]; then
    echo "$calibration is not what this package was built with: set CALIBRATION" >&2
    exit 2
fi
calibration=$(realpath "$calibration")
image=${{IMAGE:-$(docker image ls --format '{{{{.Repository}}}}:{{{{.Tag}}}}' |
    grep -E '^({images}):' | sort -V | tail -n 1)}}
if [ -z "$image" ]; then
    echo "no image of {tool} is here: set IMAGE, or load one ({images})" >&2
    exit 3
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
for each in "$here"/*; do
    [ "$each" = "$here/{archive}" ] || cp -R "$each" "$out"
done
rm -f "$out/{result}" "$out/{log}"
name=tcc-$$-$(date +%s)
trap 'docker rm -f "$name" >/dev/null 2>&1 || true; rm -f "$out/{archive}"' EXIT
trap 'exit 143' HUP INT TERM
# Images are copied nowhere: the container sees the file itself.
ln -sf "/{archive}" "$out/{archive}"
docker run -i --rm --name "$name" --net host --shm-size 32g -v "$out:/data" \\
    -v "$calibration:/{archive}:ro" "$image" <"$here/compile.sh" 2>&1 | tee "$out/{log}"
if [ ! -f "$out/{result}" ]; then
    echo "{tool} made no {result}: its last words are in $out/{log}" >&2
    exit 1
fi
echo "$out/{result}"
if ! grep -q '^{done}' "$out/{log}"; then
    echo "but what follows on compiling did not end well: see the end of $out/{log}" >&2
    exit 4
fi
"""


@dataclass(frozen=True, slots=True)
class NpuTool:
    """A maker's tool: its name, the repositories of its images, and the file that it makes."""

    name: str
    images: tuple[str, ...]
    output_file: str


def build_host_script(tool: NpuTool, name: str, archive: bytes) -> bytes:
    """Return the command to type where docker is.

    Args:
        tool: What compiles the package.
        name: The bundle's.
        archive: What it is calibrated with.
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
    """Return the commands that run in the container; none of them reads the rest of them.

    Each is in the log before what it prints, so that the log says where it ended.
    """
    # The shell reads its commands from standard input, and a tool that reads there would eat them.
    quiet = (f"{line} </dev/null" for line in lines)
    head = (
        "# Run in the container, by build.sh.",
        "set -ex",
        FIRST_COMMAND,
        f"trap '{PERMIT_COMMAND}' EXIT",
    )
    return "\n".join([*head, *quiet, f"echo '{DONE_LINE}'", ""]).encode()


COMMON_README = """\
{title}

This folder is what {tool} makes the NPU's file of. Where docker and its image are:

    sh build.sh

No part of {tool} is in here, and nothing of it was run when this was written, unless
manifest.json has an entry `compiled`. Bring the log back to see how near the NPU comes:

    tcc verify BUNDLE --logs {name}.out/log.txt

calibration.tar holds {count} of the images that calibrated this network, as the network sees
them after resize and crop. It lies beside the bundle, as {name}.calibration.tar, and is no part
of it, unless `--include-images` put it into this folder; build.sh shows it to the tool and copies
it nowhere. No other file has images of yours; goldens/ has the bundle's own.
"""
PULSAR_README = """
The tool finds its scales by itself: it takes none from outside. report/int8.json of the bundle
says what integers of our own lose, which foretells what the tool's lose, and no more.

On the board, in the folder runner/: the line to compile classify.cc stands at its beginning.

    ./classify model.joint ../goldens/1.bin

The input is {input}. `run_joint model.joint --data 1.bin --bin-out-dir out` feeds the same bytes.
"""
PULSAR2_README = """
config.json compiles model_qdq.onnx, which has our scales; config_native.json compiles model.onnx,
the floats, for which the tool finds scales by itself:

    pulsar2 build --config config_native.json --input model.onnx --output_dir out_native \\
        --target_hardware {hardware}

On the board, in the folder runner/: the line to compile classify.cc stands at its beginning;
classify.py needs PyAXEngine instead.

    ./classify compiled.axmodel ../goldens/1.bin
    python3 classify.py compiled.axmodel ../goldens/1.bin

The input is {input}.
"""
IMAGE_INPUT = (
    "8-bit levels, channels last, as goldens/1.png shows them, or a PPM or PGM file of that size"
)
FLOAT_INPUT = "float32 numbers, ready for the network, in the order of its axes"


def render_readme(chip: Chip, count: int, name: str, *, image: bool) -> bytes:
    """Return README.txt of a package; `count` is that of its images, `name` the bundle's."""
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
