"""What a guard refuses to be fitted to, its plan, and its document."""

import json
from dataclasses import replace

import numpy as np
import pytest
from guard_sets import PLAN, add_changes, draw_set, fit

from tcc.compiler.guard import guard_document, known_changes
from tcc.compiler.guard.fit import fit_guard
from tcc.compiler.guard.plan import GuardPlan
from tcc.compiler.support import json_records
from tcc.compiler.support.diagnostics import UserError


@pytest.fixture(scope="module")
def guard():
    random = np.random.default_rng(0)
    return fit(random, draw_set(random, 100))


def code_of(error):
    return error.value.diagnostics[0].code


@pytest.mark.parametrize("cases", [None, [index // 2 for index in range(98)]])
def test_fewer_than_50_cases_are_refused(cases):
    random = np.random.default_rng(0)
    with pytest.raises(UserError) as error:
        fit(random, draw_set(random, 49 if cases is None else 98, cases=cases))
    assert code_of(error) == "E0741"
    assert "49 cases" in str(error.value)


def test_copies_of_an_image_count_once():
    random = np.random.default_rng(0)
    few = draw_set(random, 10)
    copies = replace(
        few, features=few.features.repeat(10, axis=0), channel_sums=few.channel_sums.repeat(10, 0)
    )
    with pytest.raises(UserError) as error:
        fit(random, copies)
    assert "100 images are of 10 cases" in str(error.value)


def test_too_few_form_images_are_refused():
    random = np.random.default_rng(0)
    with pytest.raises(UserError) as error:
        fit_guard(PLAN, add_changes(draw_set(random, 31)), draw_set(random, 100))
    assert code_of(error) == "E0741"


def test_a_score_with_one_value_is_refused():
    random = np.random.default_rng(0)
    images = draw_set(random, 100)
    with pytest.raises(UserError) as error:
        fit(random, replace(images, channel_sums=np.zeros_like(images.channel_sums)))
    assert code_of(error) == "E0743"
    assert "layer score" in str(error.value)


def test_a_guard_without_a_layer_has_two_scores():
    random = np.random.default_rng(0)
    plan = GuardPlan((3, 64, 64), 1, None, (), 1)
    forms = add_changes(draw_set(random, 100))
    guard = fit_guard(plan, replace(forms, channel_sums=None), draw_set(random, 100))
    assert (guard.layer, guard.layer_table, guard.scores) == (None, None, 2)
    assert guard_document.decode(guard_document.encode(guard), "g").layer is None


def test_equal_inputs_give_equal_bytes_and_they_read_back(guard, tmp_path):
    random = np.random.default_rng(0)
    second_guard = fit(random, draw_set(random, 100))
    content = guard_document.encode(guard)
    assert guard_document.encode(second_guard) == content
    (tmp_path / "guard.json").write_bytes(content)
    stored_guard = guard_document.read_guard(tmp_path / "guard.json")
    assert replace(stored_guard, seal="") == guard
    assert guard_document.encode(stored_guard) == content


def test_the_tables_of_the_largest_guard_fit_4_kb():
    random = np.random.default_rng(0)
    channels = guard_document.MAX_CHANNELS
    names = list(known_changes.CHANGES)
    forms = draw_set(random, 200)
    guard_images = draw_set(random, 100)
    many = {"channel_sums": random.integers(0, 5000, (200, channels))}
    guard_sums = {"channel_sums": random.integers(0, 5000, (100, channels))}
    changed = {name: forms.features[:50] + random.integers(-300, 300, 19) for name in names}
    plan = GuardPlan((3, 64, 64), 1, "layer", (channels, 8, 8), 1)
    guard = fit_guard(
        plan, replace(forms, **many, changed=changed), replace(guard_images, **guard_sums)
    )
    picture, layer, drift = guard.picture, guard.layer, guard.drift
    size = 2 * len(picture.center) + 2 * len(picture.rows) + len(picture.shifts)
    size += 4 * channels + 2 * channels + 2 * len(layer.directions) + 3 * len(layer.weights)
    size += sum(2 * len(c.direction) + 2 * len(c.thresholds) for c in drift.changes)
    size += 2 * 4 * (3 + 4) + 2 * len(drift.steps)
    assert len(drift.changes) == len(names)
    assert len(layer.weights) == 9
    assert size <= 4096


def seal(document):
    document["seal"] = json_records.seal(document)
    return (json.dumps(document) + "\n").encode()


def forge_steps(document):
    document["drift"]["steps"] = document["drift"]["steps"][:-1]


def forge_order(document):
    document["picture_table"]["thresholds"].reverse()


def forge_evidence(document):
    document["picture_table"]["steps"][-1] = 4096


def forge_directions(document):
    document["layer"]["directions"].pop()


def forge_stride(document):
    document["layer"]["stride"] = 3


def forge_row_step(document):
    document["row_step"] = 3


def forge_size(document):
    document["shape"] = [3, 4096, 4096]


def forge_table(document):
    document["layer_table"] = None


def forge_number(document):
    document["picture"]["rows"][0] = 40000


def forge_shift(document):
    document["picture"]["shifts"][0] = 3


FORGERIES = [
    forge_steps,
    forge_order,
    forge_evidence,
    forge_directions,
    forge_stride,
    forge_row_step,
    forge_size,
    forge_table,
    forge_number,
    forge_shift,
]


@pytest.mark.parametrize("forge", FORGERIES)
def test_a_forged_guard_with_a_valid_seal_is_refused(guard, forge):
    document = json.loads(guard_document.encode(guard))
    assert guard_document.decode(seal(document), "guard.json")
    forge(document)
    with pytest.raises(UserError) as error:
        guard_document.decode(seal(document), "guard.json")
    assert code_of(error) == "E0740"


def test_an_edited_or_oversized_guard_is_refused(guard, tmp_path):
    content = guard_document.encode(guard)
    edited = content.replace(b'"row_step": 1', b'"row_step": 2')
    assert edited != content
    with pytest.raises(UserError, match="seal"):
        guard_document.decode(edited, "guard.json")
    (tmp_path / "guard.json").write_bytes(content + b" " * guard_document.MAX_BYTES)
    with pytest.raises(UserError, match="larger"):
        guard_document.read_guard(tmp_path / "guard.json")


@pytest.mark.parametrize("name", known_changes.CHANGES)
def test_known_changes_change_pixels_and_keep_the_shape(name):
    random = np.random.default_rng(1)
    base = random.integers(40, 200, (6, 6, 3)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    changed = known_changes.apply_change(name, base)
    assert changed.shape == base.shape
    assert changed.dtype == np.uint8
    assert (changed != base).mean() > 0.1
    assert known_changes.apply_change(name, base[..., :1]).shape == (24, 24, 1)
