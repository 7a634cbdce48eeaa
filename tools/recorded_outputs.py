"""Hold what networks give against what was recorded once, layer by layer and target by target.

    python tools/recorded_outputs.py                          all networks, all that runs here
    python tools/recorded_outputs.py --networks small --targets onnxruntime,tflite
    python tools/recorded_outputs.py --networks small --record "QAdd rounds to even"

Goldens of bundles are made anew by each build, so that a change of the reference and the targets
together passes them; it does not pass these. Each target is held at each of its precisions.
Of each layer of the integer program a hash and its
first levels are recorded, so that the first that changes is named. Integers are compared by bytes,
and so is fp32 under qemu-arm; other floats, which depend on the processor, within the tolerance of
their precisions. Scales are fixed ones, or of a calibration in the zoo: none depends on a float
that a processor computed. Exit 1: something changed. `--record` wants the reason, and keeps it.
"""

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import tcc
from tcc.compiler import passes
from tcc.compiler.bundle import agreement, goldens, program_check, replay
from tcc.compiler.driver import pipeline
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Input, Model
from tcc.compiler.ir.precision import FP32, Precision
from tcc.compiler.quant import calibration_document, calibration_file
from tcc.compiler.quant.calibration import Calibration
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.quant.scale_groups import compute_minmax_ranges, list_unfused_values
from tcc.compiler.reference import float_program, integer_program
from tcc.compiler.support.diagnostics import make_file_span
from tcc.compiler.support.progress import silent
from tcc.compiler.targets import devices
from tcc.compiler.zoo import trained

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "golden" / "outputs"
NETWORKS = {"small": str(FOLDER / "small.yaml"), "ddsnet-blood": "ddsnet-blood"}
"""What is recorded: a spec with random weights, or a trained network with its own calibration."""
REACH = 3.0
"""The magnitude that each value of a network with random weights is taken to reach."""
SHOWN = 4
BYTES = "arm-a7"
"""The target whose floats are compared by bytes: qemu computes them the same on all processors."""
Record = dict[str, Any]


@dataclass(frozen=True)
class RecordedNetwork:
    """A network in floats and as its integer programs, by whether these end in real numbers."""

    name: str
    floats: Model
    programs: Mapping[bool, Model]

    def start(self, device: Device, precision: Precision) -> Model:
        """Return what a target is emitted from."""
        if precision.integer:
            return self.programs[precision.float_io]
        return passes.run(self.floats, device.passes(precision))


def network(name: str) -> RecordedNetwork:
    """Return a network by its name here."""
    spec = tcc.load(NETWORKS[name])
    given = pipeline.load_weights(spec, None, None)
    ready = pipeline.lower_for_int8(spec, given)
    known = trained.find_by_spec(spec)
    if known:
        document = calibration_document.read_document(known.calibration)
        scales = calibration_file.decode_calibration(document, ready, name)
    else:
        bounds = dict.fromkeys(list_unfused_values(ready.graph), (-REACH, REACH))
        scales = Calibration(compute_minmax_ranges(ready, bounds))
    programs = {ends: quantize(ready, _ending(scales, real_ends=ends)) for ends in (True, False)}
    return RecordedNetwork(name, Model(spec.graph, given.tensors), programs)


def _ending(scales: Calibration, *, real_ends: bool) -> Calibration:
    return replace(scales, float_io=real_ends)


def recorded(found: RecordedNetwork) -> Record:
    """Return what the reference gives for a network, as it is kept."""
    integers = {}
    for ends, program in found.programs.items():
        values = _values(program)
        integers["int8" if ends else "int8-i8"] = {
            "layers": {
                layer.name: _kept([one[layer.name] for one in values])
                for layer in program_check.list_comparable_layers(program.graph)
            },
            "outputs": {
                one.name: _kept([each[one.value] for each in values])
                for one in program.graph.outputs
            },
        }
    floats = float_program.run(
        found.floats, goldens.list_input_tensors(found.floats.graph.inputs[0])
    )
    named = {
        name: [[float(x) for x in one[name].reshape(-1)] for one in floats] for name in floats[0]
    }
    return {**integers, "fp32": {"outputs": named}}


def _values(program: Model) -> list[Mapping[str, Any]]:
    tensors = goldens.list_input_tensors(program.graph.inputs[0])
    return list(integer_program.run(program, tensors, keep_all=True))


def _kept(values: Sequence[Any]) -> list[Any]:
    """Return a hash of values of all inputs, and the first of them."""
    raw = b"".join(np.ascontiguousarray(one).tobytes() for one in values)
    first = values[0].reshape(-1)[:SHOWN]
    return [hashlib.sha256(raw).hexdigest()[:16], *(float(f"{x:.7g}") for x in first)]


def changes(found: RecordedNetwork, known: Record, targets: Sequence[str]) -> Iterator[str]:
    """Yield what a network gives otherwise than recorded: of the reference, and of targets."""
    now = recorded(found)
    for precision in ("int8", "int8-i8"):
        shown = {**now[precision]["layers"], **now[precision]["outputs"]}
        yield from _first(known[precision], shown, f"{found.name} {precision} reference")
    floats, allowed = known["fp32"]["outputs"], agreement.FLOAT_TOLERANCE.relative
    yield from _far(floats, now["fp32"]["outputs"], allowed, f"{found.name} fp32 reference")
    for name in targets:
        device = devices.find(name, make_file_span(name))
        for precision_of in device.target.precisions:
            yield from _artifact(found, known, device, precision_of)


def _artifact(
    found: RecordedNetwork, known: Record, device: Device, precision: Precision
) -> Iterator[str]:
    where = f"{found.name} {precision.name} {device.name}"
    start = found.start(device, precision)
    source = start.graph.inputs[0] if precision.integer else found.floats.graph.inputs[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(device, start, precision, folder)
        outputs = device.infer(folder, source, goldens.list_input_tensors(source))
        given = {one: [each[one] for each in outputs] for one in outputs[0]}
        if not precision.integer:
            plain = {
                one: [[float(x) for x in y.reshape(-1)] for y in v] for one, v in given.items()
            }
            allowed = agreement.get_tolerance(precision).relative
            yield from _far(known["fp32"]["outputs"], plain, allowed, where)
            if device.name == BYTES and precision == FP32:
                bits = {one: _kept(values) for one, values in given.items()}
                own = known["fp32"].get(BYTES, {})
                yield from _first({"outputs": own}, bits, where)
                if own.keys() != bits.keys():
                    yield f"{where}: its bytes are not recorded"
            return
        if not precision.exact:
            # Held against the reference itself, which is held against what is recorded.
            yield from _simulated(start, given, agreement.get_tolerance(precision).relative, where)
            return
        # What tflite calls int8 has 8-bit ends: the program decides, not the word.
        right = known["int8" if precision.float_io else "int8-i8"]
        shown = _levels(device, start, folder, source)
        bits = {one: _kept(values) for one, values in given.items()}
        yield from _first(right, {**shown, **bits}, where)


def _simulated(
    program: Model, given: Mapping[str, list[Any]], allowed: float, where: str
) -> Iterator[str]:
    values = _values(program)
    for one in program.graph.outputs:
        right = [each[one.value].reshape(-1).tolist() for each in values]
        found = [each.reshape(-1).tolist() for each in given[one.name]]
        yield from _far({one.name: right}, {one.name: found}, allowed, where)


def _write(device: Device, start: Model, precision: Precision, folder: Path) -> None:
    artifact = device.emit(start, precision, silent)
    for path, data in artifact.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        if path in artifact.executable:
            (folder / path).chmod(0o755)


def _levels(device: Device, start: Model, folder: Path, source: Input) -> dict[str, list[Any]]:
    """Return the layers that an artifact shows, as the graph types them, kept."""
    reader = device.quantized_value_reader
    if reader is None:
        return {}
    types = start.graph.types
    found: dict[str, list[Any]] = {}
    inputs = goldens.list_input_tensors(source)
    for each in reader.trace_quantized_values(device.target, folder, source, inputs):
        for name in each.keys() & {
            one.name for one in program_check.list_comparable_layers(start.graph)
        }:
            kind = types[name].dtype.value
            levels = program_check.convert_sign(np.asarray(each[name]), np.dtype(kind)).astype(kind)
            found.setdefault(name, []).append(levels.reshape(types[name].shape))
    return {name: _kept(values) for name, values in found.items()}


def _first(known: Record, found: Mapping[str, list[Any]], where: str) -> Iterator[str]:
    """Yield the first layer, in the program's order, whose bytes are others, and lost outputs."""
    for part in ("layers", "outputs"):
        for name, was in known.get(part, {}).items():
            if name in found and found[name] != was:
                yield f"{where}: `{name}` gives {found[name][1:]}, and gave {was[1:]}"
                return
    if lost := known.get("outputs", {}).keys() - found.keys():
        yield f"{where}: there is no output `{min(lost)}`"
    layers = set(known.get("layers", {}))
    if layers and not layers & found.keys():
        yield f"{where}: none of its layers is shown"
    if where.endswith(" reference") and (
        new := sorted(found.keys() - layers - known["outputs"].keys())
    ):
        yield f"{where}: `{new[0]}` was not there"


def _far(known: Record, found: Record, allowed: float, where: str) -> Iterator[str]:
    if odd := sorted(known.keys() ^ found.keys()):
        yield f"{where}: output `{odd[0]}` is not in both"
        return
    for name, was in known.items():
        right, now = (np.array(one[name], np.float32) for one in (known, found))
        _, largest = replay.count_differences(right.reshape(-1), now.reshape(-1))
        if (
            not agreement.compute_relative_difference(largest, float(np.abs(right).max()), allowed)
            <= allowed
        ):
            yield f"{where}: `{name}` is off by {largest:.1e}, and gave {was[0][:SHOWN]}"


def path_of(name: str) -> Path:
    """Return the file of a network's record."""
    return FOLDER / f"{name}.json"


def runnable() -> list[str]:
    """Return the targets that run here, by name."""
    return [
        each.name
        for each in devices.list_built_in_devices()
        if each.target.runs
        and not each.list_missing_build_tools()
        and not each.list_missing_run_tools()
    ]


def record(found: RecordedNetwork, reason: str) -> None:
    """Write the record of a network anew."""
    known = recorded(found)
    device = devices.find(BYTES, make_file_span(BYTES))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(device, found.start(device, FP32), FP32, folder)
        source = found.floats.graph.inputs[0]
        outputs = device.infer(folder, source, goldens.list_input_tensors(source))
    known["fp32"][BYTES] = {one: _kept([each[one] for each in outputs]) for one in outputs[0]}
    path_of(found.name).write_text(json.dumps({"reason": reason, **known}, indent=0) + "\n")


def main() -> int:
    """Compare or record, as the command line asks."""
    words = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    words.add_argument("--networks", default=",".join(NETWORKS), metavar="N[,N...]")
    words.add_argument("--targets", metavar="T[,T...]", help="all that run here")
    words.add_argument("--record", metavar="REASON", help="keep what is given now, and why")
    options = words.parse_args()
    targets = options.targets.split(",") if options.targets else runnable()
    wrong = 0
    for name in options.networks.split(","):
        found = network(name)
        if options.record:
            record(found, options.record)
            print(f"written: {path_of(name).name}")
            continue
        for line in changes(found, json.loads(path_of(name).read_text()), targets):
            print(line)
            wrong += 1
        print(f"{name}: {', '.join(targets)}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
