"""What `calibration.py` measured, over all draws: as one document, and as tables of a page."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tcc.compiler.quant.methods import METHODS

OURS = "minmax"
"""Our method that the others' losses are compared with, draw by draw."""
START, END = "<!-- calibration: measured -->", "<!-- calibration: end -->"
Record = dict[str, Any]


def read(folder: Path) -> Record:
    """Return what the results below a folder say: by network, method and set."""
    cells: dict[str, dict[str, dict[str, Record]]] = defaultdict(lambda: defaultdict(dict))
    for path in sorted((folder / "results").glob("*/*/*.json")):
        network, method, draw = path.parent.parent.name, path.parent.name, path.stem
        cells[network][method][draw] = json.loads(path.read_text())
    costs: dict[str, Record] = defaultdict(dict)
    for path in sorted((folder / "costs").glob("*/*.json")):
        costs[path.parent.name][path.stem] = cost(json.loads(path.read_text()))
    return {"networks": {n: _network(found) for n, found in cells.items()}, "costs": dict(costs)}


def _network(methods: Mapping[str, Mapping[str, Record]]) -> Record:
    base = methods.get(OURS, {})
    chosen = any(one["chosen"] for draws in methods.values() for one in draws.values())
    return {"chosen": chosen, "methods": {n: _method(d, base) for n, d in methods.items()}}


def _method(draws: Mapping[str, Record], base: Mapping[str, Record]) -> Record:
    good = {number: one for number, one in draws.items() if "sets" in one}
    failed = [one["failed"] for one in draws.values() if "failed" in one]
    found: Record = {"draws": len(draws), "failed": sorted(set(failed))}
    if good:
        for name in ("cpu_s", "peak_mb"):
            found[name] = round(statistics.median(one[name] for one in good.values()), 2)
        names = list(next(iter(good.values()))["sets"])
        found["sets"] = {name: _set(name, good, base) for name in names}
        # What a calibration states is of images like its own.
        found["sets"][names[0]] |= _stated(names[0], good)
    return found


def _set(name: str, draws: Mapping[str, Record], base: Mapping[str, Record]) -> Record:
    rows = {number: one["sets"][name] for number, one in draws.items()}
    losses = {number: row["loss"] for number, row in rows.items()}
    found = {
        "images": min(row["images"] for row in rows.values()),
        "loss": _mean(losses.values()),
        "worst_draw": max(losses.values()),
        "least_cosine": min(row["least_cosine"] for row in rows.values()),
        "agreement": _mean(row["agreement"] for row in rows.values()),
        "least_agreement": min(row["agreement"] for row in rows.values()),
    }
    if next(iter(rows.values()))["accuracy"] is not None:
        for each in ("accuracy", "float_accuracy"):
            found[each] = _mean(row[each] for row in rows.values())
    both = [n for n in rows if "sets" in base.get(n, {})]
    if both:
        own = {n: base[n]["sets"][name]["loss"] for n in both}
        found["to_minmax"] = _mean(losses[n] for n in both) / _mean(own.values())
        found["to_minmax_by_draw"] = [round(losses[n] / own[n], 3) for n in both]
    return {key: _rounded(value) for key, value in found.items()}


def _stated(name: str, draws: Mapping[str, Record]) -> Record:
    """Return how often the stated interval has the loss that was measured, and how wide it is."""
    pairs = [(one["sets"][name]["loss"], one.get("stated")) for one in draws.values()]
    known = [(loss, *bounds) for loss, bounds in pairs if bounds]
    if not known:
        return {}
    widths = [(high - low) / loss for loss, low, high in known]
    return {
        "interval_held": _mean(low <= loss <= high for loss, low, high in known),
        "interval_width_to_loss": round(statistics.median(widths), 3),
    }


def cost(pairs: Sequence[Mapping[str, Record]]) -> Record:
    """Return medians of a method's costs, and of their ratios to the peer's of the same turn."""
    found: Record = {}
    for name in ("cpu_s", "peak_mb"):
        found[name] = round(statistics.median(one["own"][name] for one in pairs), 2)
        ratios = [one["own"][name] / one["base"][name] for one in pairs]
        found[f"{name}_ratio"] = round(statistics.median(ratios), 3)
    return found


def _mean(values: Any) -> float:
    return statistics.fmean(values)


def _rounded(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


def write(page: Path, found: Record) -> None:
    """Write tables between the marks of a page.

    Raises:
        ValueError: The page has no such marks.
    """
    text = page.read_text()
    before, _, rest = text.partition(START)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{page.name} has no {START} and {END}")
    # Of networks that no method of ours was measured on, there is nothing to compare with.
    both = {n: one for n, one in found["networks"].items() if OURS in one["methods"]}
    found = {**found, "networks": both}
    tables = "\n".join((*_losses(found), "", *_methods(found)))
    page.write_text(f"{before}{START}\n\n{tables}\n\n{END}{after}")


def _names(found: Record) -> list[str]:
    """Return the names of all methods, ours first."""
    ours = [method.name for method in reversed(METHODS)]
    listed = {name for one in found["networks"].values() for name in one["methods"]}
    return [*(name for name in ours if name in listed), *sorted(listed - {*ours})]


def _losses(found: Record) -> Iterator[str]:
    """Yield the table of losses, mean and worst draw: networks and sets down, methods across."""
    names = _names(found)
    yield f"| network, images | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for network, one in found["networks"].items():
        methods = one["methods"]
        sets = list(dict.fromkeys(s for m in methods.values() for s in m.get("sets", ())))
        mark = "" if one["chosen"] else " *"
        for each in sets:
            cells = (_loss(methods.get(name, {}).get("sets", {}).get(each)) for name in names)
            yield f"| {network}{mark}, {each} | {' | '.join(cells)} |"


def _loss(one: Record | None) -> str:
    return f"{one['loss']:.3g} ({one['worst_draw']:.3g})" if one else "-"


def _methods(found: Record) -> Iterator[str]:
    """Yield the table of methods: the worst and the mean over networks, on their own images."""
    heads = ("least cosine", "agreement", "accuracy lost", "CPU seconds", "peak MB", "draws")
    yield f"| | {' | '.join(heads)} |"
    yield "|---" * (len(heads) + 1) + "|"
    for name in _names(found):
        every = [one["methods"].get(name, {}) for one in found["networks"].values()]
        done = [one for one in every if "sets" in one]
        if not done:
            yield f"| {name} |{' - |' * len(heads)}"
            continue
        own = [next(iter(one["sets"].values())) for one in done]
        lost = [o["float_accuracy"] - o["accuracy"] for o in own if "accuracy" in o]
        cells = (
            f"{min(one['least_cosine'] for one in own):.4f}",
            f"{_mean(one['agreement'] for one in own):.2%}",
            f"{100 * _mean(lost):.2f} points" if lost else "-",
            f"{_mean(one['cpu_s'] for one in done):.1f}",
            f"{max(one['peak_mb'] for one in done):.0f}",
            str(min(one["draws"] for one in done)),
        )
        yield f"| {name} | {' | '.join(cells)} |"
