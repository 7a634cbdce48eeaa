"""`tcc zoo` and `tcc zoo table`: the networks, and the papers' tables with computed costs."""

import json
from decimal import Decimal

import pytest

from tcc.compiler.frontend.spec import load
from tcc.compiler.support.diagnostics import NOWHERE
from tcc.compiler.zoo import shipped, tables
from tcc.compiler.zoo.counting_conventions import CONVENTIONS, CountedNetwork
from tcc.compiler.zoo.tables import Cell, Column, PrintedMatch

TABLES = ("ddsnet-1", "fastnet-5", "fastnet-6", "fastnet-7", "fastnet-8", "sensors-2")


@pytest.fixture(scope="module")
def known_tables():
    """Documents of the tables that tests requested."""
    return {}


@pytest.fixture
def table(tcc, known_tables):
    """Return the rows of a table by model."""

    def read_table(name):
        if name not in known_tables:
            known_tables[name] = tcc("zoo", "table", name, "--json").document
        return {row["model"]: row for row in known_tables[name]["rows"]}

    return read_table


def test_every_network_is_listed_with_its_cost(tcc):
    models = {m["name"]: m for m in tcc("zoo", "--json").document["models"]}
    assert set(models) == set(shipped.list_specs())
    assert models["vgg11"] == {
        "name": "vgg11",
        "task": "tumour images",
        "classes": 7,
        "input": [3, 224, 224],
        "params": 128_795_015,
        "macs": 7_605_022_720,
        "trained": [],
        "paper": "Simonyan, Zisserman, 2014",
        "tables": ["ddsnet-1"],
    }
    assert all(m["task"] and m["paper"] and m["tables"] for m in models.values())


def test_zoo_list_as_text(tcc):
    outcome = tcc("zoo")
    assert outcome.code == 0
    head, *rows = outcome.out.splitlines()
    assert head.split() == [
        *("name", "input", "classes", "params", "MACs", "trained", "tables", "task", "paper")
    ]
    fastnet = next(row for row in rows if row.startswith("fastnet "))
    assert fastnet.split()[:6] == [
        "fastnet",
        "3x256x256",
        "2",
        "218,534",
        "104,934,932",
        "fastnet-lung",
    ]
    assert "fastnet-7, fastnet-8" in fastnet
    assert tcc("zoo", "-q").out.split() == list(shipped.list_specs())


def test_listed_weights_exist():
    models_document = tables.read_document(shipped.get_package_folder("zoo") / "models.yaml")
    assert set(models_document) == set(shipped.list_specs())
    weight_names = [name for model in models_document.values() for name in model.get("weights", ())]
    assert [
        name
        for name in weight_names
        if not (shipped.get_package_folder("zoo") / "weights" / name).is_file()
    ] == []


@pytest.mark.parametrize(
    ("name", "model", "column", "computed", "printed", "agreement"),
    [
        ("ddsnet-1", "VGG", "params", 128_795_015, 128.79, "truncated"),
        ("ddsnet-1", "SqueezeNet", "params", 739_015, 0.73, "truncated"),
        ("ddsnet-1", "ResNet", "params", 11_180_103, 11.18, "rounded"),
        ("ddsnet-1", "ResNet", "size", 44_758_812, 42.72, "none"),
        ("fastnet-5", "1 scale", "params", 6650, 6650, "equal"),
        ("fastnet-5", "4 scales", "flops", 16_016, 16_016, "equal"),
        ("fastnet-6", "16 branches", "params", 17_074, 17_074, "equal"),
        ("fastnet-6", "8 branches", "flops", 23_683, 23_683, "equal"),
        ("fastnet-7", "1: standard", "params", 1_327_010, 1.32, "truncated"),
        ("fastnet-7", "4: separable, shortcut", "params", 218_534, 0.22, "rounded"),
        ("fastnet-8", "MobileNetV2", "params", 690_242, 0.69, "rounded"),
        ("fastnet-8", "EfficientNet-B0", "flops", 1_026_555_576, 1027, "rounded"),
        ("fastnet-8", "ShuffleNetV2", "flops", 379_326_077, 381, "none"),
        ("sensors-2", "ResNet34", "fp32", 85_108_744, 85.1, "rounded"),
        ("sensors-2", "ResNet34", "int8", 21_507_064, 21.5, "rounded"),
        ("sensors-2", "VGG16", "fp32", 58_862_856, 74.1, "none"),
    ],
)
def test_key_figures(table, name, model, column, computed, printed, agreement):
    figure = table(name)[model]["figures"][column]
    assert figure["computed"] == computed
    assert figure["printed"] == printed
    assert figure["agreement"] == agreement


def test_operation_counts_match_the_tools_of_the_papers(table):
    """The totals that ptflops and TensorFlow's profiler reported for these networks."""
    counted = {
        "ddsnet-1": {
            "ResNet": 1_824_804_359,
            "SqueezeNet": 750_060_571,
            "Inception-v3": 5_745_625_895,
            "DenseNet": 2_898_825_223,
            "DDSNet": 428_739_199,
        },
        "fastnet-7": {
            "1: standard": 773_640_191,
            "2: standard, shortcut": 773_748_847,
            "3: separable": 210_314_281,
            "4: separable, shortcut": 210_422_937,
        },
    }
    for name, models in counted.items():
        rows = table(name)
        computed_flops = {model: rows[model]["figures"]["flops"]["computed"] for model in models}
        assert computed_flops == models


def test_shared_stem_counts_once():
    graph = load(shipped.list_specs()["ddsnet"], {"classes": "7"}).graph
    assert CONVENTIONS["ptflops"].count(CountedNetwork(graph)) == 306_711_167


def test_document_describes_its_rows(tcc):
    document = tcc("zoo", "table", "ddsnet-1", "--json").document
    assert document["table"] == "ddsnet-1"
    assert document["columns"]["size"]["unit"] == "MiB"
    assert "ptflops" in document["columns"]["flops"]["convention"]
    row = document["rows"][-1]
    assert (row["spec"], row["set"]) == ("ddsnet", {"classes": "7"})
    assert (row["params"], row["macs"]) == (190_119, 283_742_312)
    assert "stem twice" in row["why"]
    assert row["figures"]["flops"] == {
        "computed": 428_739_199,
        "in_unit": 0.42874,
        "printed": 0.43,
        "difference": -0.00126,
        "agreement": "rounded",
    }


def test_table_as_text(tcc):
    lines = tcc("zoo", "table", "ddsnet-1").out.splitlines()
    assert lines[0] == "DDSNet (Huang, Son, Xiong, SAC 2025), Table 1, with 7 classes"
    vgg = next(line for line in lines if line.startswith("VGG"))
    assert vgg.split() == [
        *("VGG", "7,605,022,720", "128,795,015", "128.79", "+0.005", "truncated"),
        *("7,639,568,391", "7.64", "-0.000", "rounded", "491.314", "491.32", "-0.006"),
    ]
    assert [line for line in lines if line.startswith("Params: trainable parameters")]
    assert [line for line in lines if line.startswith("Flops: multiply-accumulates, 1 per bias")]
    assert [line for line in lines if line.startswith("Size: bytes of the fp32 parameters")]


def test_quiet_prints_only_the_figures(tcc):
    out = tcc("zoo", "table", "fastnet-5", "-q").out.splitlines()
    assert len(out) == 5
    assert out[0].split()[0] == "model"


def test_narrow_terminal_has_one_line_per_figure(tcc, monkeypatch):
    monkeypatch.setattr("tcc.compiler.cli.zoo.fits_terminal", lambda lines: False)
    rows = [line.split() for line in tcc("zoo", "table", "fastnet-7", "-q").out.splitlines()]
    assert rows[0] == ["model", "figure", "computed", "paper", "difference"]
    assert rows[2][-6:] == ["FLOPs", "M", "773,640,191", "773.64", "+0.000", "rounded"]


@pytest.mark.parametrize("name", TABLES)
def test_markdown_has_a_table_and_notes(tcc, name):
    outcome = tcc("zoo", "table", name, "--format", "markdown")
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert rows[1].startswith("| --- | ---: |")
    assert len(rows) == 2 + len(tables.read_table(name, NOWHERE).rows)
    assert lines[0].startswith("**")
    assert [line for line in lines if line.startswith("- ")]


def test_unknown_table_has_a_suggestion(tcc):
    outcome = tcc("zoo", "table", "ddsnet1")
    assert outcome.code == 2
    assert outcome.err == (
        "error[E0609]: there is no table `ddsnet1`\n"
        "  --> command line: ddsnet1\n"
        f"   = help: did you mean `ddsnet-1`? tables: {', '.join(TABLES)}\n"
    )
    json_outcome = tcc("zoo", "table", "../models", "--json")
    assert json_outcome.code == 2
    assert json.loads(json_outcome.out)["diagnostics"][0]["code"] == "E0609"


@pytest.mark.parametrize(
    "arguments",
    [
        ("zoo", "table"),
        ("zoo", "tabel", "ddsnet-1"),
        ("zoo", "table", "ddsnet-1", "--format", "pdf"),
        ("zoo", "table", "ddsnet-1", "--format", "markdown", "--json"),
        ("zoo", "--json", "table", "ddsnet-1"),
    ],
)
def test_wrong_command_lines_exit_with_2(tcc, arguments):
    outcome = tcc(*arguments)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert outcome.err


def test_tables_have_every_column_and_existing_specs():
    assert tables.list_tables() == TABLES
    for name in TABLES:
        zoo_table = tables.read_table(name, NOWHERE)
        assert {column.convention for column in zoo_table.columns.values()} <= set(CONVENTIONS)
        for row in zoo_table.rows:
            assert set(row.printed) == set(zoo_table.columns)
            assert row.spec in shipped.list_specs()


def test_operation_patterns_match_operations():
    """A pattern without a match would change no count, so nobody would notice it."""
    from fnmatch import fnmatchcase

    for name in TABLES:
        for row in tables.read_table(name, NOWHERE).rows:
            nodes = load(shipped.list_specs()[row.spec], row.settings).graph.nodes
            for pattern in (*row.functions, *row.twice):
                assert [n for n in nodes if fnmatchcase(n.name, pattern)], (name, pattern)


@pytest.mark.parametrize(
    ("computed", "printed", "agreement"),
    [
        (1_250_000, "1.25", PrintedMatch.EQUAL),
        (1_254_999, "1.25", PrintedMatch.ROUNDED),
        (1_245_000, "1.25", PrintedMatch.ROUNDED),
        (1_259_999, "1.25", PrintedMatch.TRUNCATED),
        (1_244_999, "1.25", PrintedMatch.NONE),
        (1_260_000, "1.25", PrintedMatch.NONE),
    ],
)
def test_printed_figures_are_compared_with_computed_ones(computed, printed, agreement):
    cell = Cell(Column("Params", "parameters", "M", 2), computed, Decimal(printed))
    assert cell.agreement is agreement
