"""Compare networks with their recorded outputs, layer by layer and target by target.

    python tools/recorded_outputs.py                          all networks and runnable targets
    python tools/recorded_outputs.py --networks small --targets onnxruntime,tflite
    python tools/recorded_outputs.py --networks small --record "QAdd rounds to even"

Each build generates its bundle's goldens again, so goldens miss a change that affects the reference
and the targets alike. This comparison finds it. Each target is compared at each of its precisions.
The record has a hash and the first values of each int8 layer, so the first changed layer is
reported. Integer values are compared by bytes, and so is fp32 under qemu-arm. Other floats depend
on the processor and are compared within the tolerance of their precision. Scales are constants or
from a calibration in the zoo: none depends on floats that this processor computes. Exit 1: an
output changed. `--record` takes the reason of a change and stores it.
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
from tcc.compiler.bundle import agreement, goldens, program_check, replay, stored_values
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
"""The recorded networks: a spec with random weights, and a trained network with its calibration."""
VALUE_RANGE = 3.0
"""The magnitude to which the values of a network with random weights are calibrated."""
MAX_SHOWN = 4
BYTES = "arm-a7"
"""The target with floats that are compared by bytes: under qemu, all processors agree."""
Record = dict[str, Any]


@dataclass(frozen=True)
class RecordedNetwork:
    """A network in fp32 and as its integer programs, by whether the program has float I/O."""

    name: str
    floats: Model
    programs: Mapping[bool, Model]

    def get_emitted_model(self, device: Device, precision: Precision) -> Model:
        """Return the model from which a target is emitted."""
        if precision.integer:
            return self.programs[precision.float_io]
        return passes.run(self.floats, device.passes(precision))


def load_network(name: str) -> RecordedNetwork:
    """Return a network by its name in `NETWORKS`."""
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
    """Return the record of the reference's outputs for a network."""
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
    """Return a hash of the values for all inputs, and the first values."""
    raw = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
    shown_numbers = arrays[0].reshape(-1)[:MAX_SHOWN]
    return [
        hashlib.sha256(raw).hexdigest()[:16],
        *(float(f"{number:.7g}") for number in shown_numbers),
    ]


def list_changes(
    recorded_network: RecordedNetwork, recorded_values: Record, targets: Sequence[str]
) -> Iterator[str]:
    """Yield each difference of a network from its record: of the reference and of the targets."""
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
                    yield f"{location}: the record has no output bytes; add them with --record"
            return
        if not precision.exact:
            # Compare with the reference, which is itself compared with the record.
            yield from _compare_simulated(
                start, outputs_by_name, agreement.get_tolerance(precision).relative, location
            )
            return
        # The int8 precision of tflite has quantized I/O: decide by the program, not by the name.
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
    """Return the summaries of the layers that an artifact exposes, in the graph's types."""
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
            kind = types[name]
            codes = np.asarray(layer_values[name])
            levels = stored_values.read_stored(codes, kind.limits[1]).astype(kind.array_dtype)
            layers.setdefault(name, []).append(levels.reshape(kind.shape))
    return {name: _summarize_arrays(arrays) for name, arrays in layers.items()}


def _find_first_change(
    recorded_values: Record, computed: Mapping[str, list[Any]], location: str
) -> Iterator[str]:
    """Yield the first layer with other bytes, in the program's order, and missing outputs."""
    for part in ("layers", "outputs"):
        for name, recorded_summary in recorded_values.get(part, {}).items():
            if name in computed and computed[name] != recorded_summary:
                yield (
                    f"{location}: `{name}` gives {computed[name][1:]}, recorded: "
                    f"{recorded_summary[1:]}"
                )
                return
    if lost := recorded_values.get("outputs", {}).keys() - computed.keys():
        yield f"{location}: the output `{min(lost)}` is missing"
    layers = set(recorded_values.get("layers", {}))
    if layers and not layers & computed.keys():
        yield f"{location}: none of its layers is shown"
    if location.endswith(" reference") and (
        new := sorted(computed.keys() - layers - recorded_values["outputs"].keys())
    ):
        yield f"{location}: `{new[0]}` is not in the record; add it with --record"


def _find_large_errors(
    recorded_values: Record, computed: Record, allowed: float, location: str
) -> Iterator[str]:
    if odd := sorted(recorded_values.keys() ^ computed.keys()):
        yield f"{location}: the output `{odd[0]}` is missing, or is not in the record"
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
                f"{location}: `{name}` is off by {largest:.1e}, recorded: "
                f"{recorded_numbers[0][:MAX_SHOWN]}"
            )


def get_record_path(name: str) -> Path:
    """Return the path of a network's record."""
    return FOLDER / f"{name}.json"


def list_runnable_targets() -> list[str]:
    """Return the names of the targets that can run on this machine."""
    return [
        device.name
        for device in devices.list_built_in_devices()
        if device.target.runs
        and not device.list_missing_build_tools()
        and not device.list_missing_run_tools()
    ]


def write_record(recorded_network: RecordedNetwork, reason: str) -> None:
    """Replace the record of a network."""
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
    """Compare or record outputs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", default=",".join(NETWORKS), metavar="N[,N...]")
    parser.add_argument(
        "--targets",
        metavar="T[,T...]",
        help="names separated by commas; default: all that run on this machine",
    )
    parser.add_argument("--record", metavar="REASON", help="replace the records, for this reason")
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
