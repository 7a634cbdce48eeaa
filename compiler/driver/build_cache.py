"""Cached results of the stages of a build, for identical inputs only.

A key covers everything that determines a stage's result: changed inputs have another key, and
entries are never updated. Cached programs need the same trust as others. The user's images are not
cached: bundles that contain some, such as vendor packages, are always built.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tcc.compiler.bundle import artifact_runs, manifest
from tcc.compiler.bundle.agreement import Agreement
from tcc.compiler.bundle.bundle_folder import Bundle, BundleContents, list_files
from tcc.compiler.bundle.manifest import Calibrated, Manifest
from tcc.compiler.bundle.program_check import LayerAgreement
from tcc.compiler.bundle.replay import GoldenReplay
from tcc.compiler.data import image_files
from tcc.compiler.data.dataset import DataSet, remove_repeats
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

StageRemark = tuple[str, str]
"""A remark of a stage: its kind, as for `Report.report_remark`, and its text."""
T = TypeVar("T")
MALFORMED = (
    ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, UserError,
)  # fmt: skip
"""Exceptions from reading a forged entry: its hash matches but its content is invalid."""


@dataclass(frozen=True, eq=False)
class StoredStages:
    """The stages of one build: the cache, and the inputs that all of them share."""

    cache: StageCache
    shared: Mapping[str, Any]
    training: TrainingRecord | None = None
    """Training record for the bundles' model cards."""

    def compute_key(self, stage: str, **inputs: Any) -> str:
        """Return the key of a stage's result."""
        return stage_cache.compute_key(stage, {**self.shared, **inputs})

    def compute_bundle_key(self, plan: Plan, integers: str | None, *, images: bool) -> str:
        """Return the key of a target's bundle; `integers` is the key of its integer program."""
        training = self.training and asdict(self.training)
        inputs = {"integers": integers, "images": images, "training": training}
        return self.compute_key("bundle", **inputs, **_describe_target(plan))

    def load_calibration(
        self, key: str
    ) -> "tuple[CalibrationDocument, tuple[StageRemark, ...]] | None":
        """Return the calibration with a key, and its remarks."""
        return _decode_parts(self.cache.get("calibration", key), _decode_calibration)

    def keep_calibration(
        self, key: str, document: "CalibrationDocument", remarks: Sequence[StageRemark]
    ) -> None:
        """Store a calibration and its remarks."""
        from tcc.compiler.quant import calibration_document

        parts = {
            CALIBRATION: calibration_document.encode(document),
            "about": _encode_json({"said": remarks}),
        }
        self.cache.store("calibration", key, parts)

    def load_program(
        self, key: str, images: DataSet | None, remake: Callable[[Calibrated, bytes], Model]
    ) -> tuple[Int8Program, tuple[StageRemark, ...]] | None:
        """Return the integer program with a key, and its remarks.

        Args:
            key: Key of all its inputs.
            images: Images for calibration or evaluation, if there are any.
            remake: Rebuilds the program from its calibration when it is needed.
        """
        return _decode_parts(
            self.cache.get("integers", key), lambda p: _decode_program(p, images, remake)
        )

    def keep_program(self, key: str, program: Int8Program, remarks: Sequence[StageRemark]) -> None:
        """Store an integer program and its remarks."""
        # A calibration is as large as the weights. A cached build reads only these fields of it.
        repeats = json.loads(program.files[CALIBRATION])["data"].get("repeats", ())
        calibrated = json_records.encode(program.calibrated)
        summary = {"calibrated": calibrated, "repeats": repeats, "said": remarks}
        files = {f"files/{path}": content for path, content in program.files.items()}
        self.cache.store("integers", key, {"about": _encode_json(summary), **files})

    def load_bundle(self, key: str, plan: Plan) -> BundleContents | None:
        """Return the bundle of a target; None if it has a program that may not run here."""
        contents = _decode_parts(
            self.cache.get("bundle", key), lambda parts: _decode_contents(parts, plan)
        )
        digests = {f.path: f.sha256 for f in contents.manifest.files} if contents else {}
        # Whoever can write to the cache could otherwise get a program marked as built here.
        is_trusted = contents and all(
            user_folders.KNOWN_PROGRAMS.contains(digests[path]) for path in contents.code
        )
        return contents if is_trusted else None

    def keep_bundle(self, key: str, contents: BundleContents) -> None:
        """Store a target's bundle, unless the user's images are in it or next to it."""
        if contents.sidecar_files or contents.manifest.compiled:
            return
        summary = {"layers": dict(contents.layers), "why": contents.uncompiled}
        parts = {
            "manifest": _encode_json(json_records.encode(contents.manifest)),
            "about": _encode_json(summary),
        }
        parts |= {f"files/{path}": content for path, content in contents.files.items()}
        self.cache.store("bundle", key, parts)

    def get_size(self, device: Device, make: Callable[[], int | None]) -> int | None:
        """Return the size of a target's files at full precision, measured by `make`."""
        key = self.compute_key("size", target=device.name, tools=dict(device.collect_versions()))
        cached = _decode_parts(self.cache.get("size", key), lambda parts: (int(parts["bytes"]),))
        if cached:
            return cached[0]
        size = make()
        if size is not None:
            self.cache.store("size", key, {"bytes": str(size).encode()})
        return size

    def compute_replay_key(
        self, built: str, fresh: Bundle, plan: Plan, max_goldens: int | None
    ) -> str:
        """Return the key of an artifact's replay: its bytes, the tools that run it, the program."""
        runs = {tool.name: tool.version for tool in plan.device.tools}
        key_parts = {"built": built, "seal": fresh.manifest.seal, "runs": runs, "most": max_goldens}
        return self.compute_key("replay", **key_parts)

    def load_replay(self, key: str, fresh: Bundle, plan: Plan) -> ComparedTarget | None:
        """Return how the same artifact agreed on this machine before."""
        parts = self.cache.get("replay", key)
        return _decode_parts(parts, lambda parts: _decode_comparison(parts, fresh, plan.device))

    def keep_replay(self, key: str, comparison: ComparedTarget) -> None:
        """Store how an artifact agreed with its goldens; not for the user's images."""
        if not comparison.holds or comparison.images or comparison.replayed is None:
            return
        outputs = comparison.replayed.outputs
        summary = {
            "agreement": [asdict(agreement) for agreement in comparison.outputs],
            "layers": comparison.layers and [asdict(agreement) for agreement in comparison.layers],
            "outputs": {case: {n: v.shape for n, v in o.items()} for case, o in outputs.items()},
        }
        arrays = {
            f"{case}/{name}": array.astype("<f4").tobytes()
            for case, case_outputs in outputs.items()
            for name, array in case_outputs.items()
        }
        self.cache.store("replay", key, {"about": _encode_json(summary), **arrays})


def create_stages(
    cache: StageCache, spec: Spec, weight_source: WeightSource, passes: str | None
) -> StoredStages:
    """Return the stages of a build.

    Args:
        cache: Cache of the results.
        spec: The network as written.
        weight_source: Its weights, and their origin.
        passes: The passes from the command line, if any.
    """
    shared = {
        "surroundings": stage_cache.digest_environment() if cache.folder else "",
        "network": json_records.encode(pipeline.describe_network(spec)),
        "weights": json_records.encode(weight_source.origin),
        "passes": passes,
    }
    return StoredStages(cache, shared, weight_source.training)


def is_unchanged(dataset: DataSet) -> bool:
    """Whether the image files still have the content that was read."""
    if dataset.array is not None:
        return True
    try:
        contents = (image_files.read_bytes(item.path) for item in dataset.items)
        pairs = zip(contents, dataset.items, strict=True)
        return all(hashlib.sha256(content).hexdigest() == item.digest for content, item in pairs)
    except UserError:
        return False


def _describe_target(plan: Plan) -> dict[str, Any]:
    signer = plan.device.signer
    return {
        **({"signer": signer.hex()} if signer else {}),
        "target": plan.device.name,
        "precision": plan.precision.name,
        "compiles": plan.compiles,
        "tools": dict(plan.device.collect_versions()),
    }


def _encode_json(payload: Any) -> bytes:
    return json.dumps(payload).encode()


def _decode_parts(parts: Parts | None, decode: Callable[[Parts], T]) -> T | None:
    try:
        return None if parts is None else decode(parts)
    except MALFORMED:
        return None


def _decode_calibration(parts: Parts) -> "tuple[CalibrationDocument, tuple[StageRemark, ...]]":
    from tcc.compiler.quant import calibration_document

    remarks = json.loads(parts["about"])["said"]
    return calibration_document.decode(parts[CALIBRATION], CALIBRATION), _decode_remarks(remarks)


def _decode_remarks(pairs: Iterable[Any]) -> tuple[StageRemark, ...]:
    return tuple((str(kind), str(text)) for kind, text in pairs)


def _decode_program(
    parts: Parts, images: DataSet | None, remake: Callable[[Calibrated, bytes], Model]
) -> tuple[Int8Program, tuple[StageRemark, ...]]:
    summary = json.loads(parts["about"])
    calibrated = json_records.decode(Calibrated, summary["calibrated"])
    files = _extract_files(parts)
    calibration = files[CALIBRATION]
    fit_images = images
    if images and (used_images := images.select_first(calibrated.images)).digest == calibrated.data:
        fit_images, _ = remove_repeats(used_images, summary["repeats"]).split()
    program = Int8Program(lambda: remake(calibrated, calibration), calibrated, files, fit_images)
    return program, _decode_remarks(summary["said"])


def _extract_files(parts: Parts) -> dict[str, bytes]:
    return {n.removeprefix("files/"): v for n, v in parts.items() if n.startswith("files/")}


def _decode_contents(parts: Parts, plan: Plan) -> BundleContents:
    summary = json.loads(parts["about"])
    bundle_manifest: Manifest = json_records.decode(Manifest, json.loads(parts["manifest"]))
    files = _extract_files(parts)
    executable = frozenset(file.path for file in bundle_manifest.files if file.executable)
    is_intact = (
        manifest.seal_manifest(bundle_manifest) == bundle_manifest
        and list_files(files, executable) == bundle_manifest.files
    )
    if not is_intact or (bundle_manifest.target, bundle_manifest.precision) != (
        plan.device.name,
        plan.precision.name,
    ):
        raise ValueError(bundle_manifest.seal)
    # From the target, because a forged entry could omit its program.
    code = tuple(file.path for file in artifact_runs.list_code(plan.device, bundle_manifest.files))
    return BundleContents(
        bundle_manifest, files, dict(summary["layers"]), str(summary["why"]), code
    )


def _decode_comparison(parts: Parts, fresh: Bundle, device: Device) -> ComparedTarget:
    summary = json.loads(parts["about"])
    agreement = tuple(json_records.decode(Agreement, record) for record in summary["agreement"])
    layers = summary["layers"]
    outputs = {
        case: {n: _decode_array(parts[f"{case}/{n}"], shape) for n, shape in shapes.items()}
        for case, shapes in summary["outputs"].items()
    }
    comparison = ComparedTarget(
        device,
        fresh,
        replayed=GoldenReplay(fresh, agreement, outputs),
        layers=layers and tuple(json_records.decode(LayerAgreement, record) for record in layers),
        is_cached=True,
    )
    if not comparison.holds:
        raise ValueError(comparison.outputs)
    return comparison


def _decode_array(content: bytes, shape: Sequence[int]) -> "np.ndarray":
    return np.frombuffer(content, "<f4").reshape(shape).astype(np.float32)
