"""A bundle's model card: what its manifest says, for people, in Markdown.

The headings are those of Mitchell et al., Model Cards for Model Reporting (arXiv 1810.03993), as
far as a compiler knows what belongs below them.
"""

import html
import re
from collections.abc import Iterator, Sequence

from tcc.compiler.bundle.manifest import Manifest, Measured, OutputContract
from tcc.compiler.ir.preprocess import Preprocess
from tcc.compiler.support import json_records

NAME = "model-card.md"
UNKNOWN = "not known to the compiler: whoever trained it has to say"
_SPECIAL = re.compile(r"([\\`*_\[\]|#])")


def encode(about: Manifest) -> bytes:
    """Return the card of a bundle, by its manifest alone."""
    return ("\n".join(_lines(about)) + "\n").encode()


def _lines(about: Manifest) -> Iterator[str]:
    yield f"# {_plain(about.model.name)} for {about.target} at {about.precision}"
    yield from _section("Model details", _details(about))
    yield from _section("Intended use", _use(about))
    yield from _section("Input", _input(about))
    yield from _section("Outputs", [_output(each) for each in about.outputs])
    yield from _section("Training data", [UNKNOWN])
    yield from _section("Evaluation", _evaluation(about))
    yield from _section("Proof", _proof(about))
    yield from _section("Caveats", _caveats(about))


def _section(title: str, items: Sequence[str]) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield from (f"- {item}" for item in items)


def _details(about: Manifest) -> list[str]:
    weights = about.weights
    params = ", ".join(f"{_plain(k)} = {_plain(v)}" for k, v in about.model.params.items())
    named = {
        "file": "a file",
        "zoo": f"the trained network {_plain(weights.file or '')} of the zoo",
        "random": f"random, of seed {weights.seed}",
    }[weights.origin]
    return [
        f"network: {_plain(about.model.name)}, spec `{about.model.spec}`",
        *([f"parameters: {params}"] if params else []),
        f"weights: {named}, digest `{weights.digest}`",
        f"made with {', '.join(f'{k} {v}' for k, v in about.made_with.items())}",
        *(
            f"files of the target: `{f.path}`, {f.bytes:,} bytes"
            for f in about.files
            if _own(f.path)
        ),
    ]


def _own(path: str) -> bool:
    return path.startswith("model/")


def _use(about: Manifest) -> list[str]:
    said = _plain(about.model.doc) if about.model.doc else UNKNOWN
    medical = "a compiler's output is no cleared medical device; its user answers for its use"
    return [f"what the spec says of itself: {said}", medical]


def _input(about: Manifest) -> list[str]:
    source = about.input
    shape = " x ".join(map(str, source.shape))
    made = (
        "none: tensors as they are" if source.preprocess is None else _contract(source.preprocess)
    )
    return [f"`{source.name}`: {shape}, {source.dtype}", f"preprocessing: {made}"]


def _contract(found: Preprocess) -> str:
    said = json_records.encode(found)
    return "; ".join(f"{name} `{value}`" for name, value in said.items() if value is not None)


def _output(output: OutputContract) -> str:
    shape = " x ".join(map(str, output.shape))
    labels = f": {', '.join(map(_plain, output.labels))}" if output.labels else ""
    return f"`{output.name}`: {shape}, {output.kind}, activation {output.activation}{labels}"


def _evaluation(about: Manifest) -> list[str]:
    found = about.calibration
    if found is None:
        return [f"accuracy: {UNKNOWN}, by `tcc eval`"]
    said = f"scales: {found.method}, {found.images} images, digest `{found.data}`"
    return [f"accuracy: {UNKNOWN}, by `tcc eval`", said, *_measured(found.measured)]


def _measured(found: Measured | None) -> list[str]:
    if found is None:
        return ["integers against floats: not measured"]
    lines = []
    for name, one in found.outputs.items():
        figures = {
            "mean cosine": one.cosine,
            "least": one.least_cosine,
            "correlation": one.correlation,
            "relative error": one.error,
            "same decision": one.agreement,
        }
        said = ", ".join(
            f"{what} {value:.4f}" for what, value in figures.items() if value is not None
        )
        lines.append(
            f"integers against floats, `{name}`, {one.images} images {found.where}: {said}"
        )
    return lines


def _proof(about: Manifest) -> list[str]:
    goldens = about.goldens
    near = goldens.tolerance
    allowed = f"within {near.relative:.0e} of the largest" if near.relative else "to the bit"
    return [
        f"{len(goldens.cases)} goldens by {goldens.executor}, to be met {allowed}: {near.reason}",
        "`tcc verify` replays them, and checks every file against `manifest.json`",
    ]


def _caveats(about: Manifest) -> list[str]:
    found = [_plain(about.weights.notice)] if about.weights.notice else []
    if about.calibration and about.calibration.in_float:
        found.append(f"in float: {', '.join(map(_plain, about.calibration.in_float))}")
    found += [f"{w.code}: {_plain(w.message)}: {_plain(w.found)}" for w in about.warnings]
    return [
        *found,
        "images unlike those of training and calibration may be told wrongly, and surely",
    ]


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is: no markup, no HTML, one line."""
    return _SPECIAL.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))
