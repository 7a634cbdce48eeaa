"""What the examples of error codes find in their folder beside `net.yaml`."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from tcc.compiler.frontend.spec import load

Weights = dict[str, np.ndarray]


def images(folder: Path) -> None:
    """An image, and a few of each of three classes."""
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).save(folder / "image.png")
    for name in ("0/1", "0/2", "1/1", "1/2", "2/1", "2/2"):
        path = folder / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8)).save(path)


def sides(folder: Path) -> None:
    """Two images of each of three classes to learn from, to choose by and to be judged by."""
    random = np.random.default_rng(1)
    for side in ("train", "val", "test"):
        for name in ("0/1", "0/2", "1/1", "1/2", "2/1", "2/2"):
            path = folder / "set" / side / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8)).save(path)


def twins(folder: Path) -> None:
    """The same, with an image that is on two sides in two formats."""
    sides(folder)
    Image.open(folder / "set/train/0/1.png").save(folder / "set/test/0/scan.bmp")


def weights(folder: Path) -> Weights:
    """Random weights of the example's spec, which are in `weights.safetensors` too."""
    random = np.random.default_rng(0)
    params = load(folder / "net.yaml").graph.params
    found = {name: random.random(p.shape, np.float32) for name, p in params.items()}
    save_file(found, folder / "weights.safetensors")
    return found


def changed(name: str, change: Callable[[Weights], Weights]) -> Callable[[Path], None]:
    """Make a file of weights of which something is changed."""

    def make(folder: Path) -> None:
        save_file(change(weights(folder)), folder / name)

    return make


def every(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[Weights], Weights]:
    """Change every tensor."""
    return lambda found: {name: function(value) for name, value in found.items()}


def negative_variances(found: Weights) -> Weights:
    return {name: -value if "var" in name else value for name, value in found.items()}


def picture(name: str, made: Callable[[], Image.Image]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        made().save(folder / name)

    return make


def tensors(folder: Path) -> None:
    np.savez(folder / "tensors.npz", tensors=np.zeros((2, 3, 9, 9), np.float32))


def model(name: str, nodes: str, opset: int = 17, kind: str = "float") -> Callable[[Path], None]:
    """Make an ONNX file of nodes that are written as ONNX's own text."""

    def make(folder: Path) -> None:
        import onnx
        from onnx import parser

        head = f'<ir_version: 8, opset_import: ["" : {opset}]>'
        text = f"{head} net ({kind}[N,3,8,8] x) => (float[N,a,b,c] y) {{ {nodes} }}"
        onnx.save(parser.parse_model(text), folder / name)

    return make


def apart(folder: Path) -> None:
    """An ONNX file whose weights are in another file, which is not there."""
    import onnx
    from onnx import numpy_helper, parser

    text = (
        '<ir_version: 8, opset_import: ["" : 17]>'
        " net (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Add (x, w) }"
    )
    made = parser.parse_model(text)
    values = np.ones((3, 8, 8), np.float32)
    made.graph.initializer.append(numpy_helper.from_array(values, "w"))
    options = {"save_as_external_data": True, "location": "apart.data", "size_threshold": 0}
    onnx.save(made, folder / "apart.onnx", **options)
    (folder / "apart.data").unlink()


def pages(folder: Path) -> None:
    """Two pages in one file."""
    page = Image.new("RGB", (8, 8))
    page.save(folder / "pages.tiff", save_all=True, append_images=[page])


def slide(name: str, *, deep: bool = False, damaged: bool = False) -> Callable[[Path], None]:
    """Make a slide of one tile, of 16 bits a sample, or with a tile that cannot be decoded."""

    def make(folder: Path) -> None:
        from drawn_slides import write

        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        path = write(folder / name, pixels.astype(np.uint16) if deep else pixels)
        if damaged:
            import tifffile

            with tifffile.TiffFile(path) as file:
                place, length = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
            data = bytearray(path.read_bytes())
            data[place : place + length] = bytes(length)
            path.write_bytes(data)

    return make


def wide(folder: Path) -> None:
    """An image of 17 million pixels of one colour."""
    Image.new("RGB", (4200, 4200)).save(folder / "wide.png")


PREPARE: Mapping[str, Callable[[Path], object]] = {
    "E0502": changed("fewer.safetensors", lambda found: dict(list(found.items())[1:])),
    "E0503": changed("more.safetensors", lambda found: found | {"head": np.ones(3, np.float32)}),
    "E0504": changed("other.safetensors", every(lambda value: value[..., :2].copy())),
    "E0505": changed("integers.safetensors", every(lambda value: value.astype(np.int64))),
    "E0506": changed("diverged.safetensors", every(lambda value: value * np.nan)),
    "E0507": changed("negative.safetensors", negative_variances),
    "E0508": changed("huge.safetensors", every(lambda value: value * np.float32(1e30))),
    "E0511": changed("other.safetensors", every(lambda value: value[..., :2].copy())),
    "E0512": changed("alike.safetensors", lambda found: dict(zip(ALIKE, found.values(), strict=True))),
    "E0513": weights,
    "E0514": weights,
    "E0515": weights,
    "E0704": picture("long.png", lambda: Image.new("L", (70_000, 1))),
    "E0705": picture("deep.png", lambda: Image.new("I;16", (8, 8))),
    "E0707": pages,
    "E0713": tensors,
    "E0718": picture("clear.png", lambda: Image.new("RGBA", (8, 8))),
    "E0720": changed("huge.safetensors", every(lambda value: value * np.float32(1e30))),
    "E1410": changed(
        "foreign.safetensors", lambda found: {f"x.{n}": v for n, v in found.items()}
    ),
    "E1205": twins,
    **dict.fromkeys(("E1208", "E1209", "E1210", "E1213", "E1214", "E1215", "E1218", "E1219", "E1224", "W0681", "W0682"), sides),
    "E1216": weights,
    "E0903": apart,
    "E0904": model("old.onnx", "y = Relu (x)", opset=2),
    "E0905": model("bytes.onnx", "y = Cast <to = 1> (x)", kind="uint8"),
    "E0906": model("model.onnx", "r = Relu (x) y = Tanh (r)"),
    "E0910": model("sine.onnx", "y = Sin (x)"),
    "E0911": model("attention.onnx", "r = Relu (x) y = MatMul (x, r)"),
    "E1302": slide("damaged.tif", damaged=True),
    "E1303": slide("deep.tif", deep=True),
    "E1304": wide,
    "E1324": wide,
}  # fmt: skip
"""What makes the files that the example of a code names."""
ALIKE = ("left.weight", "left.bias", "right.weight", "right.bias")
