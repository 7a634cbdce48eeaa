"""The library in firmware: instances, threads, names, sanitizers and the example."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from arm_models import LABELS, encode_ppm, make_random_image, make_small_model, write_artifact

from tcc.backends.arm import compile_model
from tcc.backends.arm.backend import Arm
from tcc.backends.arm.codegen import elf_symbols, link, zig
from tcc.backends.arm.codegen.link import LINK_OPTIONS
from tcc.backends.arm.machine import MACHINES, Machine
from tcc.compiler.ir.graph import Model
from tcc.compiler.ir.preprocess import PixelResize, Preprocess
from tcc.compiler.ops import Conv, GlobalAvgPool, Relu
from tcc.compiler.quant.program.quantize import quantize
from tcc.compiler.reference import integer_program
from tcc.testing.int8_models import calibrate_on_input, lower_for_int8, sample_input
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights

ARM = Arm()
BY_NAME = {m.target.name: m for m in MACHINES}
HOST = BY_NAME["host"]

TWO = """
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "small.h"
#include "other.h"
#define USER(NAME, UPPER)                                                                  \\
    static int NAME##_user(void *memory, int threads)                                      \\
    {                                                                                      \\
        float in[UPPER##_INPUT_SIZE], out[UPPER##_OUTPUT_SIZE], again[UPPER##_OUTPUT_SIZE];\\
        for (int i = 0; i < UPPER##_INPUT_SIZE; i++)                                       \\
            in[i] = (float)(i % 23) / 7.0f - 1.0f;                                         \\
        NAME##_instance *net = NAME##_create(memory, UPPER##_ARENA_SIZE);                  \\
        int bad = !net || NAME##_run(net, in, out) || NAME##_set_threads(net, threads);    \\
        for (int i = 0; i < 30 && !bad; i++)                                               \\
            bad = NAME##_run(net, in, again) || memcmp(out, again, sizeof out);            \\
        printf(#NAME " %a %a\\n", out[0], out[UPPER##_OUTPUT_SIZE - 1]);                   \\
        NAME##_destroy(net);                                                               \\
        return bad;                                                                        \\
    }
USER(small, SMALL)
USER(other, OTHER)
static unsigned char memories[3][SMALL_ARENA_SIZE + OTHER_ARENA_SIZE];
static void *first(void *unused) { (void)unused; return (void *)(long)small_user(memories[0], 2); }
static void *second(void *unused) { (void)unused; return (void *)(long)other_user(memories[1], 3); }
static void *third(void *unused) { (void)unused; return (void *)(long)small_user(memories[2], 1); }
int main(void)
{
    void *(*users[3])(void *) = {first, second, third};
    pthread_t threads[3];
    long bad = 0;
    for (int i = 0; i < 3; i++)
        bad |= pthread_create(&threads[i], 0, users[i], 0);
    for (int i = 0; i < 3; i++) {
        void *result;
        pthread_join(threads[i], &result);
        bad |= (long)result;
    }
    return (int)bad;
}
"""


def make_other_model(name: str = "other") -> Model:
    """Return the network `make_small_model` with other weights."""
    model = make_small_model(name)
    return replace(model, weights={k: -2 * v for k, v in model.weights.items()})


def link_program(folder: Path, machine: Machine, source: str, *folders: Path) -> Path:
    """Compile a program with zig and link the static libraries of artifacts."""
    (folder / "main.c").write_text(source)
    archives = [str(next(artifact_folder.glob("lib*.a"))) for artifact_folder in folders]
    zig.run(
        folder, "cc", *machine.get_zig_target("gnu"), *LINK_OPTIONS, "-Wall", "-Wextra", "-Werror",
        *(f"-I{artifact_folder}" for artifact_folder in folders), "main.c", *archives, "-o", "main", "-lpthread", "-lm",
    )  # fmt: skip
    return folder / "main"


@pytest.mark.parametrize("name", ["host", pytest.param("arm-a7", marks=pytest.mark.slow)])
def test_two_networks_run_in_parallel_threads(name: str, tmp_path: Path) -> None:
    machine = BY_NAME[name]
    if not machine.native and shutil.which(machine.qemu) is None:
        pytest.skip(f"needs {machine.qemu}")
    folders = []
    for model in (make_small_model(), make_other_model()):
        artifact = ARM.emit(machine.target, model)
        folders.append(write_artifact(tmp_path / model.graph.name, artifact))
        archive = artifact.files[f"lib{model.graph.name}.a"]
        symbols = elf_symbols.list_global_symbols(archive[archive.rindex(b"\x7fELF") :])
        assert all(symbol.startswith(f"{model.graph.name}_") for symbol in symbols)
        assert len(symbols) == (
            19 if machine.has_isa_variants else 17
        )  # with the instruction set selection
    program = link_program(tmp_path, machine, TWO, *folders)
    root = Path("/usr/arm-linux-gnueabihf")
    if not machine.native and not root.is_dir():
        zig.run(
            tmp_path, "cc", *machine.get_zig_target("musl"), *LINK_OPTIONS, "-static", *(f"-I{f}" for f in folders),
            "main.c", *(str(next(f.glob("lib*.a"))) for f in folders), "-o", "main", "-lpthread",
        )  # fmt: skip
    command = [] if machine.native else [machine.qemu, "-cpu", machine.qemu_cpu, "-L", str(root)]
    completed = subprocess.run(
        [*command, program], capture_output=True, text=True, check=False, timeout=120
    )
    assert completed.returncode == 0, completed.stderr
    first_line, second_line, third_line = sorted(completed.stdout.splitlines())
    assert second_line == third_line
    assert first_line.split()[1:] != second_line.split()[1:]


def test_two_networks_with_one_name_fail_to_link(tmp_path: Path) -> None:
    """Otherwise the first library would silently answer for both."""
    folders = [
        write_artifact(tmp_path / str(number), ARM.emit(HOST.target, model))
        for number, model in enumerate((make_small_model(), make_other_model("small")))
    ]
    use = '#include "small.h"\nint %s(void *p) { return !small_create(p, SMALL_ARENA_SIZE); }\n'
    for number, folder in enumerate(folders):
        (tmp_path / f"user{number}.c").write_text(use % f"user{number}")
        zig.run(
            tmp_path,
            "cc",
            *HOST.get_zig_target("gnu"),
            *LINK_OPTIONS[:1],
            "-c",
            f"-I{folder}",
            f"user{number}.c",
        )
    (tmp_path / "main.c").write_text(
        "int user0(void *);\nint user1(void *);\nint main(void) { return user0(0) + user1(0); }\n"
    )
    libraries = [str(folder / "libsmall.a") for folder in folders]
    users = ("main.c", "user0.o", "user1.o")
    link_options = ("-o", "main", "-lpthread", "-lm")
    with pytest.raises(zig.ZigError, match="duplicate symbol: small_"):
        zig.run(
            tmp_path,
            "cc",
            *HOST.get_zig_target("gnu"),
            *LINK_OPTIONS,
            *users,
            *libraries,
            *link_options,
        )
    with pytest.raises(zig.ZigError, match="undefined symbol: small_create_"):
        zig.run(
            tmp_path,
            "cc",
            *HOST.get_zig_target("gnu"),
            *LINK_OPTIONS,
            *users,
            libraries[0],
            *link_options,
        )


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder with all C files of `make_small_model`, built with sanitizers of GCC."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    compiled = compile_model.compile_sources(HOST, make_small_model())
    link.write_sources(tmp_path, compiled.sources, compiled.name)
    for file, content in compiled.objects.items():
        (tmp_path / file).write_bytes(content)
    return tmp_path


def list_objects(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.o"))


def run_gcc(folder: Path, kind: str, *options: str) -> None:
    subprocess.run(
        ["gcc", f"-fsanitize={kind}", "-fno-sanitize-recover=all", "-g", "-O1", "-std=gnu11",
         "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-I.", "-Isrc", *options,
         "-lpthread", "-lm"],
        cwd=folder, check=True,
    )  # fmt: skip


RACE = TWO.replace('#include "other.h"\n', "").replace("USER(other, OTHER)\n", "")
RACE = RACE.replace("other_user", "small_user").replace("OTHER_ARENA", "SMALL_ARENA")


def test_instances_have_no_data_races(sources: Path) -> None:
    (sources / "main.c").write_text(RACE)
    run_gcc(sources, "thread", "main.c", "unit.c", *list_objects(sources), "-o", "main")
    completed = subprocess.run(
        ["setarch", "-R", sources / "main"], capture_output=True, text=True, check=False
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    assert len(set(completed.stdout.splitlines())) == 1


SIZES = ((1, 1), (1, 7), (9, 1), (31, 50), (20, 24), (41, 23), (2, 65536), (65536, 1))


def test_the_program_accesses_only_its_memory(sources: Path) -> None:
    run_gcc(
        sources, "address,undefined", "src/runner.c", "unit.c", *list_objects(sources), "-o", "main"
    )
    inputs = []
    for height, width in SIZES:
        (sources / f"{height}.{width}.ppm").write_bytes(
            encode_ppm(make_random_image(height, width))
        )
        inputs.append(f"{height}.{width}.ppm")
    (sources / "bad.ppm").write_bytes(b"P6 5 5 255\n" + bytes(74))
    probes = ("--profile", "p", "--layers", "l", "--times", "t", "--raw", "r")
    for arguments, code in (
        ((*probes, "--threads", "3", "--repeat", "2", *inputs), 0),
        (("bad.ppm",), 2),
        (("--describe",), 0),
    ):
        completed = subprocess.run(
            [sources / "main", *arguments], cwd=sources, capture_output=True, text=True, check=False
        )
        assert completed.returncode == code, completed.stderr
        assert "ERROR" not in completed.stderr
    lines = (sources / "p").read_text().splitlines()
    assert sum(line.startswith("stem\t") for line in lines) == 2 * len(SIZES)


PREPROCESS = """
#include <stdlib.h>
#include "small.h"
#include "preprocess.h"
static int tried(preprocess_contract contract, int width, int height)
{
    size_t count = (size_t)contract.input[0] * contract.input[1] * contract.input[2];
    uint8_t *rgb = malloc((size_t)width * height * 3);
    for (int i = 0; i < width * height * 3; i++)
        rgb[i] = (uint8_t)(i * 31);
    void *input = malloc(count * (contract.bytes ? 1 : 4)), *scratch = malloc(1 << 20);
    int status = preprocess(&contract, rgb, width, height, input,
                            (preprocess_memory){scratch, 1 << 20});
    free(rgb), free(input), free(scratch);
    return status;
}
int main(void)
{
    static const int sides[] = {1, 2, 3, 17, 32, 61};
    int bad = 0;
    for (int i = 0; i < 6 * 6 * 6 * 6 * 18; i += 23) {
        int width = sides[i % 6], height = sides[i / 6 % 6], w = sides[i / 36 % 6];
        int h = sides[i / 216 % 6], form = i / 1296, color = form % 3, crop = form / 9;
        preprocess_contract contract = {
            .color = color, .resize = 1 + form / 3 % 2, .size = {h, w}, .crop = crop,
            .input = {color == PREPROCESS_GRAY ? 1 : 3, crop ? 17 : h, crop ? 5 : w},
            .scale = form / 3 % 3, .std = {1, 1, 1}, .bytes = form / 3 % 3 == 2};
        bad |= tried(contract, width, height);
        contract.resize = PREPROCESS_KEEP;
        int status = tried(contract, width, height);
        bad |= status != SMALL_OK && status != SMALL_BAD_SIZE;
    }
    return bad;
}
"""


def test_preprocessing_accesses_only_its_memory(sources: Path) -> None:
    (sources / "main.c").write_text(PREPROCESS)
    run_gcc(sources, "address,undefined", "main.c", "-o", "main")
    completed = subprocess.run([sources / "main"], capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stderr) == (0, "")


@pytest.fixture(scope="module")
def small_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(
        tmp_path_factory.mktemp("small"), ARM.emit(HOST.target, make_small_model())
    )


@pytest.fixture
def tools() -> None:
    for tool in ("gcc", "g++", "pkg-config", "cmake"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")


@pytest.mark.usefixtures("tools")
def test_the_readme_example_builds_and_runs(small_artifact: Path, tmp_path: Path) -> None:
    lines = [line[4:] for line in (small_artifact / "README.txt").read_text().splitlines()
             if line.startswith("    ") or not line]  # fmt: skip
    code, *commands = "\n".join(lines).strip().split("\n\n")
    shells = [c.replace("cc ", "gcc ", 1) for block in commands for c in block.splitlines()
              if c.startswith("cc ")]  # fmt: skip
    assert len(code.splitlines()) == 17
    assert len(shells) == 2
    (tmp_path / "main.c").write_text(code)
    shutil.copytree(small_artifact, tmp_path, dirs_exist_ok=True)
    outputs = set()
    for command in shells:
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
        completed = subprocess.run(
            ["./main"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        outputs.add(completed.stdout)
    assert len(outputs) == 1
    # The image is black: class and probability equal the first line of the program.
    (tmp_path / "black.ppm").write_bytes(b"P6 24 20 255\n" + bytes(3 * 20 * 24))
    command = ["./small-run", "--top", "1", "black.ppm"]
    completed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    label, probability = completed.stdout.splitlines()[2].rsplit(maxsplit=1)
    assert LABELS.index(label.strip()) > 0  # not just the first class
    (text,) = outputs
    assert text.startswith("logits: done\n")
    name, printed = text.splitlines()[1].rsplit(maxsplit=1)
    assert name.strip() == label.strip()
    assert abs(float(printed) - float(probability)) < 1e-4
    sample = (
        "g++ -std=c++11 -Wall -Wextra -Werror -I. sample.cpp libsmall.a -lpthread -lm -o sample"
    )
    subprocess.run(sample.split(), cwd=tmp_path, check=True)
    completed = subprocess.run(
        ["./sample"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    head, decision = completed.stdout.splitlines()
    assert (head, decision.strip() in LABELS) == ("logits", True)


@pytest.mark.usefixtures("tools")
def test_cmake_finds_both_libraries(small_artifact: Path, tmp_path: Path) -> None:
    source = '#include "small.h"\nint main(void) { return small_threads(0); }\n'
    (tmp_path / "main.c").write_text(source)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.10)\nproject(user C)\nfind_package(small REQUIRED)\n"
        "add_executable(one main.c)\ntarget_link_libraries(one small::small)\n"
        "add_executable(two main.c)\ntarget_link_libraries(two small::shared)\n"
    )
    commands = (["cmake", f"-DCMAKE_PREFIX_PATH={small_artifact}", "."], ["cmake", "--build", "."])
    for command in (*commands, ["./one"], ["./two"]):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def make_integer_model() -> Model:
    """Return a network from bytes to 8-bit integers."""
    add = NetBuilder(3, 12, 15, name="small")
    add("stem", Conv(6, (3, 3), (2, 2), 1))
    add("relu", Relu())
    add("gap", GlobalAvgPool())
    add("end", Conv(5, (1, 1)))
    graph = add.build()
    pre = Preprocess("rgb", PixelResize((12, 15)))
    graph = replace(graph, inputs=(replace(graph.inputs[0], preprocess=pre),))
    model = lower_for_int8(graph, sample_weights(graph))
    scales = calibrate_on_input(model, sample_input(model.graph, 0))
    return quantize(model, replace(scales, float_io=False))


LEVELS = """
#include <stdio.h>
#include "small.h"
static unsigned char arena[SMALL_ARENA_SIZE];
int main(void)
{
    static const float scales[] = SMALL_SCALES;
    small_input in[SMALL_INPUT_SIZE];
    small_level levels[SMALL_OUTPUT_SIZE];
    float out[SMALL_OUTPUT_SIZE];
    for (int i = 0; i < SMALL_INPUT_SIZE; i++)
        in[i] = (small_input)(i * 7);
    small_instance *net = small_create(arena, sizeof arena);
    int bad = small_run(net, in, out) || small_run_levels(net, in, levels) ||
              small_run_levels(net, 0, levels) != SMALL_BAD_ARGUMENT || sizeof in[0] != 1;
    for (int i = 0; i < SMALL_OUTPUT_SIZE; i++) {
        printf("%d\\n", levels[i]);
        bad |= out[i] != (float)levels[i] * scales[0];
    }
    return bad;
}
"""


def test_integer_inputs_and_outputs_work(tmp_path: Path) -> None:
    model = make_integer_model()
    folder = write_artifact(tmp_path / "small", ARM.emit(HOST.target, model))
    program = link_program(tmp_path, HOST, LEVELS, folder)
    completed = subprocess.run([program], capture_output=True, text=True, check=False)
    assert completed.returncode == 0
    pixels = (np.arange(3 * 12 * 15) * 7 % 256).astype(np.uint8).reshape(3, 12, 15)
    (expected,) = integer_program.run(model, [pixels])
    scale = next(t.scale for t in model.graph.types.values() if t.shape == (5, 1, 1) and t.scale)
    quantized_values = np.array(completed.stdout.split(), np.float32) * np.float32(scale)
    assert quantized_values.tobytes() == expected["logits"].tobytes()
    (photo,) = ARM.run(HOST.target, folder, [make_random_image(31, 50)])
    assert photo["logits"].dtype == np.float32


def test_the_first_use_of_zig_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zig, "get_marker_path", lambda _: tmp_path / "built")
    stages: list[str] = []
    ARM.emit(HOST.target, make_small_model(), progress=lambda stage, *_: stages.append(stage))
    assert "link, after building zig's C library once" in stages
    assert (tmp_path / "built").exists()
