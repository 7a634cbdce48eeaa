"""The table of int8 times on x86. Each run measures one kind of processor."""

import sys
from importlib import import_module
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tools/bench"))
x86 = import_module("x86")
PAGE = f"""before
{x86.BEGIN}

| int8 over fp32 | ONNX Runtime, VNNI | TFLite, VNNI |
|---|---|---|
| a | 0.70 | 0.90 |
| c | 1.00 | 1.10 |

{x86.END}
behind
"""


def make_row(onnxruntime: float, tflite: float) -> dict[str, dict[str, float]]:
    return {"onnxruntime": {"ratio": onnxruntime}, "tflite": {"ratio": tflite}}


def test_columns_of_other_processors_are_kept() -> None:
    page = x86.update_page(PAGE, {"b": make_row(1.5, 0.5), "c": make_row(1.25, 1.75)}, "no VNNI")
    assert page.startswith("before\n")
    assert page.endswith("behind\n")
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert table == [
        "| int8 over fp32 | ONNX Runtime, VNNI | TFLite, VNNI | ONNX Runtime, no VNNI | TFLite, no VNNI |",
        "|---|---|---|---|---|",
        "| a | 0.70 | 0.90 | - | - |",
        "| b | - | - | 1.50 | 0.50 |",
        "| c | 1.00 | 1.10 | 1.25 | 1.75 |",
    ]  # fmt: skip
    updated_page = x86.update_page(page, {"c": make_row(0.8, 0.6)}, "VNNI")
    assert "| c | 0.80 | 0.60 | 1.25 | 1.75 |" in updated_page
    assert "| a | 0.70 | 0.90 | - | - |" in updated_page
