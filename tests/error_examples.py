"""Files that the examples of error codes need next to `net.yaml`."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from tcc.compiler.frontend.spec import load

Weights = dict[str, np.ndarray]


def write_images(folder: Path) -> None:
    """Write one image, and a few images of each of three classes."""
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).save(folder / "image.png")
    for name in ("0/1", "0/2", "1/1", "1/2", "2/1", "2/2"):
        path = folder / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8)).save(path)


def write_splits(folder: Path) -> None:
    """Write two images of each of three classes for train, validation and test splits."""
    random = np.random.default_rng(1)
    for split in ("train", "val", "test"):
        for name in ("0/1", "0/2", "1/1", "1/2", "2/1", "2/2"):
            path = folder / "set" / split / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8)).save(path)


def write_duplicates(folder: Path) -> None:
    """Write the same splits, with one image in two splits in two formats."""
    write_splits(folder)
    Image.open(folder / "set/train/0/1.png").save(folder / "set/test/0/scan.bmp")


def write_weights(folder: Path) -> Weights:
    """Write random weights of the example spec, also as `write_weights.safetensors`."""
    random = np.random.default_rng(0)
    params = load(folder / "net.yaml").graph.params
    tensors = {name: random.random(p.shape, np.float32) for name, p in params.items()}
    save_file(tensors, folder / "weights.safetensors")
    return tensors


def write_changed_weights(
    name: str, change: Callable[[Weights], Weights]
) -> Callable[[Path], None]:
    """Return a function that writes a weights file with a change."""

    def make(folder: Path) -> None:
        save_file(change(write_weights(folder)), folder / name)

    return make


def change_every_tensor(
    function: Callable[[np.ndarray], np.ndarray],
) -> Callable[[Weights], Weights]:
    """Return a function that changes every tensor."""
    return lambda tensors: {name: function(tensor) for name, tensor in tensors.items()}


def negate_variances(tensors: Weights) -> Weights:
    return {name: -tensor if "var" in name else tensor for name, tensor in tensors.items()}


def write_picture(name: str, make_image: Callable[[], Image.Image]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        make_image().save(folder / name)

    return make


def write_tensors(folder: Path) -> None:
    np.savez(folder / "tensors.npz", tensors=np.zeros((2, 3, 9, 9), np.float32))


def write_model(
    name: str, nodes: str, opset: int = 17, kind: str = "float"
) -> Callable[[Path], None]:
    """Return a function that writes an ONNX file from nodes in ONNX text format."""

    def make(folder: Path) -> None:
        import onnx
        from onnx import parser

        head = f'<ir_version: 8, opset_import: ["" : {opset}]>'
        text = f"{head} net ({kind}[N,3,8,8] x) => (float[N,a,b,c] y) {{ {nodes} }}"
        onnx.save(parser.parse_model(text), folder / name)

    return make


def write_external_weights(folder: Path) -> None:
    """Write an ONNX file that refers to a missing external weights file."""
    import onnx
    from onnx import numpy_helper, parser

    text = (
        '<ir_version: 8, opset_import: ["" : 17]>'
        " net (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Add (x, w) }"
    )
    proto = parser.parse_model(text)
    ones = np.ones((3, 8, 8), np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(ones, "w"))
    options = {"save_as_external_data": True, "location": "apart.data", "size_threshold": 0}
    onnx.save(proto, folder / "apart.onnx", **options)
    (folder / "apart.data").unlink()


def write_pages(folder: Path) -> None:
    """Write an image file with two pages."""
    page = Image.new("RGB", (8, 8))
    page.save(folder / "pages.tiff", save_all=True, append_images=[page])


def write_slide(name: str, *, deep: bool = False, damaged: bool = False) -> Callable[[Path], None]:
    """Write a slide of one tile with 16-bit samples, or with a tile that cannot be decoded."""

    def make(folder: Path) -> None:
        from drawn_slides import write

        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        path = write(folder / name, pixels.astype(np.uint16) if deep else pixels)
        if damaged:
            import tifffile

            with tifffile.TiffFile(path) as file:
                offset, length = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
            content = bytearray(path.read_bytes())
            content[offset : offset + length] = bytes(length)
            path.write_bytes(content)

    return make


def write_wide_image(folder: Path) -> None:
    """Write an image of 17 million pixels of one color."""
    Image.new("RGB", (4200, 4200)).save(folder / "wide.png")


PREPARE: Mapping[str, Callable[[Path], object]] = {
    "E0502": write_changed_weights("fewer.safetensors", lambda tensors: dict(list(tensors.items())[1:])),
    "E0503": write_changed_weights("more.safetensors", lambda tensors: tensors | {"head": np.ones(3, np.float32)}),
    "E0504": write_changed_weights("other.safetensors", change_every_tensor(lambda tensor: tensor[..., :2].copy())),
    "E0505": write_changed_weights("integers.safetensors", change_every_tensor(lambda tensor: tensor.astype(np.int64))),
    "E0506": write_changed_weights("diverged.safetensors", change_every_tensor(lambda tensor: tensor * np.nan)),
    "E0507": write_changed_weights("negative.safetensors", negate_variances),
    "E0508": write_changed_weights("huge.safetensors", change_every_tensor(lambda tensor: tensor * np.float32(1e30))),
    "E0511": write_changed_weights("other.safetensors", change_every_tensor(lambda tensor: tensor[..., :2].copy())),
    "E0512": write_changed_weights("alike.safetensors", lambda tensors: dict(zip(ALIKE, tensors.values(), strict=True))),
    "E0513": write_weights,
    "E0514": write_weights,
    "E0515": write_weights,
    "E0704": write_picture("long.png", lambda: Image.new("L", (70_000, 1))),
    "E0705": write_picture("deep.png", lambda: Image.new("I;16", (8, 8))),
    "E0707": write_pages,
    "E0713": write_tensors,
    "E0718": write_picture("clear.png", lambda: Image.new("RGBA", (8, 8))),
    "E0720": write_changed_weights("huge.safetensors", change_every_tensor(lambda tensor: tensor * np.float32(1e30))),
    "E1410": write_changed_weights(
        "foreign.safetensors", lambda tensors: {f"x.{n}": v for n, v in tensors.items()}
    ),
    "E1205": write_duplicates,
    **dict.fromkeys(("E1208", "E1209", "E1210", "E1213", "E1214", "E1215", "E1218", "E1219", "E1224", "E1265", "E1268", "E1269", "W0681", "W0682"), write_splits),
    "E1216": write_weights,
    "E0903": write_external_weights,
    "E0904": write_model("old.onnx", "y = Relu (x)", opset=2),
    "E0905": write_model("bytes.onnx", "y = Cast <to = 1> (x)", kind="uint8"),
    "E0906": write_model("model.onnx", "r = Relu (x) y = Tanh (r)"),
    "E0910": write_model("sine.onnx", "y = Sin (x)"),
    "E0911": write_model("attention.onnx", "r = Relu (x) y = MatMul (x, r)"),
    "E1302": write_slide("damaged.tif", damaged=True),
    "E1303": write_slide("deep.tif", deep=True),
    "E1304": write_wide_image,
    "E1324": write_wide_image,
}  # fmt: skip
"""Functions that write the files of an error code example."""
ALIKE = ("left.weight", "left.bias", "right.weight", "right.bias")
