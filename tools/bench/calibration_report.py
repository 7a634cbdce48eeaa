"""Summarize the results of `calibration.py` over all draws, as JSON and as tables of a page."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tcc.compiler.quant.methods import METHODS

BASE_METHOD = "minmax"
"""The base method; the others' losses are compared with its loss in the same draw."""
START, END = "<!-- calibration: measured -->", "<!-- calibration: end -->"
Record = dict[str, Any]


def read_report(folder: Path) -> Record:
    """Return a summary of the results below a folder, by network, method and set."""
    cells: dict[str, dict[str, dict[str, Record]]] = defaultdict(lambda: defaultdict(dict))
    for path in sorted((folder / "results").glob("*/*/*.json")):
        network, method, draw = path.parent.parent.name, path.parent.name, path.stem
        cells[network][method][draw] = json.loads(path.read_text())
    costs: dict[str, Record] = defaultdict(dict)
    for path in sorted((folder / "costs").glob("*/*.json")):
        costs[path.parent.name][path.stem] = summarize_costs(json.loads(path.read_text()))
    return {
        "networks": {n: _summarize_network(methods) for n, methods in cells.items()},
        "costs": dict(costs),
    }


def _summarize_network(methods: Mapping[str, Mapping[str, Record]]) -> Record:
    base = methods.get(BASE_METHOD, {})
    is_chosen = any(trial["chosen"] for trials in methods.values() for trial in trials.values())
    return {
        "chosen": is_chosen,
        "methods": {n: _summarize_method(d, base) for n, d in methods.items()},
    }


def _summarize_method(trials: Mapping[str, Record], base: Mapping[str, Record]) -> Record:
    complete = {number: trial for number, trial in trials.items() if "sets" in trial}
    failed = [trial["failed"] for trial in trials.values() if "failed" in trial]
    summary: Record = {"draws": len(trials), "failed": sorted(set(failed))}
    if complete:
        for name in ("cpu_s", "peak_mb"):
            summary[name] = round(statistics.median(trial[name] for trial in complete.values()), 2)
        names = list(next(iter(complete.values()))["sets"])
        summary["sets"] = {name: _summarize_set(name, complete, base) for name in names}
        # A calibration states the loss for images like its own.
        summary["sets"][names[0]] |= _summarize_intervals(names[0], complete)
    return summary


def _summarize_set(name: str, trials: Mapping[str, Record], base: Mapping[str, Record]) -> Record:
    rows = {number: trial["sets"][name] for number, trial in trials.items()}
    losses = {number: row["loss"] for number, row in rows.items()}
    summary = {
        "images": min(row["images"] for row in rows.values()),
        "loss": _compute_mean(losses.values()),
        "worst_draw": max(losses.values()),
        "least_cosine": min(row["least_cosine"] for row in rows.values()),
        "agreement": _compute_mean(row["agreement"] for row in rows.values()),
        "least_agreement": min(row["agreement"] for row in rows.values()),
    }
    if next(iter(rows.values()))["accuracy"] is not None:
        for metric in ("accuracy", "float_accuracy"):
            summary[metric] = _compute_mean(row[metric] for row in rows.values())
    both = [n for n in rows if "sets" in base.get(n, {})]
    if both:
        base_losses = {n: base[n]["sets"][name]["loss"] for n in both}
        summary["to_minmax"] = _compute_mean(losses[n] for n in both) / _compute_mean(
            base_losses.values()
        )
        summary["to_minmax_by_draw"] = [round(losses[n] / base_losses[n], 3) for n in both]
    return {key: _round_number(number) for key, number in summary.items()}


def _summarize_intervals(name: str, trials: Mapping[str, Record]) -> Record:
    """Return how often the stated interval contains the measured loss, and its relative width."""
    pairs = [(trial["sets"][name]["loss"], trial.get("stated")) for trial in trials.values()]
    bounded = [(loss, *bounds) for loss, bounds in pairs if bounds]
    if not bounded:
        return {}
    widths = [(high - low) / loss for loss, low, high in bounded]
    return {
        "interval_held": _compute_mean(low <= loss <= high for loss, low, high in bounded),
        "interval_width_to_loss": round(statistics.median(widths), 3),
    }


def summarize_costs(pairs: Sequence[Mapping[str, Record]]) -> Record:
    """Return medians of a method's costs, and of their ratios to the base peer's adjacent run."""
    summary: Record = {}
    for name in ("cpu_s", "peak_mb"):
        summary[name] = round(statistics.median(pair["own"][name] for pair in pairs), 2)
        ratios = [pair["own"][name] / pair["base"][name] for pair in pairs]
        summary[f"{name}_ratio"] = round(statistics.median(ratios), 3)
    return summary


def _compute_mean(numbers: Any) -> float:
    return statistics.fmean(numbers)


def _round_number(number: Any) -> Any:
    return round(number, 5) if isinstance(number, float) else number


def write_tables(page: Path, report: Record) -> None:
    """Write the tables between the markers of a page.

    Raises:
        ValueError: The page has no such markers.
    """
    text = page.read_text()
    text_above, _, text_below = text.partition(START)
    _, mark, text_behind = text_below.partition(END)
    if not mark:
        raise ValueError(f"{page.name} has no markers {START} and {END}: add them")
    # Skip networks without a result of the base method: there is nothing to compare with.
    both = {
        n: summary for n, summary in report["networks"].items() if BASE_METHOD in summary["methods"]
    }
    report = {**report, "networks": both}
    tables = "\n".join((*_format_losses(report), "", *_format_methods(report)))
    page.write_text(f"{text_above}{START}\n\n{tables}\n\n{END}{text_behind}")


def _list_methods(report: Record) -> list[str]:
    """Return the names of all methods, tcc's first."""
    tcc_methods = [method.name for method in reversed(METHODS)]
    measured = {name for summary in report["networks"].values() for name in summary["methods"]}
    return [*(name for name in tcc_methods if name in measured), *sorted(measured - {*tcc_methods})]


def _format_losses(report: Record) -> Iterator[str]:
    """Yield the table of losses, mean and worst draw: a row per set, a column per method."""
    names = _list_methods(report)
    yield f"| network, images | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for network, summary in report["networks"].items():
        methods = summary["methods"]
        sets = list(dict.fromkeys(s for m in methods.values() for s in m.get("sets", ())))
        mark = "" if summary["chosen"] else " *"
        for set_name in sets:
            cells = (
                _format_loss(methods.get(name, {}).get("sets", {}).get(set_name)) for name in names
            )
            yield f"| {network}{mark}, {set_name} | {' | '.join(cells)} |"


def _format_loss(set_summary: Record | None) -> str:
    return f"{set_summary['loss']:.3g} ({set_summary['worst_draw']:.3g})" if set_summary else "-"


def _format_methods(report: Record) -> Iterator[str]:
    """Yield the table of methods: worst and mean values over the networks' own images."""
    heads = ("least cosine", "agreement", "accuracy lost", "CPU seconds", "peak MB", "draws")
    yield f"| | {' | '.join(heads)} |"
    yield "|---" * (len(heads) + 1) + "|"
    for name in _list_methods(report):
        summaries = [summary["methods"].get(name, {}) for summary in report["networks"].values()]
        complete = [summary for summary in summaries if "sets" in summary]
        if not complete:
            yield f"| {name} |{' - |' * len(heads)}"
            continue
        set_summaries = [next(iter(summary["sets"].values())) for summary in complete]
        lost = [o["float_accuracy"] - o["accuracy"] for o in set_summaries if "accuracy" in o]
        cells = (
            f"{min(summary['least_cosine'] for summary in set_summaries):.4f}",
            f"{_compute_mean(summary['agreement'] for summary in set_summaries):.2%}",
            f"{100 * _compute_mean(lost):.2f} points" if lost else "-",
            f"{_compute_mean(summary['cpu_s'] for summary in complete):.1f}",
            f"{max(summary['peak_mb'] for summary in complete):.0f}",
            str(min(summary["draws"] for summary in complete)),
        )
        yield f"| {name} | {' | '.join(cells)} |"
