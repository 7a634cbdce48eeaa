"""What the stages of a build gave before, out of the cache, for the very same inputs alone.

Each key is of all that shapes a stage's result, so that nothing is ever brought up to date: what
changes has another key. Programs stay under the rules of trust, and images of the user's are kept
nowhere: what holds some, as packages for makers' tools do, is built each time.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tcc.compiler.bundle import artifact_runs, manifest
from tcc.compiler.bundle.agreement import Agreement
from tcc.compiler.bundle.bundle_folder import Bundle, BundleContents, listed
from tcc.compiler.bundle.manifest import Calibrated, Manifest
from tcc.compiler.bundle.program_check import LayerAgreement
from tcc.compiler.bundle.replay import Replayed
from tcc.compiler.data import image_files
from tcc.compiler.data.dataset import DataSet, pictures
from tcc.compiler.data.training_record import TrainingRecord
from tcc.compiler.driver import pipeline
from tcc.compiler.driver.build_plan import CALIBRATION, Int8Program
from tcc.compiler.driver.pipeline import WeightSource
from tcc.compiler.driver.target_agreement import ComparedTarget
from tcc.compiler.frontend.spec import Spec
from tcc.compiler.ir.device import Device, Plan
from tcc.compiler.ir.graph import Model
from tcc.compiler.support import json_records, stage_cache, user_folders
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.stage_cache import Parts, StageCache

if TYPE_CHECKING:
    from tcc.compiler.quant.calibration_document import CalibrationDocument

Said = tuple[str, str]
"""A remark of a stage: its kind, as `Report.remark` takes it, and its text."""
T = TypeVar("T")
MALFORMED = (
    ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, UserError,
)  # fmt: skip
"""What reading an entry raises that somebody forged: its hash holds, and its content does not."""


@dataclass(frozen=True, eq=False)
class StoredStages:
    """The stages of one build: the cache, and what all of them are given."""

    cache: StageCache
    shared: Mapping[str, Any]
    training: TrainingRecord | None = None
    """What the bundles' cards say of the training."""

    def key(self, stage: str, **given: Any) -> str:
        """Return the key of a stage's result."""
        return stage_cache.key(stage, {**self.shared, **given})

    def bundle_key(self, plan: Plan, integers: str | None, *, images: bool) -> str:
        """Return the key of what is built for a target from the integers of a key."""
        training = self.training and asdict(self.training)
        inputs = {"integers": integers, "images": images, "training": training}
        return self.key("bundle", **inputs, **_target(plan))

    def calibration(self, key: str) -> "tuple[CalibrationDocument, tuple[Said, ...]] | None":
        """Return the calibration of a key, and what was said of it."""
        return _decoded(self.cache.get("calibration", key), _calibration)

    def keep_calibration(self, key: str, made: "CalibrationDocument", said: Sequence[Said]) -> None:
        """Keep a calibration, and what was said of it."""
        from tcc.compiler.quant import calibration_document

        parts = {CALIBRATION: calibration_document.encode(made), "about": _json({"said": said})}
        self.cache.put("calibration", key, parts)

    def integers(
        self, key: str, images: DataSet | None, remake: Callable[[Calibrated, bytes], Model]
    ) -> tuple[Int8Program, tuple[Said, ...]] | None:
        """Return the integer program of a key, and what was said of it.

        Args:
            key: All that it is made from.
            images: Those to calibrate with or to judge by, if there are any.
            remake: Makes it again of its calibration, once something is to be built from it.
        """
        return _decoded(self.cache.get("integers", key), lambda p: _program(p, images, remake))

    def keep_integers(self, key: str, made: Int8Program, said: Sequence[Said]) -> None:
        """Keep an integer program, and what was said of it."""
        # A calibration is as large as its weights: a warm build reads this of it, and not the rest.
        repeats = json.loads(made.files[CALIBRATION])["data"].get("repeats", ())
        calibrated = json_records.encode(made.calibrated)
        about = {"calibrated": calibrated, "repeats": repeats, "said": said}
        files = {f"files/{path}": data for path, data in made.files.items()}
        self.cache.put("integers", key, {"about": _json(about), **files})

    def bundle(self, key: str, plan: Plan) -> BundleContents | None:
        """Return what was built for a target; a program of it only if it may run here."""
        found = _decoded(self.cache.get("bundle", key), lambda parts: _contents(parts, plan))
        digests = {f.path: f.sha256 for f in found.manifest.files} if found else {}
        # Who can write to the cache could have a program of his noted as built here.
        known = found and all(user_folders.KNOWN_PROGRAMS.has(digests[path]) for path in found.code)
        return found if known else None

    def keep_bundle(self, key: str, made: BundleContents) -> None:
        """Keep what was built for a target, unless images of the user's are in or beside it."""
        if made.beside or made.manifest.compiled:
            return
        about = {"layers": dict(made.layers), "why": made.uncompiled}
        parts = {"manifest": _json(json_records.encode(made.manifest)), "about": _json(about)}
        parts |= {f"files/{path}": data for path, data in made.files.items()}
        self.cache.put("bundle", key, parts)

    def size(self, device: Device, make: Callable[[], int | None]) -> int | None:
        """Return what a target's files take in floats, as `make` measures it."""
        key = self.key("size", target=device.name, tools=dict(device.versions()))
        found = _decoded(self.cache.get("size", key), lambda parts: (int(parts["bytes"]),))
        if found:
            return found[0]
        size = make()
        if size is not None:
            self.cache.put("size", key, {"bytes": str(size).encode()})
        return size

    def replay_key(self, built: str, fresh: Bundle, plan: Plan, most: int | None) -> str:
        """Return the key of what an artifact gave: its bytes, what runs it, and the program."""
        runs = {tool.name: tool.version for tool in plan.device.tools}
        given = {"built": built, "seal": fresh.manifest.seal, "runs": runs, "most": most}
        return self.key("replay", **given)

    def replay(self, key: str, fresh: Bundle, plan: Plan) -> ComparedTarget | None:
        """Return how the very same artifact agreed on this machine."""
        parts = self.cache.get("replay", key)
        return _decoded(parts, lambda parts: _compared(parts, fresh, plan.device))

    def keep_replay(self, key: str, found: ComparedTarget) -> None:
        """Keep how an artifact agreed with its goldens, which are of no image of the user's."""
        if not found.holds or found.images or found.replayed is None:
            return
        outputs = found.replayed.outputs
        about = {
            "agreement": [asdict(each) for each in found.outputs],
            "layers": found.layers and [asdict(each) for each in found.layers],
            "outputs": {case: {n: v.shape for n, v in o.items()} for case, o in outputs.items()},
        }
        values = {
            f"{case}/{name}": value.astype("<f4").tobytes()
            for case, own in outputs.items()
            for name, value in own.items()
        }
        self.cache.put("replay", key, {"about": _json(about), **values})


def of_build(
    cache: StageCache, spec: Spec, given: WeightSource, passes: str | None
) -> StoredStages:
    """Return the stages of a build of a spec with weights, by passes that the user may have named.

    Args:
        cache: Where results are.
        spec: The network as written.
        given: Its weights, and where they come from.
        passes: Those that were typed.
    """
    shared = {
        "surroundings": stage_cache.digest_surroundings() if cache.folder else "",
        "network": json_records.encode(pipeline.network(spec)),
        "weights": json_records.encode(given.origin),
        "passes": passes,
    }
    return StoredStages(cache, shared, given.training)


def unchanged(data: DataSet) -> bool:
    """Whether the files of images still hold what was read, however long ago that was."""
    if data.array is not None:
        return True
    try:
        found = (image_files.contents(item.path) for item in data.items)
        known = zip(found, data.items, strict=True)
        return all(hashlib.sha256(content).hexdigest() == item.digest for content, item in known)
    except UserError:
        return False


def _target(plan: Plan) -> dict[str, Any]:
    signer = plan.device.signer
    return {
        **({"signer": signer.hex()} if signer else {}),
        "target": plan.device.name,
        "precision": plan.precision.name,
        "compiles": plan.compiles,
        "tools": dict(plan.device.versions()),
    }


def _json(data: Any) -> bytes:
    return json.dumps(data).encode()


def _decoded(parts: Parts | None, decode: Callable[[Parts], T]) -> T | None:
    try:
        return None if parts is None else decode(parts)
    except MALFORMED:
        return None


def _calibration(parts: Parts) -> "tuple[CalibrationDocument, tuple[Said, ...]]":
    from tcc.compiler.quant import calibration_document

    said = json.loads(parts["about"])["said"]
    return calibration_document.decode(parts[CALIBRATION], CALIBRATION), _said(said)


def _said(plain: Iterable[Any]) -> tuple[Said, ...]:
    return tuple((str(kind), str(text)) for kind, text in plain)


def _program(
    parts: Parts, images: DataSet | None, remake: Callable[[Calibrated, bytes], Model]
) -> tuple[Int8Program, tuple[Said, ...]]:
    plain = json.loads(parts["about"])
    about = json_records.decode(Calibrated, plain["calibrated"])
    files = _files(parts)
    calibration = files[CALIBRATION]
    learn = images
    if images and (own := images.first(about.images)).digest == about.data:
        learn, _ = pictures(own, plain["repeats"]).split()
    made = Int8Program(lambda: remake(about, calibration), about, files, learn)
    return made, _said(plain["said"])


def _files(parts: Parts) -> dict[str, bytes]:
    return {n.removeprefix("files/"): v for n, v in parts.items() if n.startswith("files/")}


def _contents(parts: Parts, plan: Plan) -> BundleContents:
    about = json.loads(parts["about"])
    made: Manifest = json_records.decode(Manifest, json.loads(parts["manifest"]))
    files = _files(parts)
    executable = frozenset(file.path for file in made.files if file.executable)
    whole = manifest.sealed(made) == made and listed(files, executable) == made.files
    if not whole or (made.target, made.precision) != (plan.device.name, plan.precision.name):
        raise ValueError(made.seal)
    # Asked of the target again: an entry could leave the program out that it holds.
    code = tuple(file.path for file in artifact_runs.list_code(plan.device, made.files))
    return BundleContents(made, files, dict(about["layers"]), str(about["why"]), code)


def _compared(parts: Parts, fresh: Bundle, device: Device) -> ComparedTarget:
    about = json.loads(parts["about"])
    agreement = tuple(json_records.decode(Agreement, each) for each in about["agreement"])
    layers = about["layers"]
    outputs = {
        case: {n: _values(parts[f"{case}/{n}"], shape) for n, shape in own.items()}
        for case, own in about["outputs"].items()
    }
    found = ComparedTarget(
        device,
        fresh,
        replayed=Replayed(fresh, agreement, outputs),
        layers=layers and tuple(json_records.decode(LayerAgreement, each) for each in layers),
        stored=True,
    )
    if not found.holds:
        raise ValueError(found.outputs)
    return found


def _values(data: bytes, shape: Sequence[int]) -> "np.ndarray":
    return np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)
