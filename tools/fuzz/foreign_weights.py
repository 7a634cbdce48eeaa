"""What is done to the weights of an ONNX file."""

from random import Random

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper

HUGE = (0, 1, -1, 2, 7, 255, 1 << 20, 1 << 31, 1 << 40, 1 << 62, -(1 << 63))
FLOATS = (0.0, -1.0, 1e-30, 1e30, 3.4e38, float("nan"), float("inf"), -float("inf"))
PLACES = (
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


def weight(model: ModelProto, numbers: Random) -> TensorProto:
    """Return one of a file's weights, or a new one."""
    held: list[TensorProto] = list(model.graph.initializer)
    return numbers.choice(held) if held else model.graph.initializer.add(name="new")


def dims(model: ModelProto, numbers: Random) -> None:
    """Change the shape that a weight says it has."""
    tensor = weight(model, numbers)
    found = list(tensor.dims) or [1]
    match numbers.randrange(5):
        case 0:
            found[numbers.randrange(len(found))] = numbers.choice(HUGE)
        case 1:
            numbers.shuffle(found)
        case 2:
            found = [int(np.prod(found, dtype=np.int64))]
        case 3:
            found.append(numbers.choice(HUGE))
        case _:
            found = found[:-1]
    tensor.dims[:] = found


def data(model: ModelProto, numbers: Random) -> None:
    """Change what a weight holds, or where."""
    tensor = weight(model, numbers)
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
            tensor.external_data.add(key="location", value=numbers.choice(PLACES))
            if numbers.random() < 0.5:
                key = numbers.choice(("offset", "length", "checksum"))
                tensor.external_data.add(key=key, value=str(numbers.choice((*HUGE, "x", "1e9"))))
        case _:
            sparse = model.graph.sparse_initializer.add()
            sparse.values.CopyFrom(tensor)
            sparse.dims.extend(tensor.dims)


def cast(model: ModelProto, numbers: Random) -> None:
    """Hold a weight in another type, or in numbers of another kind."""
    tensor = weight(model, numbers)
    try:
        values = numpy_helper.to_array(tensor)
    except Exception:  # it is damaged already
        return
    kinds = (np.float16, np.float64, np.int8, np.int64, np.float32)
    with np.errstate(all="ignore"):
        made = np.array(values, numbers.choice(kinds) if numbers.random() < 0.5 else values.dtype)
        if made.dtype.kind == "f" and made.size:
            change = numbers.randrange(4)
            if change == 0:
                made.flat[numbers.randrange(made.size)] = numbers.choice(FLOATS)
            elif change == 1:
                made *= made.dtype.type(numbers.choice((0, 1e-3, 30, 1e4)))
    tensor.CopyFrom(numpy_helper.from_array(made, tensor.name))
