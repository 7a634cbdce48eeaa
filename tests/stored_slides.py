"""Slide results as `tcc slide run` writes them, with chosen probabilities."""

import json

BUNDLE = {
    "network": "colour", "target": "onnxruntime", "precision": "fp32", "weights": "0" * 64,
    "notice": None,
}  # fmt: skip


def write_result(folder, name, size, span, likely, *, mpp=1.0, threshold=0.5, **extra_arguments):
    """Write the result folder of a slide. `likely`: tumour probability by row and column."""
    folder.mkdir(parents=True)
    width, height = size
    lines = ["row,column,x,y,side,tissue,p(normal),p(tumour),probability,tumour"]
    positive = [
        cell for cell, p in likely.items() if p >= (0.5 if threshold is None else threshold)
    ]
    for (row, column), p in sorted(likely.items()):
        position = f"{row},{column},{column * span},{row * span},{span}"
        numbers = f"1.000000,{1 - p:.6f},{p:.6f},{p:.6f}"
        lines.append(f"{position},{numbers},{int((row, column) in positive)}")
    (folder / "patches.csv").write_text("\n".join(lines) + "\n")
    rows, columns = -(-height // span), -(-width // span)
    mm2 = (mpp / 1000) ** 2
    pixels = sum(
        (min((column + 1) * span, width) - column * span)
        * (min((row + 1) * span, height) - row * span)
        for row, column in positive
    )
    summary = {
        "tcc_slide": 1,
        "notice": "not a medical device",
        "slide": {"name": name, "width": width, "height": height, "micrometres_per_pixel": mpp},
        "bundle": BUNDLE,
        "grid": {"rows": rows, "columns": columns, "span": span,
                 "stride": span, "inset": 0, "patch": span},
        "tumour": {"classes": ["tumour"], "threshold": threshold},
        "classes": ["normal", "tumour"],
        "tissue_mm2": width * height * mm2,
        "background_share": 0.0,
        "patches": len(likely),
        "damaged": 0,
        "left_out": rows * columns - len(likely),
        "positive": len(positive),
        "positive_mm2": pixels * mm2,
        "mean_probability": sum(likely.values()) / len(likely) if likely else None,
        "highest_probability": max(likely.values(), default=None),
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary | extra_arguments))
    return folder
