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
VALUE_RANGE = 3.0
"""The magnitude that each value of a network with random weights is taken to reach."""
MAX_SHOWN = 4
BYTES = "arm-a7"
"""The target whose floats are compared by bytes: qemu computes them the same on all processors."""
Record = dict[str, Any]


@dataclass(frozen=True)
class RecordedNetwork:
    """A network in floats and as its integer programs, by whether these end in real numbers."""

    name: str
    floats: Model
    programs: Mapping[bool, Model]

    def get_emitted_model(self, device: Device, precision: Precision) -> Model:
        """Return what a target is emitted from."""
        if precision.integer:
            return self.programs[precision.float_io]
        return passes.run(self.floats, device.passes(precision))


def load_network(name: str) -> RecordedNetwork:
    """Return a network by its name here."""
    spec = tcc.load(NETWORKS[name])
    weight_source = pipeline.load_weights(spec, None, None)
    lowered_model = pipeline.lower_for_int8(spec, weight_source)
    trained_network = trained.find_by_spec(spec)
    if trained_network:
        document = calibration_document.read_document(trained_network.calibration)
        scales = calibration_file.decode_calibration(document, lowered_model, name)
    else:
        bounds = dict.fromkeys(
            list_unfused_values(lowered_model.graph), (-VALUE_RANGE, VALUE_RANGE)
        )
        scales = Calibration(compute_minmax_ranges(lowered_model, bounds))
    programs = {
        float_io: quantize(lowered_model, _set_float_io(scales, real_ends=float_io))
        for float_io in (True, False)
    }
    return RecordedNetwork(name, Model(spec.graph, weight_source.tensors), programs)


def _set_float_io(scales: Calibration, *, real_ends: bool) -> Calibration:
    return replace(scales, float_io=real_ends)


def record_outputs(recorded_network: RecordedNetwork) -> Record:
    """Return what the reference gives for a network, as it is kept."""
    integers = {}
    for float_io, program in recorded_network.programs.items():
        sample_values = _run_reference(program)
        integers["int8" if float_io else "int8-i8"] = {
            "layers": {
                layer.name: _summarize_arrays([part[layer.name] for part in sample_values])
                for layer in program_check.list_comparable_layers(program.graph)
            },
            "outputs": {
                part.name: _summarize_arrays([sample[part.value] for sample in sample_values])
                for part in program.graph.outputs
            },
        }
    floats = float_program.run(
        recorded_network.floats, goldens.list_input_tensors(recorded_network.floats.graph.inputs[0])
    )
    float_outputs = {
        name: [[float(number) for number in part[name].reshape(-1)] for part in floats]
        for name in floats[0]
    }
    return {**integers, "fp32": {"outputs": float_outputs}}


def _run_reference(program: Model) -> list[Mapping[str, Any]]:
    tensors = goldens.list_input_tensors(program.graph.inputs[0])
    return list(integer_program.run(program, tensors, keep_all=True))


def _summarize_arrays(arrays: Sequence[Any]) -> list[Any]:
    """Return a hash of values of all inputs, and the first of them."""
    raw = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    shown_numbers = arrays[0].reshape(-1)[:MAX_SHOWN]
    return [
        hashlib.sha256(raw).hexdigest()[:16],
        *(float(f"{number:.7g}") for number in shown_numbers),
    ]


def list_changes(
    recorded_network: RecordedNetwork, recorded_values: Record, targets: Sequence[str]
) -> Iterator[str]:
    """Yield what a network gives otherwise than recorded: of the reference, and of targets."""
    current_record = record_outputs(recorded_network)
    for precision in ("int8", "int8-i8"):
        current_values = {
            **current_record[precision]["layers"],
            **current_record[precision]["outputs"],
        }
        yield from _find_first_change(
            recorded_values[precision],
            current_values,
            f"{recorded_network.name} {precision} reference",
        )
    floats, allowed = recorded_values["fp32"]["outputs"], agreement.FLOAT_TOLERANCE.relative
    yield from _find_large_errors(
        floats,
        current_record["fp32"]["outputs"],
        allowed,
        f"{recorded_network.name} fp32 reference",
    )
    for name in targets:
        device = devices.find(name, make_file_span(name))
        for precision_of in device.target.precisions:
            yield from _compare_artifact(recorded_network, recorded_values, device, precision_of)


def _compare_artifact(
    recorded_network: RecordedNetwork, recorded_values: Record, device: Device, precision: Precision
) -> Iterator[str]:
    location = f"{recorded_network.name} {precision.name} {device.name}"
    start = recorded_network.get_emitted_model(device, precision)
    source = start.graph.inputs[0] if precision.integer else recorded_network.floats.graph.inputs[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_artifact(device, start, precision, folder)
        outputs = device.infer(folder, source, goldens.list_input_tensors(source))
        outputs_by_name = {
            output_name: [sample_outputs[output_name] for sample_outputs in outputs]
            for output_name in outputs[0]
        }
        if not precision.integer:
            float_outputs = {
                output_name: [[float(number) for number in array.reshape(-1)] for array in v]
                for output_name, v in outputs_by_name.items()
            }
            allowed = agreement.get_tolerance(precision).relative
            yield from _find_large_errors(
                recorded_values["fp32"]["outputs"], float_outputs, allowed, location
            )
            if device.name == BYTES and precision == FP32:
                bits = {
                    output_name: _summarize_arrays(arrays)
                    for output_name, arrays in outputs_by_name.items()
                }
                recorded_bits = recorded_values["fp32"].get(BYTES, {})
                yield from _find_first_change({"outputs": recorded_bits}, bits, location)
                if recorded_bits.keys() != bits.keys():
                    yield f"{location}: its bytes are not recorded"
            return
        if not precision.exact:
            # Held against the reference itself, which is held against what is recorded.
            yield from _compare_simulated(
                start, outputs_by_name, agreement.get_tolerance(precision).relative, location
            )
            return
        # What tflite calls int8 has 8-bit ends: the program decides, not the word.
        expected = recorded_values["int8" if precision.float_io else "int8-i8"]
        layers = _read_layers(device, start, folder, source)
        bits = {
            output_name: _summarize_arrays(arrays)
            for output_name, arrays in outputs_by_name.items()
        }
        yield from _find_first_change(expected, {**layers, **bits}, location)


def _compare_simulated(
    program: Model, outputs_by_name: Mapping[str, list[Any]], allowed: float, location: str
) -> Iterator[str]:
    reference_runs = _run_reference(program)
    for output in program.graph.outputs:
        expected = [sample[output.value].reshape(-1).tolist() for sample in reference_runs]
        computed = [sample.reshape(-1).tolist() for sample in outputs_by_name[output.name]]
        yield from _find_large_errors(
            {output.name: expected}, {output.name: computed}, allowed, location
        )


def _write_artifact(device: Device, start: Model, precision: Precision, folder: Path) -> None:
    artifact = device.emit(start, precision, silent)
    for path, content in artifact.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
        if path in artifact.executable:
            (folder / path).chmod(0o755)


def _read_layers(device: Device, start: Model, folder: Path, source: Input) -> dict[str, list[Any]]:
    """Return the layers that an artifact shows, as the graph types them, kept."""
    reader = device.quantized_value_reader
    if reader is None:
        return {}
    types = start.graph.types
    layers: dict[str, list[Any]] = {}
    inputs = goldens.list_input_tensors(source)
    for layer_values in reader.trace_quantized_values(device.target, folder, source, inputs):
        for name in layer_values.keys() & {
            layer.name for layer in program_check.list_comparable_layers(start.graph)
        }:
            kind = types[name].dtype.value
            levels = program_check.convert_sign(
                np.asarray(layer_values[name]), np.dtype(kind)
            ).astype(kind)
            layers.setdefault(name, []).append(levels.reshape(types[name].shape))
    return {name: _summarize_arrays(arrays) for name, arrays in layers.items()}


def _find_first_change(
    recorded_values: Record, computed: Mapping[str, list[Any]], location: str
) -> Iterator[str]:
    """Yield the first layer, in the program's order, whose bytes are others, and lost outputs."""
    for part in ("layers", "outputs"):
        for name, recorded_summary in recorded_values.get(part, {}).items():
            if name in computed and computed[name] != recorded_summary:
                yield (
                    f"{location}: `{name}` gives {computed[name][1:]}, and gave "
                    f"{recorded_summary[1:]}"
                )
                return
    if lost := recorded_values.get("outputs", {}).keys() - computed.keys():
        yield f"{location}: there is no output `{min(lost)}`"
    layers = set(recorded_values.get("layers", {}))
    if layers and not layers & computed.keys():
        yield f"{location}: none of its layers is shown"
    if location.endswith(" reference") and (
        new := sorted(computed.keys() - layers - recorded_values["outputs"].keys())
    ):
        yield f"{location}: `{new[0]}` was not there"


def _find_large_errors(
    recorded_values: Record, computed: Record, allowed: float, location: str
) -> Iterator[str]:
    if odd := sorted(recorded_values.keys() ^ computed.keys()):
        yield f"{location}: output `{odd[0]}` is not in both"
        return
    for name, recorded_numbers in recorded_values.items():
        expected, actual = (
            np.array(output_values[name], np.float32)
            for output_values in (recorded_values, computed)
        )
        _, largest = replay.count_differences(expected.reshape(-1), actual.reshape(-1))
        if (
            not agreement.compute_relative_difference(
                largest, float(np.abs(expected).max()), allowed
            )
            <= allowed
        ):
            yield (
                f"{location}: `{name}` is off by {largest:.1e}, and gave "
                f"{recorded_numbers[0][:MAX_SHOWN]}"
            )


def get_record_path(name: str) -> Path:
    """Return the file of a network's record."""
    return FOLDER / f"{name}.json"


def list_runnable_targets() -> list[str]:
    """Return the targets that run here, by name."""
    return [
        device.name
        for device in devices.list_built_in_devices()
        if device.target.runs
        and not device.list_missing_build_tools()
        and not device.list_missing_run_tools()
    ]


def write_record(recorded_network: RecordedNetwork, reason: str) -> None:
    """Write the record of a network anew."""
    recorded_values = record_outputs(recorded_network)
    device = devices.find(BYTES, make_file_span(BYTES))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_artifact(device, recorded_network.get_emitted_model(device, FP32), FP32, folder)
        source = recorded_network.floats.graph.inputs[0]
        outputs = device.infer(folder, source, goldens.list_input_tensors(source))
    recorded_values["fp32"][BYTES] = {
        output_name: _summarize_arrays([sample_outputs[output_name] for sample_outputs in outputs])
        for output_name in outputs[0]
    }
    get_record_path(recorded_network.name).write_text(
        json.dumps({"reason": reason, **recorded_values}, indent=0) + "\n"
    )


def main() -> int:
    """Compare or record, as the command line asks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", default=",".join(NETWORKS), metavar="N[,N...]")
    parser.add_argument("--targets", metavar="T[,T...]", help="all that run here")
    parser.add_argument("--record", metavar="REASON", help="keep what is given now, and why")
    options = parser.parse_args()
    targets = options.targets.split(",") if options.targets else list_runnable_targets()
    wrong = 0
    for name in options.networks.split(","):
        recorded_network = load_network(name)
        if options.record:
            write_record(recorded_network, options.record)
            print(f"written: {get_record_path(name).name}")
            continue
        for line in list_changes(
            recorded_network, json.loads(get_record_path(name).read_text()), targets
        ):
            print(line)
            wrong += 1
        print(f"{name}: {', '.join(targets)}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
