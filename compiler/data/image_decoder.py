"""What a confined process does with image files: the functions of `images`, one request each."""

from typing import Any

from tcc.compiler.data import images
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.support import json_records
from tcc.compiler.support.confined_process import Reply


def answer(request: dict[str, Any], payload: bytes) -> Reply:
    """Return what is asked of an encoded image; `large` alone, of a large one that may not be yet.

    Raises:
        UserError: As `images.decode` and `images.levels`.
    """
    name = str(request["name"])
    match request["do"]:
        case "decode":
            pixels = images.decode(payload, name)
        case "levels":
            if not request["large"] and images.is_large(payload):
                return {"large": True}, b""
            contract: Preprocess = json_records.decode(Preprocess, request["contract"])
            channels, height, width = request["size"]
            pixels = images.levels(payload, name, contract, (channels, height, width))
        case "size":
            return {"size": images.size(payload)}, b""
        case _:
            return {"remarks": images.remarks(payload)}, b""
    return {"shape": pixels.shape}, pixels.tobytes()
