"""README.txt of a package: how to compile it, what it holds, how to run it on the board."""

from tcc.backends.pulsar.chips import Chip, Toolchain

COMMON = """\
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
V1 = """
The tool finds its scales by itself: it takes none from outside. report/int8.json of the bundle
says what integers of our own lose, which foretells what the tool's lose, and no more.

On the board, in the folder runner/: the line to compile classify.cc stands at its beginning.

    ./classify model.joint ../goldens/1.bin

The input is {input}. `run_joint model.joint --data 1.bin --bin-out-dir out` feeds the same bytes.
"""
V2 = """
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
IMAGE = (
    "8-bit levels, channels last, as goldens/1.png shows them, or a PPM or PGM file of that size"
)
NUMBERS = "float32 numbers, ready for the network, in the order of its axes"


def readme(chip: Chip, count: int, name: str, *, image: bool) -> bytes:
    """Return README.txt of a package; `count` is that of its images, `name` the bundle's."""
    own = {Toolchain.PULSAR: V1, Toolchain.PULSAR2: V2}[chip.toolchain]
    text = (COMMON + own).format(
        title=chip.title,
        tool=chip.toolchain.value,
        hardware=chip.hardware,
        name=name,
        count=count,
        input=IMAGE if image else NUMBERS,
    )
    return text.encode()
