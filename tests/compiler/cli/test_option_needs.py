"""Options without effect are refused. One table has every option of every command."""

import importlib
import inspect
import platform

import pytest
import typer

import tcc as tcc_api
from tcc import arguments
from tcc.compiler.cli import option_table
from tcc.compiler.cli.parameters import find_command_name, find_long_name
from tcc.compiler.targets.devices import list_devices

APP = importlib.import_module("tcc.compiler.cli.app").app


def walk(command, parent=None):
    """Yield each command below `command`, with its context."""
    context = typer.Context(command, parent=parent, info_name=command.name)
    if parent is not None:
        yield context
    for child in getattr(command, "commands", {}).values():
        yield from walk(child, context)


def list_options(context):
    """Return the first long name of each option of a command."""
    return [find_long_name(p) for p in context.command.params if p.param_type_name == "option"]


CONTEXTS = {
    find_command_name(context): context
    for context in walk(typer.main.get_command(APP))
    if list_options(context)
}


def test_every_command_is_in_the_table():
    assert set(CONTEXTS) == set(option_table.OPTIONS)


@pytest.mark.parametrize("command", CONTEXTS)
def test_every_option_is_in_the_table(command):
    needs = option_table.find_needs(command)
    missing = set(list_options(CONTEXTS[command])) - set(needs)
    assert not missing, f"add {missing} of `tcc {command}` to option_table.py"
    gone = set(option_table.OPTIONS[command]) - set(list_options(CONTEXTS[command]))
    assert not gone, f"`tcc {command}` has no options {gone}"


@pytest.mark.parametrize("command", CONTEXTS)
def test_needs_name_options_of_the_same_command(command):
    option_names = set(list_options(CONTEXTS[command]))

    def yield_names(need):
        yield from getattr(need, "names", ())
        if hasattr(need, "name"):
            yield need.name
        for inner in getattr(need, "needs", ()):
            yield from yield_names(inner)

    for option, needs in option_table.find_needs(command).items():
        for need in needs:
            assert set(yield_names(need)) <= option_names, (command, option)


NO_EFFECT = {
    "check tiny.yaml --precision int8": "`--precision` has no effect: it needs `--target`",
    "check tiny.yaml --depth 2 --layers": "`--depth` has no effect: `--layers` opens every block",
    "check tiny.yaml --layers --json": "`--layers` has no effect: `--json` prints every layer",
    "show tiny.yaml --seed 3": "`--seed` has no effect",
    "show tiny.yaml --stage spec --set width=8": "`--set` has no effect: the stage `spec`",
    "show tiny.yaml --verify-passes": "`--verify-passes` has no effect: `float` has no passes",
    "show BUNDLE --set width=8": "`--set` has no effect: it is for specs",
    "train tiny.yaml --dask local": "`--dask` has no effect: it needs `--sweep`",
    "train tiny.yaml --workers 3 --sweep s.yaml": "`--workers` has no effect",
    "train tiny.yaml --sweep s.yaml --seed 5": "`--seed` has no effect: the sweep file",
    "train tiny.yaml --sweep s.yaml --resume": "`--resume` has no effect",
    "train tiny.yaml --sweep s.yaml --epochs 3": "`--epochs` has no effect: the sweep varies",
    "build tiny.yaml --target ort --method mse": "no target is built as int8",
    "build tiny.yaml --target ort --no-guard": "`--no-guard` has no effect: no target is built as int8",
    "build tiny.yaml --target ort --split none": "`--split` has no effect: no target is built as int8",
    "build tiny.yaml --target ort --no-tool": "`--no-tool` has no effect: no target is a package",
    "build tiny.yaml --target ax620 --no-replay": "`--no-replay` has no effect: this machine cannot run",
    "build tiny.yaml --target ort --no-cache --verify-passes": "`--no-cache` has no effect",
    "build tiny.yaml --target ort --precision int8 --calibration c.json --method mse":
        "`--method` has no effect: the file of `--calibration` already has the scales",
    "build tiny.yaml --target ort --precision int8 --calibration c.json --min-images 5000":
        "`--min-images` has no effect: the file of `--calibration` already has the scales",
    "build tiny.yaml --target ort --precision int8 --calibration c.json --guard": "`--guard` has",
    "build tiny.yaml --target ort --precision int8 --calibration c.json --mixed":
        "`--mixed` has no effect: no images measure",
    "build tiny.yaml --target ort --precision int8 --data set --include-images": "no target is a pack",
    "build ddsnet-blood --target ort --precision int8 --min-images 2": "come with the trained network",
    "build ddsnet-blood --target ort --precision int8 --split none": "`--split` has no effect: no im",
    "sign BUNDLE --runner-key device.pem --release 2": "`--release` has no effect: it needs `--key`",
    "run BUNDLE one.png --top 1 --json": "`--top` has no effect: `--json` prints every class",
    "eval tiny.yaml --data set --trust": "`--trust` has no effect: it is for bundles",
    "eval BUNDLE --data set --strict": "`--strict` has no effect: it is for specs",
    "eval BUNDLE --data set --fit --side val": "`--side` has no effect",
    "eval BUNDLE --data set --fit --carry BUNDLE": "`--fit` has no effect",
    "verify BUNDLE --output out": "`--output` has no effect: it needs `--bisect`",
    "verify BUNDLE --weights w": "`--weights` has no effect: it needs `--spec`",
    "bench BUNDLE --benchmark-model m": "`--benchmark-model` has no effect: it needs `--ssh` or",
    "fmt - --json": "`--json` has no effect: `-` writes the formatted text",
    "plot confusion BUNDLE --data set --set width=8": "`--set` has no effect: it is for specs",
    "plot confusion tiny.yaml --data set --trust": "`--trust` has no effect",
    "plot tsne tiny.yaml --data set --layer conv --trust": "`--trust` has no effect",
    "plot filters tiny.yaml --data set --calibration c.json": "`--data` has no effect: with",
    "plot features tiny.yaml --data set --calibration c.json --image one.png": "`--data` has no",
    "plot confusion tiny.yaml --data set --layer conv": "`--layer` has no effect: `confusion` does",
    "plot gradcam tiny.yaml one.png --data set": "`--data` has no effect: the images are named",
    "plot features tiny.yaml one.png --calibration c.json --split none": "`--split` has no effect",
    "plot cosines c.json --data set": "`--data` has no effect: `cosines` does not use it",
    "plot filters tiny.yaml --data set --images 3": "`--images` has no effect",
    "import net.pt --spec tiny.yaml --labels a,b": "`--labels` has no effect: it is only for ONNX files",
    "import net.onnx --entry ema": "`--entry` has no effect: it needs `--spec`",
    "import net.onnx --set width=8": "`--set` has no effect: it needs `--spec`",
    "show BUNDLE --strict": "`--strict` has no effect: it is for specs",
    "serve BUNDLE --at 1": "`--at` has no effect: it is for the page of a slide",
    "slide run BUNDLE s.tif --at 1 --mask m.png --rule wide": "`--rule` has no effect: the tissue comes",
    "slide run BUNDLE s.tif --at 1 --mask m.png --steps d": "`--steps` has no effect: the tissue comes",
    "slide mask s.tif --at 1 --patch 64": "`--at` has no effect: it needs `--steps`",
    "slide mask s.tif --least-tissue .2": "`--least-tissue` has no effect: it needs `--patch`",
    "dev table ddsnet-1 --format markdown --json": "`--format` has no effect",
}  # fmt: skip
SWEEP = "tcc_sweep: 1\nrecipe: {epochs: [1, 2]}\n"


@pytest.mark.parametrize("line", NO_EFFECT)
def test_option_without_effect_is_refused(line, tcc, home, images, picture, request):
    args = line.split()
    if "BUNDLE" in args:
        built = request.getfixturevalue("built")
        args = [str(built) if arg == "BUNDLE" else arg for arg in args]
    (home / "s.yaml").write_text(SWEEP)
    paths_before = sorted(home.rglob("*"))
    outcome = tcc(*args)
    text = outcome.err
    assert outcome.code == 2, text
    assert "error[E0601]: `--" in text
    assert NO_EFFECT[line] in text
    assert "--> command line: --" in text
    assert "= help: " in text
    assert sorted(home.rglob("*")) == paths_before


def test_project_file_values_are_defaults(tcc, home, images):
    project = 'spec = "tiny.yaml"\ndata = "set"\ntargets = ["onnxruntime"]\n'
    (home / "tcc.toml").write_text(project)
    assert tcc("build", "-q").code == 0
    args = ("calibrate", "--method", "minmax", "-o", "c.json", "-q")
    assert tcc(*args).code == 0
    outcome = tcc("build", "--precision", "int8", "--calibration", "c.json", "-q")
    assert outcome.code == 0, outcome.err


def test_devices_state_counting_and_runner_needs():
    devices = {device.name: device for device in list_devices()}
    assert not devices["onnxruntime"].is_counted
    assert not devices["host"].is_counted
    assert devices["tflite"].needs_board_runner
    assert not devices["host"].needs_board_runner


@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="arm-a7 may run without emulation on other machines"
)
def test_runs_option_is_refused_for_counted_bundles(tcc, built, monkeypatch):
    from tcc.compiler.targets import trusted_bundle

    bundle, _ = trusted_bundle.load(built, trust=False)
    device = next(device for device in list_devices() if device.name == "arm-a7")
    assert device.is_counted
    monkeypatch.setattr(trusted_bundle, "load", lambda *_, **__: (bundle, device))
    outcome = tcc("bench", built, "--runs", "100")
    assert outcome.code == 2
    assert "`--runs` has no effect: these bundles run in an emulator" in outcome.err


FUNCTIONS = [
    function
    for name in tcc_api.__all__
    if inspect.isfunction(function := getattr(tcc_api, name))
    and any(p.default is not p.empty for p in inspect.signature(function).parameters.values())
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_every_argument_is_in_the_table(function):
    optional = {
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty
    }
    assert optional == set(arguments.ARGUMENTS[function.__name__])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: tcc_api.check("tiny.yaml", precision="int8"), "`precision` has no effect"),
        (lambda c: tcc_api.build("tiny.yaml", "ort", data="set"), "`data` has no effect"),
        (lambda c: tcc_api.build("tiny.yaml", "ort", mixed=True), "`mixed` has no effect"),
        (
            lambda c: tcc_api.build("tiny.yaml", "ort", floors={"max_drop": 0.1}),
            "`floors` has no effect",
        ),
        (
            lambda c: tcc_api.build(
                "tiny.yaml", "ort", precision="int8", calibration=c, method="mse"
            ),
            "`method` has no effect: the file `calibration` already has the scales",
        ),
        (
            lambda c: tcc_api.build(
                "tiny.yaml", "ort", precision="int8", calibration=c, mixed=True
            ),
            "`mixed` has no effect",
        ),
        (
            lambda c: tcc_api.build("ddsnet-blood", "ort", precision="int8", method="mse"),
            "`method` has no effect: the scales come with the trained network",
        ),
        (lambda c: tcc_api.lower("tiny.yaml", "ort", calibration=c), "`calibration` has no effect"),
        (lambda c: tcc_api.torch("tiny.yaml", "w.safetensors", seed=1), "`seed` has no effect"),
        (lambda c: tcc_api.evaluate("tiny.yaml", "set", trust=True), "`trust` has no effect"),
        (
            lambda c: tcc_api.verify("build", weights="w"),
            "`weights` has no effect: it needs `spec`",
        ),
    ],
)
def test_argument_without_effect_is_refused(home, images, call, message):
    with pytest.raises(tcc_api.UserError, match=message) as caught:
        call("c.json")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E0601"
    assert str(diagnostic.at).startswith("tcc.")
    assert diagnostic.help
    assert not (home / "build").exists()
