"""What each option of each command needs to have an effect, and which options `--help` shows.

Add a line here for each new option: a test compares this table with the commands. `_allow` names
options that always have an effect. Some of them allow something (`--trust`, `--normal`, `--split
none`) or state something that is checked (`--entry`, `--shape`): they are accepted even if nothing
would have been refused without them.
"""

from collections.abc import Mapping

from tcc.compiler.support.option_requirements import (
    ALWAYS,
    ANNOTATED_TRUTH,
    BOARD_RUNNER,
    BUNDLES,
    CALIBRATION_IMAGES,
    EXACT_TARGET,
    FIXED_EPOCHS,
    FORMATTED_FILES,
    FRESH_CALIBRATION,
    INT8_TARGET,
    JUDGED_BUILD,
    LAYERED_BUNDLE,
    ONE_NETWORK,
    ONE_SLIDE,
    PACKAGE_TARGET,
    PROMISED,
    READ_IMAGES,
    RUNNABLE_TARGET,
    SHARES_USED,
    SLIDE_PAGE,
    SOME_BUNDLE,
    SPEC_OR_FITTED,
    SPECS,
    TIMED_BUNDLE,
    UNNAMED_IMAGES,
    AnyOf,
    Choice,
    ForbidsAll,
    ForKind,
    Needs,
    OfKind,
    RequiresAny,
)

OptionNeeds = Mapping[str, Needs]


def _allow(*names: str) -> OptionNeeds:
    return dict.fromkeys(names, ALWAYS)


COMMON = _allow("--json", "--quiet", "--verbose", "--help-all")
"""The options of every command."""

_FILE_CALIBRATES = ForbidsAll(
    ("--calibration",), "the file of `--calibration` already has the scales"
)
_CALIBRATES: Needs = (_FILE_CALIBRATES, INT8_TARGET, FRESH_CALIBRATION)
_TABLE_ONLY: Needs = (
    ForbidsAll(("--json",), "`--json` prints every layer"),
    ForbidsAll(("--quiet",), "`--quiet` prints no layers"),
)
_PICTURE = Choice("--format", ("svg", "png", "pdf"), "it is only for figures (svg, png, pdf)")
_GRAPH = Choice(
    "--stage", ("float", "fused", "ready", "int8"), "the stage `spec` is text, not a graph"
)
_COMPUTED = AnyOf(
    (
        RequiresAny(("--verify-passes",)),
        Choice("--format", ("onnx",), ""),
        Choice("--stage", ("int8",), "a float graph is shown without the values of its weights"),
    )
)
_SWEEP = RequiresAny(("--sweep",))
_NO_BOARD = (
    ForbidsAll(("--ssh",), "a board uses its own instruction set"),
    ForbidsAll(("--adb",), "a board uses its own instruction set"),
)
_MASK_FILE = ForbidsAll(("--mask",), "the tissue comes from the file of `--mask`")
_CALIBRATION_READ = ForbidsAll(("--calibration",), "with `--calibration` no images are read")
_TISSUE = ("--rule", "--least-region", "--fill-holes", "--grow")
_WEIGHT_PLOTS, _MAPS, _PRECISION = (
    ("filters", "weights"), ("gradcam", "cam"), ("features", "filters", "weights", "errors")
)  # fmt: skip
_LABELLED = ("confusion", "reliability", "decision-curve", "tsne", "scatter")
_NETWORK_PLOTS = OfKind((*_LABELLED, *_MAPS, *_PRECISION))
_PLOT_IMAGES: Needs = (_NETWORK_PLOTS, ForKind(_WEIGHT_PLOTS, (_CALIBRATION_READ,)), UNNAMED_IMAGES)
_PLOT_WEIGHTS: Needs = (_NETWORK_PLOTS, SPECS)
_SERVED = ForbidsAll(("--output",), "with `--output` the page is written and not served")
_CHECKPOINT = RequiresAny(("--spec",))
_ONNX = ForbidsAll(("--spec",), "it is only for ONNX files, and `--spec` imports a checkpoint")

OPTIONS: Mapping[str, OptionNeeds] = {
    "init": _allow("--labels", "--size"),
    "check": {
        "--depth": (ForbidsAll(("--layers",), "`--layers` opens every block"), *_TABLE_ONLY),
        "--layers": _TABLE_ONLY,
        "--precision": (RequiresAny(("--target",)),),
        **_allow("--set", "--target", "--strict"),
    },
    "show": {
        "--level": (_PICTURE,),
        "--direction": (_PICTURE,),
        "--legend": (_PICTURE,),
        "--weights": (SPECS, _GRAPH, _COMPUTED),
        "--seed": (SPECS, _GRAPH, _COMPUTED),
        "--set": (SPECS, _GRAPH),
        "--strict": (SPECS,),
        "--calibration": (SPECS, Choice("--stage", ("int8",), "only the stage `int8` has scales")),
        "--passes": (SPECS, _GRAPH),
        "--verify-passes": (
            SPECS,
            _GRAPH,
            AnyOf(
                (
                    RequiresAny(("--passes",)),
                    Choice("--stage", ("fused", "ready", "int8"), "`float` has no passes"),
                )
            ),
        ),
        **_allow("--stage", "--format", "--output"),
    },
    "train": {
        "--split": (SHARES_USED,),
        "--epochs": (FIXED_EPOCHS,),
        "--seed": (ForbidsAll(("--sweep",), "the sweep file lists the seeds"),),
        "--resume": (ForbidsAll(("--sweep",), "a sweep always resumes unfinished trainings"),),
        "--qat": (RequiresAny(("--weights",)),),
        "--dask": (_SWEEP,),
        "--slurm": (_SWEEP, ForbidsAll(("--dask",), "`--dask` runs the trainings")),
        "--workers": (
            _SWEEP,
            Choice("--dask", ("local",), "it is the number of processes of `--dask local`"),
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
        "--data": (AnyOf((RequiresAny(("--agree",)), INT8_TARGET)),),
        "--split": (AnyOf((RequiresAny(("--agree",)), INT8_TARGET)), READ_IMAGES),
        "--method": _CALIBRATES,
        "--guard": _CALIBRATES,
        "--min-images": _CALIBRATES,
        "--floor": (INT8_TARGET,),
        "--mixed": (INT8_TARGET, JUDGED_BUILD),
        "--allow-few": (INT8_TARGET,),
        "--probes": (INT8_TARGET,),
        "--guard-data": (EXACT_TARGET, CALIBRATION_IMAGES),
        "--replay": (RUNNABLE_TARGET,),
        "--tool": (PACKAGE_TARGET,),
        "--include-images": (INT8_TARGET, PACKAGE_TARGET),
        "--cache": (ForbidsAll(("--verify-passes",), "`--verify-passes` uses no cache"),),
        **_allow(
            "--target", "--weights", "--seed", "--precision", "--set", "--strict", "--output",
            "--name", "--agree", "--report", "--passes", "--verify-passes", "--require-signature",
        ),
    },
    "run": {
        "--top": (ForbidsAll(("--json",), "`--json` prints every class"),),
        **_allow("--isa", "--trust"),
    },
    "field": _allow("--isa", "--trust"),
    "serve": {
        "--host": (_SERVED,),
        "--port": (_SERVED,),
        "--at": (SLIDE_PAGE,),
        "--skip-damaged": (SLIDE_PAGE,),
        "--output": (SLIDE_PAGE,),
    },
    "sign": {"--release": (RequiresAny(("--key",)),), **_allow("--key", "--runner-key")},
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
        "--fit": (BUNDLES, ForbidsAll(("--carry",), "`--carry` copies earlier fits")),
        "--carry": (BUNDLES, ONE_NETWORK),
        "--positive": (RequiresAny(("--fit",)),),
        "--sensitivity": (RequiresAny(("--fit",)),),
        "--specificity": (
            RequiresAny(("--fit",)),
            AnyOf((ForbidsAll(("--sensitivity",), ""), PROMISED)),
        ),
        "--ppv": (RequiresAny(("--fit",)), RequiresAny(("--prevalence",)), PROMISED),
        "--prevalence": (RequiresAny(("--sensitivity", "--specificity", "--ppv")), PROMISED),
        "--confidence": (
            RequiresAny(("--sensitivity", "--specificity", "--ppv", "--sets", "--abstain")),
        ),
        "--sets": (RequiresAny(("--fit",)), PROMISED),
        "--by-class": (RequiresAny(("--sets",)),),
        "--abstain": (
            RequiresAny(("--fit",)),
            PROMISED,
            ForbidsAll(("--positive",), "its answer is the class with the largest output"),
        ),
        "--side": (ForbidsAll(("--fit",), "`--fit` uses `val` to fit and `test` to evaluate"),),
        "--saturation": (ONE_NETWORK,),
        "--calibration": (RequiresAny(("--saturation",)), SPECS),
        "--trust": (SOME_BUNDLE,),
        **_allow("--data", "--split", "--class", "--bootstrap", "--bootstrap-seed"),
    },
    "verify": {
        "--weights": (RequiresAny(("--spec",)),),
        "--bisect": (LAYERED_BUNDLE,),
        "--output": (RequiresAny(("--bisect",)),),
        **_allow("--spec", "--logs", "--key", "--isa", "--trust"),
    },
    "bench": {
        "--runs": (TIMED_BUNDLE,),
        "--ssh": (ForbidsAll(("--adb",), "the board is chosen by `--adb`"),),
        "--benchmark-model": (RequiresAny(("--ssh", "--adb")), BOARD_RUNNER),
        "--isa": _NO_BOARD,
        **_allow("--threads", "--adb", "--trust"),
    },
    "import": {
        **dict.fromkeys(
            (
                "--weights", "--name", "--labels", "--shape", "--until", "--color", "--resize",
                "--scale", "--mean", "--std", "--flat",
            ),
            (_ONNX,),
        ),
        **dict.fromkeys(("--rules", "--entry", "--set"), (_CHECKPOINT,)),
        **_allow("--output", "--spec"),
    },
    "import-weights": _allow("--rules", "--entry", "--output", "--set"),
    "targets": {},
    "doctor": {},
    "fmt": {"--json": (FORMATTED_FILES,), **_allow("--check")},
    "help": {},
    "plot": {
        "--data": _PLOT_IMAGES,
        "--split": _PLOT_IMAGES,
        "--images": (OfKind((*_LABELLED, *_MAPS)),),
        "--layer": (OfKind(("tsne", "gradcam", "features")),),
        "--class": (OfKind((*_MAPS, "decision-curve")),),
        "--calibration": (OfKind(_PRECISION),),
        "--weights": _PLOT_WEIGHTS,
        "--seed": _PLOT_WEIGHTS,
        "--set": _PLOT_WEIGHTS,
        "--image": (OfKind(("features",)),),
        "--tsne-seed": (OfKind(("tsne",)),),
        "--trust": (OfKind(_LABELLED), SOME_BUNDLE),
        **_allow("--output"),
    },
    "slide run": {
        "--mask": (ONE_SLIDE,),
        "--steps": (_MASK_FILE, ONE_SLIDE),
        "--slurm": (ForbidsAll(("--dask",), "`--dask` runs the slides"),),
        **dict.fromkeys(_TISSUE, (_MASK_FILE,)),
        **_allow(
            "--at", "--patch", "--stride", "--mpp", "--mask-mpp", "--least-tissue", "--tumour",
            "--threshold", "--skip-damaged", "--workers", "--dask", "--output", "--trust",
        ),
    },
    "slide mask": {
        "--at": (RequiresAny(("--steps",)), RequiresAny(("--patch",))),
        "--patch": (RequiresAny(("--steps",)), RequiresAny(("--at",))),
        "--least-tissue": (RequiresAny(("--patch",)),),
        **_allow("--output", "--mpp", "--mask-mpp", "--steps", *_TISSUE),
    },
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
    "dev passes": {},
    "dev doctor": {},
    "dev table": {"--format": (ForbidsAll(("--json",), "`--json` prints a document"),)},
    "dev cache": {},
    "dev cache clear": {},
}  # fmt: skip
"""The needs of each option, by command. `COMMON` has the options of all commands."""

MAIN: Mapping[str, tuple[str, ...]] = {
    "show": (
        "--stage", "--format", "--level", "--direction", "--output", "--weights", "--set",
        "--calibration", "--passes",
    ),
    "train": (
        "--data", "--split", "--recipe", "--output", "--epochs", "--seed", "--weights", "--resume",
        "--device", "--set",
    ),
    "calibrate": (
        "--weights", "--data", "--split", "--target", "--method", "--images", "--min-images",
        "--set", "--output", "--threads",
    ),
    "build": (
        "--target", "--precision", "--weights", "--data", "--calibration", "--method", "--set",
        "--output", "--agree", "--report",
    ),
    "eval": (
        "--data", "--weights", "--set", "--split", "--side", "--fit", "--positive", "--sensitivity",
        "--saturation", "--trust",
    ),
    "import": (
        "--spec", "--output", "--weights", "--name", "--labels", "--shape", "--color", "--resize",
        "--mean", "--std",
    ),
    "plot": (
        "--data", "--split", "--images", "--layer", "--class", "--calibration", "--weights",
        "--set", "--output", "--trust",
    ),
    "slide run": (
        "--at", "--patch", "--stride", "--mpp", "--mask", "--tumour", "--threshold", "--workers",
        "--output", "--trust",
    ),
    "slide mask": (
        "--output", "--mpp", "--mask-mpp", "--rule", "--least-region", "--fill-holes", "--grow",
        "--steps", "--at", "--patch",
    ),
    "slide patches": (
        "--at", "--patch", "--stride", "--annotations", "--tumour", "--other", "--normal", "--most",
        "--mpp", "--output",
    ),
}  # fmt: skip
"""For commands with more than ten options, those that `--help` shows; `--help-all` shows all."""


def find_needs(command: str) -> OptionNeeds:
    """Return what each option of a command needs, by its first long name."""
    return {**COMMON, **OPTIONS[command]}
