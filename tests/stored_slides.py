"""Results of slides as `tcc slide run` writes them, of probabilities that a test chooses."""

import json

BUNDLE = {"network": "colour", "target": "onnxruntime", "precision": "fp32", "weights": "0" * 64}


def write_result(folder, name, size, span, likely, *, mpp=1.0, threshold=0.5, **more):
    """Write the folder of a slide: `likely` has the probability of tumour by row and column."""
    folder.mkdir(parents=True)
    width, height = size
    lines = ["row,column,x,y,side,tissue,p(normal),p(tumour),probability,tumour"]
    for (row, column), p in sorted(likely.items()):
        at = f"{row},{column},{column * span},{row * span},{span}"
        lines.append(f"{at},1.000000,{1 - p:.6f},{p:.6f},{p:.6f},{int(p >= threshold)}")
    (folder / "patches.csv").write_text("\n".join(lines) + "\n")
    summary = {
        "tcc_slide": 1,
        "slide": {"name": name, "width": width, "height": height, "micrometres_per_pixel": mpp},
        "bundle": BUNDLE,
        "grid": {"rows": -(-height // span), "columns": -(-width // span), "span": span,
                 "stride": span, "inset": 0, "patch": span},
        "tumour": {"classes": ["tumour"], "threshold": threshold},
        "classes": ["normal", "tumour"],
        "damaged": 0,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary | more))
    return folder
