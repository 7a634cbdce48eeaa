"""C, Python and the web page decide the same, bit for bit: random outputs, ties and thresholds."""

import ctypes
import json
import shutil
import subprocess

import numpy as np
import pytest
from web_node import needs_node, run_node

from tcc.backends.arm.codegen import c_header
from tcc.compiler.ir.operating_point import FittingData, OperatingPoint
from tcc.compiler.reference import decision_odds, decision_rule, roc_curve

CC = shutil.which("cc") or shutil.which("gcc")
NODE = """
import { readFileSync } from 'node:fs';
import { classOdds, decided } from 'site/decision.js';
const cases = JSON.parse(readFileSync(process.argv[2]));
console.log(JSON.stringify(cases.map(({ output, raw, point, column }) => {
  const row = Float32Array.from(raw);
  const bytes = new Uint8Array(Float64Array.of(classOdds(output.activation, row, point.temperature, column)).buffer);
  return [decided(output, row, point), Buffer.from(bytes).toString('hex')];
})));
"""
C = """
#include <stddef.h>
typedef struct { int activation, rank, kind; size_t size; } model_output;
enum { MODEL_NONE = 0, MODEL_SOFTMAX = 1, MODEL_SIGMOID = 2 };
enum { MODEL_CLASSES = 0, MODEL_DECISIONS = 1, MODEL_REGRESSION = 2 };
static model_output model_outputs[1];
static struct { double values[64]; } fitted;
#include "decision.h"
double odds(int activation, size_t size, const float *raw, size_t column, double temperature)
{
    model_output about = {activation, 1, MODEL_CLASSES, size};
    return log_odds(&about, raw, column, temperature);
}
void decide(int activation, int kind, size_t size, const float *raw, const double *record,
            size_t count, unsigned char *taken)
{
    model_outputs[0] = (model_output){activation, 1, kind, size};
    for (size_t i = 0; i < count; i++)
        fitted.values[i] = record[i];
    decide_output(0, raw, taken);
}
"""
ACTIVATIONS = ("none", "softmax", "sigmoid")
KINDS = ("classes", "decisions", "regression")
FITTED = FittingData("0" * 64, 9, "integers", None)
RNG = np.random.default_rng(29)


def generate_cases(count=1500):
    """Return outputs with operating points. Half of the thresholds equal occurring log-odds."""
    for number in range(count):
        size = int(RNG.integers(1, 9))
        scale = float(RNG.choice([1e-3, 1.0, 6.0, 300.0, 1e30]))
        raw = (RNG.standard_normal(size) * scale).astype(np.float32)
        if size > 1 and number % 4 == 0:
            raw[RNG.integers(size)] = raw[RNG.integers(size)]
        if number % 7 == 0:
            raw[:] = np.round(raw)
        activation, kind = (
            ("softmax", "classes"), ("sigmoid", "decisions"), ("none", "classes"),
            ("none", "regression"),
        )[RNG.integers(4)]  # fmt: skip
        temperature = float(RNG.choice([1.0, 0.37, 1.7, 900.0]))
        column = int(RNG.integers(size))
        class_odds = [
            float(decision_odds.compute_class_odds(activation, raw[None], temperature, k)[0])
            for k in range(size)
        ]
        nudge = (0.0, np.inf, -np.inf, 1.0)[number % 4]
        thresholds = [float(np.nextafter(x, nudge)) if nudge else x for x in class_odds]
        point = OperatingPoint("y", temperature, None, (), "none", FITTED)
        if kind == "decisions" and number % 3:
            point = OperatingPoint("y", temperature, None, tuple(thresholds), "", FITTED)
        if kind == "classes" and number % 3:
            point = OperatingPoint("y", temperature, column, (thresholds[column],), "", FITTED)
        yield activation, kind, raw, point, column


def decide_in_python(activation, kind, raw, point):
    """Return the classes that Python assigns to an output."""
    if kind == "regression":
        return []
    if kind == "decisions":
        return np.flatnonzero(decision_rule.predict_decisions(raw[None], point)[0]).tolist()
    return decision_rule.predict_classes(activation, raw[None], point).tolist()


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if not CC:
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("decision")
    (folder / "test.c").write_text(C)
    source = c_header.load_runtime_sources("model", frozenset())["decision.h"]
    (folder / "decision.h").write_text(source.replace('#include "model.h"', ""))
    flags = ("-O2", "-std=gnu11", "-ffp-contract=off", "-shared", "-fPIC", "-Wall")
    command = [CC, *flags, "test.c", "-o", "test.so", "-lm"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    shared_library = ctypes.CDLL(str(folder / "test.so"))
    shared_library.odds.restype = ctypes.c_double
    return shared_library


def decide_in_c(library, activation, kind, raw, point, column):
    """Return the classes from C, and the log-odds of one column as bytes."""
    size, floats = len(raw), raw.ctypes.data_as(ctypes.c_void_p)
    positive = -1 if point.positive is None else point.positive
    record = [1, 0, size, point.temperature, positive, len(point.thresholds), *point.thresholds]
    numbers, decisions = (ctypes.c_double * len(record))(*record), (ctypes.c_ubyte * size)()
    number = ACTIVATIONS.index(activation)
    library.decide(
        number, KINDS.index(kind), ctypes.c_size_t(size), floats, numbers,
        ctypes.c_size_t(len(record)), decisions,
    )  # fmt: skip
    odds = library.odds(
        number, ctypes.c_size_t(size), floats, ctypes.c_size_t(column),
        ctypes.c_double(point.temperature),
    )  # fmt: skip
    return np.flatnonzero(list(decisions)).tolist(), np.float64(odds).tobytes().hex()


def test_c_and_python_decide_the_same(library):
    samples = list(generate_cases())
    classes = set()
    for activation, kind, raw, point, column in samples:
        odds = decision_odds.compute_class_odds(activation, raw[None], point.temperature, column)
        expected = decide_in_python(activation, kind, raw, point), odds.tobytes().hex()
        assert decide_in_c(library, activation, kind, raw, point, column) == expected
        classes.add((kind, bool(point.thresholds), column in expected[0]))
    assert len(classes) == 9, classes  # thresholds just below and above


@needs_node
def test_the_web_page_and_python_decide_the_same(tmp_path):
    samples = list(generate_cases())
    records = [
        {
            "output": {"activation": activation, "kind": kind},
            "raw": raw.tolist(),
            "point": {
                "temperature": point.temperature,
                "positive": point.positive,
                "thresholds": point.thresholds,
            },
            "column": column,
        }
        for activation, kind, raw, point, column in samples
    ]
    (tmp_path / "cases.json").write_text(json.dumps(records))
    page_outputs = run_node(NODE, tmp_path, tmp_path / "cases.json")
    for (activation, kind, raw, point, column), (decisions, odds) in zip(
        samples, page_outputs, strict=True
    ):
        expected = decision_odds.compute_class_odds(
            activation, raw[None], point.temperature, column
        )
        assert odds == expected.tobytes().hex()
        assert decisions == decide_in_python(activation, kind, raw, point)


def test_log_odds_match_an_independent_computation():
    for activation, _, raw, point, column in generate_cases(300):
        actual = decision_odds.compute_class_odds(activation, raw[None], point.temperature, column)[
            0
        ]
        if len(raw) > 1 or activation != "softmax":
            expected = roc_curve.compute_log_odds(activation, raw[None], point.temperature)[
                0, column
            ]
            assert actual == pytest.approx(expected, rel=1e-12, abs=1e-12)
