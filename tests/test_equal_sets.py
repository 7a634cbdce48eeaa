"""C, ARM, Python and the page give the same prediction sets and answers, also for ties."""

import json
import shutil
import subprocess
from importlib.resources import files

import numpy as np
import pytest
from web_node import needs_node, run_node

from tcc.backends.arm.codegen import c_header, zig
from tcc.backends.arm.machine import MACHINES
from tcc.compiler.reference import prediction_sets

CC = shutil.which("cc") or shutil.which("gcc")
NODE_CODE = """
import { readFileSync } from 'node:fs';
import { hasAnswer, predictionSet } from 'site/prediction_sets.js';
const cases = JSON.parse(readFileSync(process.argv[2]));
console.log(JSON.stringify(cases.map(({ raw, sets, abstention }) => {
  const row = Float32Array.from(raw);
  return [predictionSet(row, sets), hasAnswer(row, abstention)];
})));
"""
C_CODE = """
#include <stddef.h>
#include <stdio.h>
#include "model.h"
enum { CASES = @CASES@ };
@TABLES@
model_output model_outputs[1] = {{"y", 0, 0}};
#define MODEL_SETS_OUTPUT "y"
#define MODEL_SET_GAPS gap_count
#define MODEL_ANSWER_OUTPUT "y"
#define MODEL_ANSWER_MARGIN answer_margin
static size_t gap_count;
static float model_set_gaps[8], answer_margin;
#include "sets.h"
int main(void)
{
    for (int n = 0, at = 0; n < CASES; at += sizes[n], n++) {
        unsigned char members[8];
        model_outputs[0].size = (size_t)sizes[n];
        gap_count = (size_t)gap_counts[n];
        for (int i = 0; i < 8; i++)
            model_set_gaps[i] = gaps[n][i];
        answer_margin = margins[n];
        if (model_prediction_set(0, raw + at, members) || model_prediction_set(1, raw, members) != 1)
            return 1;
        for (int i = 0; i < sizes[n]; i++)
            putchar('0' + members[i]);
        printf(" %d\\n", model_has_answer(0, raw + at));
    }
    return model_has_answer(-1, raw) == -1 ? 0 : 1;
}
"""
C_MODEL = """
#pragma once
#include <stddef.h>
typedef struct { const char *name; size_t offset, size; } model_output;
enum { MODEL_OK = 0, MODEL_BAD_ARGUMENT = 1, MODEL_OUTPUT_COUNT = 1 };
extern model_output model_outputs[1];
"""


def generate_sets(count=1500):
    """Return outputs with gaps and a margin. Most of these equal a difference, or are next to it.

    Yields:
        Raw float32 (classes,), the gaps with None for a class that is in every set, and the margin.
    """
    random = np.random.default_rng(31)
    for number in range(count):
        size = int(random.integers(2, 9))
        scale = float(random.choice([1e-3, 1.0, 6.0, 300.0, 3e38]))
        raw = np.clip(random.standard_normal(size) * scale, -3.4e38, 3.4e38).astype(np.float32)
        if number % 3 == 0:  # quantized outputs, with ties
            raw = np.float32(np.round(random.standard_normal(size) * 2) * np.float32(0.0937))
        differences = np.sort(prediction_sets.compute_gaps(raw[None])[0])
        differences = np.minimum(differences, np.float32(3e38))
        toward = (None, np.float32(np.inf), np.float32(0))[number % 3]
        gaps = random.choice(differences, size if number % 2 else 1)
        gaps = [float(gap) for gap in (gaps if toward is None else np.nextafter(gaps, toward))]
        if number % 5 == 0:
            gaps[-1] = None
        gaps = [None if gap is not None and not np.isfinite(gap) else gap for gap in gaps]
        margin = -1.0 if number % 11 == 0 else float(differences[1])
        if number % 4 == 1 and margin >= 0:
            margin = float(np.nextafter(np.float32(margin), np.float32(0)))
        yield raw, gaps, margin


def decide_sets_in_python(raw, gaps, margin):
    """Return the prediction set, and whether the outputs have an answer."""
    members = np.flatnonzero(prediction_sets.find_sets(raw[None], gaps)[0]).tolist()
    return [members, bool(prediction_sets.find_answered(raw[None], margin)[0])]


def write_sets_program(folder, samples):
    """Write a C program that prints the set and the answer of each sample."""
    sizes = [len(raw) for raw, _, _ in samples]
    rows = [
        [-1.0 if gap is None else gap for gap in gaps] + [0.0] * (8 - len(gaps))
        for _, gaps, _ in samples
    ]
    flat = np.concatenate([raw for raw, _, _ in samples])
    tables = (
        f"static const int sizes[] = {{{', '.join(map(str, sizes))}}};",
        f"static const int gap_counts[] = {{{', '.join(str(len(g)) for _, g, _ in samples)}}};",
        f"static const float raw[] = {{{c_header.format_floats(flat, len(flat))}}};",
        "static const float gaps[][8] = {"
        + ", ".join(f"{{{c_header.format_floats(row, 8)}}}" for row in rows)
        + "};",
        f"static const float margins[] = {{{c_header.format_floats([m for _, _, m in samples], 2)}}};",
    )
    code = C_CODE.replace("@CASES@", str(len(samples))).replace("@TABLES@", "\n".join(tables))
    (folder / "test.c").write_text(code)
    (folder / "model.h").write_text(C_MODEL)
    text = (files("tcc.backends.arm") / "runtime/sets.h").read_text()
    (folder / "sets.h").write_text(text)


def check_sets_program(stdout, samples):
    """Compare what the program printed with Python."""
    expected = [decide_sets_in_python(*sample) for sample in samples]
    actual = [
        [[i for i, flag in enumerate(flags) if flag == "1"], answer == "1"]
        for flags, answer in (line.split() for line in stdout.splitlines())
    ]
    assert actual == expected
    # All outcomes occur.
    assert {len(members) == 1 for members, _ in expected} == {True, False}
    assert {answered for _, answered in expected} == {True, False}


@pytest.mark.skipif(not CC, reason="needs a C compiler")
@pytest.mark.parametrize("flags", [("-O2",), ("-O3", "-ffast-math"), ("-O0",)])
def test_c_and_python_give_the_same_sets(tmp_path, flags):
    samples = list(generate_sets())
    write_sets_program(tmp_path, samples)
    command = [CC, "-std=gnu11", "-Wall", "-Werror", *flags, "test.c", "-o", "test"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    completed = subprocess.run([tmp_path / "test"], capture_output=True, text=True, check=True)
    check_sets_program(completed.stdout, samples)


@pytest.mark.slow  # zig needs half a minute for its C library
@pytest.mark.parametrize("target", ["arm-a7", "arm-a53"])
def test_arm_under_qemu_and_python_give_the_same_sets(tmp_path, target):
    samples = list(generate_sets())
    write_sets_program(tmp_path, samples)
    machine = next(machine for machine in MACHINES if machine.target.name == target)
    options = (f"-mcpu={machine.cpu}", *zig.COMPILE_OPTIONS, "-static")
    zig.run(tmp_path, "cc", *machine.get_zig_target("musl"), *options, "test.c", "-o", "test")
    command = [machine.qemu, "-cpu", machine.qemu_cpu, tmp_path / "test"]
    completed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    check_sets_program(completed.stdout, samples)


@needs_node
def test_the_web_page_and_python_give_the_same_sets(tmp_path):
    samples = list(generate_sets())
    records = [
        {
            "raw": raw.tolist(),
            "sets": {"gaps": gaps, "by_class": len(gaps) > 1},
            "abstention": {"margin": margin},
        }
        for raw, gaps, margin in samples
    ]
    (tmp_path / "cases.json").write_text(json.dumps(records))
    page_outputs = run_node(NODE_CODE, tmp_path, tmp_path / "cases.json")
    assert page_outputs == [decide_sets_in_python(*sample) for sample in samples]
