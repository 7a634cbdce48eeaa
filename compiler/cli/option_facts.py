"""The facts that options need, which a command knows only from its spec, bundles or images."""

from tcc.compiler.cli.option_needs import Fact

_REMOVE = "remove this option"

INT8_TARGET = Fact("no target is built in integers", "say `--precision int8`")
FRESH_CALIBRATION = Fact(
    "the scales are those that come with the trained network",
    "give images of your own with `--data`, or remove this option",
)
JUDGED_BUILD = Fact(
    "no images judge this int8 model: its calibration is read from a file",
    "give images with `--data`, or remove this option",
)
READ_IMAGES = Fact("no images are read", "give images with `--data`, or remove this option")
UNNAMED_IMAGES = Fact("the images are named one by one", "remove them, or this option")
PACKAGE_TARGET = Fact("no target is a package for a vendor toolchain", _REMOVE)
RUNNABLE_TARGET = Fact("nothing here runs what is built for these targets", _REMOVE)

SPECS = Fact("it is for specs, and a bundle is named", _REMOVE)
BUNDLES = Fact("it is for bundles, and a spec is named", "name a bundle, or remove this option")
SOME_BUNDLE = Fact("it is for bundles, and no bundle is named", _REMOVE)
SPEC_OR_FITTED = Fact(
    "it is for specs and for what is fitted, and these bundles have nothing fitted", _REMOVE
)
ONE_NETWORK = Fact("it is for one network, and these are several", "name one network")

LAYERED_BUNDLE = Fact(
    "these bundles are packages for a vendor toolchain, which have no layers to compare", _REMOVE
)
TIMED_BUNDLE = Fact(
    "these bundles run in an emulator, which counts one run instead of timing many", _REMOVE
)
BOARD_RUNNER = Fact("these bundles are programs that run on a board by themselves", _REMOVE)

SHARES_USED = Fact("these images come with `train` and `val`", "remove one of the two")
SLIDE_PAGE = Fact("it is for the page of a slide, and no slide is named", _REMOVE)
FIXED_EPOCHS = Fact("the sweep varies `epochs`", "remove `epochs` from the sweep, or this option")
ONE_SLIDE = Fact("it is for one slide that this machine runs", "run the slides one at a time")
FORMATTED_FILES = Fact("`-` writes the formatted text to standard output", _REMOVE)
ANNOTATED_TRUTH = Fact("all masks are black and white, and name no classes", _REMOVE)
