"""List the fronts in their order of execution. To add one, write its file and list it here."""

from annotations import ANNOTATIONS
from bundles import BUNDLES
from caches import CACHES
from case import Front
from checkpoints import CHECKPOINTS
from foreign import ONNX
from http_requests import HTTP
from images import IMAGES
from kills import KILLS
from programs import PROGRAMS
from projects import PROJECTS
from signatures import SIGNATURES
from specs import SPECS

FRONTS: tuple[Front, ...] = (
    SPECS, PROGRAMS, ONNX, IMAGES, ANNOTATIONS, CHECKPOINTS, BUNDLES, HTTP, SIGNATURES, PROJECTS,
    CACHES, KILLS,
)  # fmt: skip
