"""Change the weights of an ONNX file."""

from random import Random

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

HUGE = (0, 1, -1, 2, 7, 255, 1 << 20, 1 << 31, 1 << 40, 1 << 62, -(1 << 63))
FLOATS = (0.0, -1.0, 1e-30, 1e30, 3.4e38, float("nan"), float("inf"), -float("inf"))
EXTERNAL_PATHS = (
    "weights.bin",
    "../secret",
    "/etc/passwd",
    "/dev/zero",
    "",
    ".",
    "pipe",
    "a\0b",
    "é" * 300,
)
KINDS = (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 14, 16, 17, 21, 23, 99)


def choose_weight(model: ModelProto, numbers: Random) -> TensorProto:
    """Return one of a file's weights, or a new one."""
    initializers: list[TensorProto] = list(model.graph.initializer)
    return numbers.choice(initializers) if initializers else model.graph.initializer.add(name="new")


def replace_dims(model: ModelProto, numbers: Random) -> None:
    """Change the shape that a weight declares."""
    tensor = choose_weight(model, numbers)
    sizes = list(tensor.dims) or [1]
    match numbers.randrange(5):
        case 0:
            sizes[numbers.randrange(len(sizes))] = numbers.choice(HUGE)
        case 1:
            numbers.shuffle(sizes)
        case 2:
            sizes = [int(np.prod(sizes, dtype=np.int64))]
        case 3:
            sizes.append(numbers.choice(HUGE))
        case _:
            sizes = sizes[:-1]
    tensor.dims[:] = sizes


def replace_data(model: ModelProto, numbers: Random) -> None:
    """Change the data of a weight, or its location."""
    tensor = choose_weight(model, numbers)
    match numbers.randrange(6):
        case 0:
            tensor.raw_data = tensor.raw_data[: numbers.randrange(len(tensor.raw_data) + 1)]
        case 1:
            tensor.raw_data += bytes(numbers.randrange(1, 99))
        case 2:
            tensor.data_type = numbers.choice(KINDS)
        case 3:
            tensor.ClearField("raw_data")
            tensor.float_data.extend([1.0] * numbers.randrange(9))
        case 4:
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=numbers.choice(EXTERNAL_PATHS))
            if numbers.random() < 0.5:
                key = numbers.choice(("offset", "length", "checksum"))
                tensor.external_data.add(key=key, value=str(numbers.choice((*HUGE, "x", "1e9"))))
        case _:
            sparse = model.graph.sparse_initializer.add()
            sparse.values.CopyFrom(tensor)
            sparse.dims.extend(tensor.dims)


def cast_weight(model: ModelProto, numbers: Random) -> None:
    """Convert a weight to another type, or store its values in another field."""
    tensor = choose_weight(model, numbers)
    try:
        array = numpy_helper.to_array(tensor)
    except Exception:  # the weight is damaged already
        return
    kinds = (np.float16, np.float64, np.int8, np.int64, np.float32)
    with np.errstate(all="ignore"):
        converted = np.array(
            array, numbers.choice(kinds) if numbers.random() < 0.5 else array.dtype
        )
        if converted.dtype.kind == "f" and converted.size:
            change = numbers.randrange(4)
            if change == 0:
                converted.flat[numbers.randrange(converted.size)] = numbers.choice(FLOATS)
            elif change == 1:
                converted *= converted.dtype.type(numbers.choice((0, 1e-3, 30, 1e4)))
    tensor.CopyFrom(numpy_helper.from_array(converted, tensor.name))
