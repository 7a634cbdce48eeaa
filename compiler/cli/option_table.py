"""What every option of every command needs to have an effect.

A new option is a new line here: a test compares this table with the commands. `_allow` names
options that have an effect whatever else holds. Some of them allow something (`--trust`,
`--normal`, `--split none`) or state something that is checked (`--entry`, `--shape`): they are no
mistake where nothing would have been refused without them.
"""

from collections.abc import Mapping

from tcc.compiler.support.option_needs import (
    ALWAYS,
    ANNOTATED_TRUTH,
    BOARD_RUNNER,
    BUNDLES,
    FIXED_EPOCHS,
    FORMATTED_FILES,
    FRESH_CALIBRATION,
    INT8_TARGET,
    JUDGED_BUILD,
    LAYERED_BUNDLE,
    ONE_NETWORK,
    ONE_SLIDE,
    PACKAGE_TARGET,
    READ_IMAGES,
    RUNNABLE_TARGET,
    SHARES_USED,
    SOME_BUNDLE,
    SPEC_OR_FITTED,
    SPECS,
    TIMED_BUNDLE,
    AnyOf,
    Choice,
    Needs,
    With,
    Without,
)

OptionNeeds = Mapping[str, Needs]


def _allow(*names: str) -> OptionNeeds:
    return dict.fromkeys(names, ALWAYS)


COMMON = _allow("--json", "--quiet", "--verbose")
"""The options of every command."""

_FILE_CALIBRATES = Without(("--calibration",), "the file of `--calibration` holds the scales")
_CALIBRATES: Needs = (_FILE_CALIBRATES, INT8_TARGET, FRESH_CALIBRATION)
_TABLE_ONLY: Needs = (
    Without(("--json",), "`--json` prints every layer"),
    Without(("--quiet",), "`--quiet` prints no layers"),
)
_PICTURE = Choice("--format", ("svg", "png", "pdf"), "only pictures have it")
_GRAPH = Choice(
    "--stage", ("float", "fused", "ready", "int8"), "the stage `spec` is the text of the file"
)
_COMPUTED = AnyOf(
    (
        With(("--verify-passes",)),
        Choice("--format", ("onnx",), ""),
        Choice("--stage", ("int8",), "a float graph is shown without the values of its weights"),
    )
)
_SWEEP = With(("--sweep",))
_NO_BOARD = (
    Without(("--ssh",), "a board chooses its own instructions"),
    Without(("--adb",), "a board chooses its own instructions"),
)
_MASK_FILE = Without(("--mask",), "the file of `--mask` says what is tissue")
_CALIBRATION_READ = Without(("--calibration",), "with `--calibration` no images are read")
_IMAGE_READ = Without(
    ("--calibration", "--image"), "with `--calibration` and `--image` no other images are read"
)
_TISSUE = ("--rule", "--least-region", "--fill-holes", "--grow")
_SPEC_WEIGHTS = _allow("--weights", "--seed", "--set")
_INTEGER_PLOT: OptionNeeds = {
    "--data": (_CALIBRATION_READ,),
    "--split": (_CALIBRATION_READ,),
    **_SPEC_WEIGHTS,
    **_allow("--calibration", "--output"),
}

OPTIONS: Mapping[str, OptionNeeds] = {
    "init": _allow("--labels", "--size"),
    "check": {
        "--depth": (Without(("--layers",), "`--layers` opens every block"), *_TABLE_ONLY),
        "--layers": _TABLE_ONLY,
        "--precision": (With(("--target",)),),
        **_allow("--set", "--target", "--strict"),
    },
    "show": {
        "--level": (_PICTURE,),
        "--direction": (_PICTURE,),
        "--legend": (_PICTURE,),
        "--weights": (SPECS, _GRAPH, _COMPUTED),
        "--seed": (SPECS, _GRAPH, _COMPUTED),
        "--set": (SPECS, _GRAPH),
        "--calibration": (SPECS, Choice("--stage", ("int8",), "only the stage `int8` has scales")),
        "--passes": (SPECS, _GRAPH),
        "--verify-passes": (
            SPECS,
            _GRAPH,
            AnyOf(
                (
                    With(("--passes",)),
                    Choice("--stage", ("fused", "ready", "int8"), "`float` has no passes"),
                )
            ),
        ),
        **_allow("--stage", "--format", "--output"),
    },
    "train": {
        "--split": (SHARES_USED,),
        "--epochs": (FIXED_EPOCHS,),
        "--seed": (Without(("--sweep",), "the sweep's file lists the seeds"),),
        "--resume": (Without(("--sweep",), "a sweep always resumes what is not finished"),),
        "--qat": (With(("--weights",)),),
        "--dask": (_SWEEP,),
        "--slurm": (_SWEEP, Without(("--dask",), "`--dask` says where trainings run")),
        "--workers": (
            _SWEEP,
            Choice("--dask", ("local",), "it counts the processes of a Dask cluster here"),
        ),
        **_allow(
            "--data", "--recipe", "--output", "--max-time", "--weights", "--threads", "--device",
            "--corrupt", "--tensorboard", "--sweep", "--set", "--strict",
        ),
    },
    "calibrate": _allow(
        "--weights", "--seed", "--data", "--split", "--target", "--method", "--guard", "--images",
        "--min-images", "--set", "--strict", "--output", "--threads", "--batch",
    ),
    "build": {
        "--calibration": (INT8_TARGET,),
        "--data": (AnyOf((With(("--agree",)), INT8_TARGET)),),
        "--split": (AnyOf((With(("--agree",)), INT8_TARGET)), READ_IMAGES),
        "--method": _CALIBRATES,
        "--guard": _CALIBRATES,
        "--min-images": _CALIBRATES,
        **dict.fromkeys(
            ("--min-cosine", "--max-drop", "--min-correlation", "--max-error"), (INT8_TARGET,)
        ),
        "--mixed": (INT8_TARGET, JUDGED_BUILD),
        "--allow-few": (INT8_TARGET,),
        "--probes": (INT8_TARGET,),
        "--replay": (RUNNABLE_TARGET,),
        "--tool": (PACKAGE_TARGET,),
        "--include-images": (INT8_TARGET, PACKAGE_TARGET),
        "--cache": (Without(("--verify-passes",), "passes that are verified have to run"),),
        **_allow(
            "--target", "--weights", "--seed", "--precision", "--set", "--strict", "--output",
            "--name", "--agree", "--report", "--passes", "--verify-passes", "--require-signature",
        ),
    },
    "run": {
        "--top": (Without(("--json",), "`--json` prints every class"),),
        **_allow("--isa", "--trust"),
    },
    "serve": _allow("--host", "--port"),
    "sign": {"--release": (With(("--key",)),), **_allow("--key", "--runner-key")},
    "trust": {},
    "trust add": _allow("--for", "--expires", "--min-release"),
    "trust list": {},
    "trust revoke": {},
    "trust require": {},
    "trust folder": {},
    "eval": {
        "--weights": (SPECS, ONE_NETWORK),
        "--seed": (SPECS,),
        "--set": (SPECS,),
        "--strict": (SPEC_OR_FITTED,),
        "--fit": (BUNDLES, Without(("--carry",), "`--carry` brings what was fitted before")),
        "--carry": (BUNDLES, ONE_NETWORK),
        "--positive": (With(("--fit",)),),
        "--sensitivity": (With(("--fit",)),),
        "--side": (Without(("--fit",), "`--fit` fits to `val` and judges by `test`"),),
        "--saturation": (ONE_NETWORK,),
        "--calibration": (With(("--saturation",)), SPECS),
        "--trust": (SOME_BUNDLE,),
        **_allow("--data", "--split", "--bootstrap", "--bootstrap-seed"),
    },
    "verify": {
        "--weights": (With(("--spec",)),),
        "--bisect": (LAYERED_BUNDLE,),
        "--output": (With(("--bisect",)),),
        **_allow("--spec", "--logs", "--key", "--isa", "--trust"),
    },
    "bench": {
        "--runs": (TIMED_BUNDLE,),
        "--ssh": (Without(("--adb",), "`--adb` names the board"),),
        "--benchmark-model": (With(("--ssh", "--adb")), BOARD_RUNNER),
        "--isa": _NO_BOARD,
        **_allow("--threads", "--adb", "--trust"),
    },
    "import": _allow(
        "--output", "--weights", "--name", "--labels", "--shape", "--until", "--color", "--resize",
        "--scale", "--mean", "--std", "--flat",
    ),
    "import-weights": _allow("--rules", "--entry", "--output", "--set"),
    "targets": {},
    "passes": {},
    "doctor": {},
    "fmt": {"--json": (FORMATTED_FILES,), **_allow("--check")},
    "help": {},
    "plot curves": _allow("--output"),
    "plot confusion": {
        **dict.fromkeys(("--weights", "--seed", "--set"), (SPECS,)),
        "--trust": (SOME_BUNDLE,),
        **_allow("--data", "--split", "--output"),
    },
    "plot tsne": {
        **dict.fromkeys(("--weights", "--seed", "--set"), (SPECS,)),
        "--trust": (SOME_BUNDLE,),
        **_allow("--data", "--layer", "--images", "--tsne-seed", "--split", "--output"),
    },
    "plot gradcam": {**_SPEC_WEIGHTS, **_allow("--layer", "--class", "--output")},
    "plot cam": {**_SPEC_WEIGHTS, **_allow("--class", "--output")},
    "plot features": {
        "--data": (_IMAGE_READ,),
        "--split": (_IMAGE_READ,),
        **_SPEC_WEIGHTS,
        **_allow("--calibration", "--image", "--layer", "--output"),
    },
    "plot filters": _INTEGER_PLOT,
    "plot weights": _INTEGER_PLOT,
    "plot scatter": {
        **_SPEC_WEIGHTS,
        **_allow("--data", "--images", "--split", "--output", "--trust"),
    },
    "plot errors": {
        **_SPEC_WEIGHTS,
        **_allow("--data", "--calibration", "--split", "--output"),
    },
    "plot cosines": _allow("--output"),
    "slide run": {
        "--mask": (ONE_SLIDE,),
        "--steps": (_MASK_FILE, ONE_SLIDE),
        "--slurm": (Without(("--dask",), "`--dask` says where slides run"),),
        **dict.fromkeys(_TISSUE, (_MASK_FILE,)),
        **_allow(
            "--at", "--patch", "--stride", "--mpp", "--mask-mpp", "--least-tissue", "--tumour",
            "--threshold", "--skip-damaged", "--workers", "--dask", "--output", "--trust",
        ),
    },
    "slide mask": {
        "--at": (With(("--steps",)), With(("--patch",))),
        "--patch": (With(("--steps",)), With(("--at",))),
        "--least-tissue": (With(("--patch",)),),
        **_allow("--output", "--mpp", "--mask-mpp", "--steps", *_TISSUE),
    },
    "slide view": _allow("--at", "--skip-damaged", "--output"),
    "slide eval": {
        "--tumour": (ANNOTATED_TRUTH,),
        "--other": (ANNOTATED_TRUTH,),
        **_allow("--truth", "--normal", "--subset", "--least", "--apart", "--join", "--shortest"),
    },
    "slide patches": _allow(
        "--at", "--patch", "--stride", "--annotations", "--tumour", "--other", "--normal", "--most",
        "--seed", "--mpp", "--mask-mpp", "--least-tissue", "--output", *_TISSUE,
    ),
    "zoo": {},
    "zoo table": {"--format": (Without(("--json",), "`--json` prints a document"),)},
    "cache": {},
    "cache clear": {},
}  # fmt: skip
"""The needs of each option by command, without those in `COMMON`."""


def find_needs(command: str) -> OptionNeeds:
    """Return what each option of a command needs, by its first long name."""
    return {**COMMON, **OPTIONS[command]}
