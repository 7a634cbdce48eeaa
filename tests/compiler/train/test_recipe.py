"""Recipes: reading the text, and the location of each error."""

import pytest
from jsonschema import Draft202012Validator

from tcc.compiler.frontend import yaml
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.train import recipe
from tcc.compiler.zoo import shipped


def list_errors(text):
    with pytest.raises(UserError) as error:
        recipe.parse_recipe(text, "own.yaml")
    return [(d.code, d.at.line, d.at.column, d.message) for d in error.value.diagnostics]


HEAD = "tcc_recipe: 1\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1]", ("E1220", 1, 1, "a recipe must be a mapping of keys")),
        ("epochs: 3", ("E1222", 1, 1, "a recipe needs `tcc_recipe`")),
        ("tcc_recipe: 2", ("E1222", 1, 13, "`tcc_recipe` must be 1")),
        (HEAD + "epoch: 3", ("E1221", 2, 1, "a recipe has no key `epoch`")),
        (HEAD + "epochs: 0", ("E1222", 2, 9, "`epochs` must be at least 1")),
        (HEAD + "epochs: 1.5", ("E1222", 2, 9, "`epochs` must be an integer")),
        (HEAD + "batch: true", ("E1222", 2, 8, "`batch` must be an integer")),
        (HEAD + "average: 1", ("E1222", 2, 10, "`average` must be less than 1")),
        (HEAD + "average: .nan", ("E1222", 2, 10, "this must be a finite number")),
        (HEAD + "initial_weights: she", ("E1222", 2, 18, "`initial_weights` must be one of he")),
        (HEAD + "average:", ("E1222", 2, 9, "`average` must be a number")),
        (HEAD + "clip_norm: 0", ("E1222", 2, 12, "`clip_norm` must be more than 0")),
        (HEAD + "loss: focal", ("E1222", 2, 7, "`loss` must be a mapping of keys")),
        (HEAD + "loss: {gama: 1}", ("E1221", 2, 8, "`loss` has no key `gama`")),
        (
            HEAD + "loss: {kind: focl}",
            ("E1222", 2, 14, "`kind` must be one of cross_entropy, focal, attention"),
        ),
        (
            HEAD + "loss: {class_weights: {a: x}}",
            ("E1222", 2, 27, "`a` must be a number"),
        ),
        (
            HEAD + "loss: {gamma: 1}",
            ("E1223", 2, 8, "`gamma` has no effect if `kind` is cross_entropy"),
        ),
        (
            HEAD + "optimizer:\n  nesterov: true\n  kind: adamw",
            ("E1223", 3, 3, "`nesterov` has no effect if `kind` is adamw"),
        ),
        (
            HEAD + "learning_rate: {decay: 0.5, schedule: constant}",
            ("E1223", 2, 17, "`decay` has no effect if `schedule` is constant"),
        ),
        (
            HEAD + "augment: {blur: {amount: 9}}",
            ("E1215", 2, 26, "the `amount` of `augment: blur` must be at most 8"),
        ),
        (
            HEAD + "augment:\n  warp: {scale: [2, 1]}",
            ("E1215", 3, 17, "`augment: warp: scale` must be two numbers, the smaller first"),
        ),
        (
            HEAD + "augment: {crop: {area: [0.5, 0.2]}}",
            ("E1215", 2, 24, "`augment: crop: area` must be two numbers, the smaller first"),
        ),
    ],
)
def test_error_has_its_location(text, expected):
    assert list_errors(text) == [expected]


def test_all_errors_are_reported_together():
    text = HEAD + "epochs: 0\nbatch: x\nlos: {}\n"
    assert [(code, line) for code, line, _, _ in list_errors(text)] == [
        ("E1222", 2), ("E1222", 3), ("E1221", 4)
    ]  # fmt: skip


@pytest.mark.parametrize("name", shipped.list_recipes())
def test_shipped_recipes_are_valid(name):
    """Each matches the editor schema, and survives writing to a run's folder and reading back."""
    path = shipped.list_recipes()[name]
    parsed = recipe.read_recipe(path)
    Draft202012Validator(recipe.build_schema()).validate(
        yaml.to_plain(yaml.parse(path.read_text(), name))
    )
    text = recipe.render_json(parsed)
    reparsed = recipe.parse_recipe(text, "recipe.json")
    assert reparsed == parsed
    assert recipe.render_json(reparsed) == text
    assert parsed.doc


def test_digest_depends_on_the_recipe_keys():
    digests = {
        recipe.digest(recipe.parse_recipe(HEAD + extra_line, "own.yaml"))
        for extra_line in ("", "epochs: 3", "loss: {balanced: true}", "average: 0.9", "doc: x")
    }
    assert len(digests) == 5
