"""Check int8 programs on processors against the reference, step by step and bit for bit.

    python tools/int8_steps.py                                 the zoo on this machine
    python tools/int8_steps.py --targets arm-a7,arm-a53        under qemu
    python tools/int8_steps.py --networks ddsnet --seed 7      with other weights and another image
    python tools/int8_steps.py --random 1000                   random graphs, from `--seed` on
    python tools/int8_steps.py --artifacts                     complete programs, 1 and 4 threads

By default, each kernel call gets the reference's inputs in buffers at the end of their memory
pages, and its output bytes are compared. In a complete program, a layer reads the outputs of the
layers before it, and so does the reference. Weights and inputs are random. Steps that the reference
classifies as inexact may differ by 1e-4 of a layer's largest value, or by one quantized value if
the output is quantized. Exit 1 if a byte of another step differs, or an inexact step exceeds its
bound.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from time import process_time

from tcc.backends.arm.backend import Arm
from tcc.backends.arm.machine import INT8, MACHINES, Machine
from tcc.compiler.data import weights
from tcc.compiler.frontend.spec import load
from tcc.compiler.ir.graph import Model
from tcc.compiler.zoo import shipped
from tcc.testing.int8_models import build_int8_model, sample_input

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))
arm_calls, arm_int8 = map(import_module, ("arm_calls", "arm_int8"))

TOGETHER = 25
"""Number of random graphs that share one program."""


def load_int8_network(name: str, seed: int) -> Model:
    """Return the integer program of a zoo network with random weights."""
    graph = load(shipped.list_specs()[name]).graph
    return build_int8_model(graph, weights.initialize_random(graph, seed), seed)


def group_models(names: Sequence[str], random: int, seed: int) -> Iterator[dict[str, Model]]:
    """Yield integer programs by name, in groups that share one compiled program."""
    for start in range(seed, seed + random, TOGETHER):
        end = min(start + TOGETHER, seed + random)
        yield {f"random graph {n}": arm_int8.build_random_program(n) for n in range(start, end)}
    for name in names:
        yield {name: load_int8_network(name, seed)}


def compare_steps(models: Mapping[str, Model], machine: Machine, tasks: int, seed: int) -> int:
    """Print the steps that differ on a machine; return their number."""
    wrong = steps = floats = 0
    with tempfile.TemporaryDirectory() as folder:
        calls, plans = arm_calls.call_program(list(models.values()), machine, Path(folder), tasks)
        for (name, model), plan in zip(models.items(), plans, strict=True):
            try:
                counts_by_step = arm_int8.count_differences(
                    model, seed, lambda right, p=plan: calls.results(p, right)
                )
            except arm_calls.BrokenCallError as error:
                print(f"{machine.target.name}: {name}: {error}")
                wrong += 1
                continue
            steps += len(counts_by_step)
            floats += len(counts_by_step.keys() - arm_int8.find_exact_values(model.graph))
            bad = {step: count for step, count in counts_by_step.items() if count}
            wrong += len(bad)
            for step, count in bad.items():
                print(f"{machine.target.name}: {name}: {step}: {count} values differ")
    title = (
        next(iter(models))
        if len(models) == 1
        else f"{next(iter(models))} and {len(models) - 1} more"
    )
    print(
        f"{machine.target.name}: {title}: {steps} steps in {tasks} parts, {floats} in float, "
        f"{wrong} differ, {process_time():.0f} s",
        flush=True,
    )
    return wrong


def compare_artifact(name: str, model: Model, machine: Machine, seed: int) -> int:
    """Print the differing layers of a program, with 1 and 4 threads; return their number."""
    image = sample_input(model.graph, seed)
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        artifact = Arm().emit(machine.target, model, INT8)
        for file, content in artifact.files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
            (folder / file).chmod(0o755)
        for threads in (1, 4):

            def read_layers(_right: object, threads: int = threads) -> object:
                return arm_int8.run_artifact_layers(folder, machine, model, image, threads)

            counts_by_step = arm_int8.count_differences(model, seed, read_layers, in_turn=True)
            bad = {step: count for step, count in counts_by_step.items() if count}
            wrong += len(bad)
            floats = len(counts_by_step.keys() - arm_int8.find_exact_values(model.graph))
            title = (
                f"{machine.target.name}: {name}: {len(counts_by_step)} layers, {floats} in float, "
                f"{threads} threads"
            )
            print(f"{title}: {bad or 'none differ'}, {process_time():.0f} s", flush=True)
    return wrong


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--targets", default="host")
    parser.add_argument(
        "--networks", help="names, separated by commas; default: the zoo, or none with --random"
    )
    parser.add_argument("--random", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--parts", type=int, default=4, help="number of parts that loops are split into"
    )
    parser.add_argument("--artifacts", action="store_true", help="run the artifacts of `tcc build`")
    options = parser.parse_args()
    network_names = sorted(shipped.list_specs())
    names = (
        options.networks.split(",") if options.networks else [] if options.random else network_names
    )
    machines = {machine.target.name: machine for machine in MACHINES}
    wrong = 0
    for models in group_models(names, options.random, options.seed):
        for machine in (machines[target] for target in options.targets.split(",")):
            if options.artifacts:
                wrong += sum(
                    compare_artifact(*named_model, machine, options.seed)
                    for named_model in models.items()
                )
            else:
                wrong += compare_steps(models, machine, options.parts, options.seed)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
