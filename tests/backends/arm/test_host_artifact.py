"""The target `host`: its files, use from other programs, and refused input."""

import ctypes
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from arm_models import LABELS, encode_ppm, make_random_image, make_small_model, write_artifact
from numpy.typing import NDArray

from tcc.backends.arm import compile_model
from tcc.backends.arm.backend import Arm
from tcc.backends.arm.codegen import c_header, elf_symbols, objects, zig
from tcc.backends.arm.codegen.link import LINK_OPTIONS
from tcc.backends.arm.codegen.objects import BUILDERS
from tcc.backends.arm.kernels.base import Kernel
from tcc.backends.arm.machine import MACHINES
from tcc.backends.arm.schedule import limits
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.graph import Graph, Input, Model, Output
from tcc.compiler.ir.image_limits import TOO_LARGE
from tcc.compiler.ir.op import Op
from tcc.compiler.ir.preprocess import apply
from tcc.compiler.ir.target import Artifact
from tcc.compiler.ir.types import TensorType
from tcc.compiler.ops import Flatten, Linear, Relu
from tcc.compiler.reference import float_program
from tcc.compiler.support.atomic_files import MachineError
from tcc.compiler.support.diagnostics import UserError
from tcc.compiler.support.external_tools import MissingTool
from tcc.testing.nets import NetBuilder
from tcc.testing.op_cases import sample_weights

ARM = Arm()
(HOST,) = (t for t in ARM.targets if t.name == "host")


@dataclass(frozen=True)
class Built:
    model: Model
    artifact: Artifact
    folder: Path

    @property
    def source(self) -> Input:
        return self.model.graph.inputs[0]

    def run_program(self, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        command = [self.folder / "small-run", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    model = make_small_model()
    artifact = ARM.emit(HOST, model)
    return Built(model, artifact, write_artifact(tmp_path_factory.mktemp("small"), artifact))


def make_tensor(built: Built, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(built.source.type.shape, np.float32)


def test_artifact_files(built: Built) -> None:
    assert sorted(built.artifact.files) == [
        "README.txt", "libsmall.a", "libsmall.so", "sample.cpp", "small-config.cmake", "small-run",
        "small.h", "small.pc",
        "src/decision.h", "src/functions.h", "src/pool.h", "src/preprocess.h", "src/reader.h", "src/report.h",
        "src/runner.c", "src/small.c",
    ]  # fmt: skip
    assert built.artifact.executable == {"small-run"}


def test_outputs_match_the_reference(built: Built) -> None:
    tensors = [make_tensor(built, seed) for seed in range(3)]
    all_outputs = ARM.infer(HOST, built.folder, built.source, tensors)
    for actual, expected in zip(all_outputs, float_program.run(built.model, tensors), strict=True):
        assert actual.keys() == expected.keys() == {"logits", "mask"}
        for name, output in expected.items():
            assert actual[name].shape == output.shape
            assert actual[name].dtype == np.float32
            np.testing.assert_allclose(actual[name], output, rtol=1e-5, atol=1e-5)


def test_the_program_preprocesses_images(built: Built) -> None:
    images = [make_random_image(31, 50), make_random_image(20, 24, 1), make_random_image(9, 8, 2)]
    assert built.source.preprocess is not None
    tensors = [apply(built.source.preprocess, i, (3, 20, 24)) for i in images]
    by_image = Device(ARM, HOST).run(built.folder, built.source, images)
    by_tensor = ARM.infer(HOST, built.folder, built.source, tensors)
    for a, b in zip(by_image, by_tensor, strict=True):
        assert all(a[name].tobytes() == b[name].tobytes() for name in ("logits", "mask"))


def test_outputs_of_many_inputs_keep_their_order(built: Built) -> None:
    tensors = [make_tensor(built, seed) for seed in range(70)]
    batch_outputs = ARM.infer(HOST, built.folder, built.source, tensors)
    single_outputs = ARM.infer(HOST, built.folder, built.source, tensors[66:67])
    assert batch_outputs[66]["logits"].tobytes() == single_outputs[0]["logits"].tobytes()
    assert len({t["logits"].tobytes() for t in batch_outputs}) == 70


def test_the_program_prints_the_likeliest_class_first(built: Built, tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(encode_ppm(make_random_image(31, 50), " # a comment"))
    completed = built.run_program("--top", "0", tmp_path / "a.ppm")
    assert completed.returncode == 0
    lines = completed.stdout.splitlines()
    raw = (
        Device(ARM, HOST)
        .run(built.folder, built.source, [make_random_image(31, 50)])[0]["logits"]
        .astype(float)
    )
    chances = np.exp(raw - raw.max()) / np.exp(raw - raw.max()).sum()
    best = sorted(range(4), key=lambda i: -chances[i])
    assert lines[:2] == [str(tmp_path / "a.ppm"), " logits"]
    assert [line.split()[:-1] for line in lines[2:6]] == [LABELS[i].split() for i in best]
    assert [float(line.split()[-1]) for line in lines[2:6]] == pytest.approx(
        [chances[i] for i in best], abs=1e-6
    )
    assert lines[6:] == [" mask", lines[7]]
    assert lines[7].startswith("  map of 2 x 10 x 12, from 0.")


def test_raw_pixels_are_accepted_as_an_image(built: Built, tmp_path: Path) -> None:
    pixels = make_random_image(31, 50)
    (tmp_path / "a.rgb").write_bytes(pixels.tobytes())
    (tmp_path / "a.ppm").write_bytes(encode_ppm(pixels))
    arguments = ("--quiet", "--raw", tmp_path / "raw", tmp_path / "a.ppm")
    assert (
        built.run_program(*arguments, "--size", "50x31", "--rgb", tmp_path / "a.rgb").stdout == ""
    )
    raw_outputs = np.fromfile(tmp_path / "raw", np.float32).reshape(2, -1)
    assert raw_outputs.shape == (2, 4 + 2 * 10 * 12)
    assert np.array_equal(raw_outputs[0], raw_outputs[1])


def test_threads_do_not_change_outputs(built: Built, tmp_path: Path) -> None:
    make_tensor(built).tofile(tmp_path / "t")
    raw = []
    for threads in ("1", "2", "5"):
        completed = built.run_program(
            "--quiet", "--threads", threads, "--repeat", "20", "--raw", tmp_path / "raw",
            "--tensor", tmp_path / "t",
        )  # fmt: skip
        assert completed.returncode == 0
        raw.append((tmp_path / "raw").read_bytes())
    assert raw[0] == raw[1] == raw[2]


def test_the_program_describes_itself(built: Built) -> None:
    assert built.run_program("--version").stdout.endswith(", host\n")
    assert built.run_program("--help").stdout.startswith(
        "usage: small-run [OPTION]... [INPUT]...\n"
    )
    assert "median of 3 runs" not in built.run_program("--help").stdout


FULL = 3 * 20 * 24 * 4
BAD: dict[str, tuple[list[str], bytes, str]] = {
    "no input": ([], b"", "no input: give an image or a tensor; see --help"),
    "no such option": (["--fast", "x"], b"", "--fast: unknown option; see --help"),
    "no value": (["--top"], b"", "--top: unknown option, or its value is missing; see --help"),
    "not a number": (["--top", "x"], b"", "--top: needs an integer from 0 to 1073741824"),
    "too many threads": (["--threads", "99"], b"", "--threads: needs an integer from 1 to 16"),
    "no threads": (["--threads", "0"], b"", "--threads: needs an integer from 1 to 16"),
    "raw twice": (["--raw", "F.1", "--raw", "F.2"], b"", "--raw: can be used only once"),
    "raw nowhere": (["--raw", "none/F"], b"", "none/F: No such file or directory"),
    "not there": (["F.none"], b"", "F.none: No such file or directory"),
    "a folder": (["--tensor", "/"], b"", "/: Is a directory"),
    "empty tensor": (
        ["--tensor", "F"], b"", f"F: the file ends after 0 of {FULL} bytes of data",
    ),
    "short tensor": (
        ["--tensor", "F"], bytes(99), f"F: the file ends after 99 of {FULL} bytes of data",
    ),
    "long tensor": (
        ["--tensor", "F"], bytes(FULL + 1),
        f"F: the file has more than the expected {FULL} bytes of data",
    ),
    "NaN": (
        ["--tensor", "F"], b"\0\0\xc0\x7f" + bytes(FULL - 4),
        "F: the input or an output contains NaN or infinity",
    ),
    "infinity": (
        ["--tensor", "F"], bytes(FULL - 4) + b"\0\0\x80\xff",
        "F: the input or an output contains NaN or infinity",
    ),
    "not a PPM": (["F"], b"\x89PNG\r\n", "F: this is not a binary PPM image (P6)"),
    "text PPM": (["F"], b"P3\n1 1\n255\n0 0 0\n", "F: this is not a binary PPM image (P6)"),
    "no size": (["F"], b"P6\nx", "F: the header is not a binary PPM header (P6)"),
    "header cut off": (["F"], b"P6\n10", "F: the header is not a binary PPM header (P6)"),
    "endless comment": (["F"], b"P6 #" + bytes(500), "F: the header is not a binary PPM header (P6)"),
    "16 bits": (
        ["F"], b"P6 1 1 65535\n" + bytes(6),
        "F: the PPM image must have 8 bits per sample (a maximum of 255)",
    ),
    "no pixels": (["F"], b"P6 0 5 255\n", "F: the network does not support this image size"),
    "too wide": (["F"], b"P6 65537 1 255\n", f"F: {TOO_LARGE}"),
    "too large": (["F"], b"P6 60000 60000 255\n", f"F: {TOO_LARGE}"),
    "too long": (["F"], b"P6 1 67108864 255\n", f"F: {TOO_LARGE}"),
    "too large a size": (["--size", "1x67108864", "--rgb", "F"], b"", f"F: {TOO_LARGE}"),
    "cut off": (["F"], b"P6 5 5 255\n" + bytes(74), "F: the file ends after 74 of 75 bytes of data"),
    "pixels without size": (["--rgb", "F"], b"", "F: set --size WxH before --rgb"),
    "bad size": (
        ["--size", "5by5", "--rgb", "F"], bytes(75), "--size: set --size WxH before --rgb",
    ),
    "size with more": (
        ["--size", "5x5x3", "--rgb", "F"], bytes(75),
        "--size: set --size WxH before --rgb",
    ),
    "negative size": (
        ["--size", "-5x5", "--rgb", "F"], bytes(75),
        "F: the network does not support this image size",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case_name", BAD)
def test_bad_input_is_refused(case_name: str, built: Built, tmp_path: Path) -> None:
    arguments, content, message = BAD[case_name]
    (tmp_path / "F").write_bytes(content)
    completed = subprocess.run(
        [built.folder / "small-run", *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (completed.returncode, completed.stdout) == (2, "")
    assert completed.stderr == f"small-run: {message}\n"


def test_a_bad_tensor_is_a_user_error(built: Built) -> None:
    bad = make_tensor(built)
    bad[1, 2, 3] = np.nan
    with pytest.raises(UserError, match="the program refuses its input") as caught:
        ARM.infer(HOST, built.folder, built.source, [make_tensor(built), bad])
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E0653"
    assert diagnostic.label == "input 1: the input or an output contains NaN or infinity"


def test_a_folder_without_a_program_is_a_user_error(built: Built, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the folder has \d+ runner programs"):
        ARM.infer(HOST, tmp_path, built.source, [])
    (tmp_path / "x-run").write_bytes(b"\x7fELF nonsense")
    with pytest.raises(UserError, match="the program cannot be run"):
        ARM.infer(HOST, tmp_path, built.source, [make_tensor(built)])


USER = """
#include <stdio.h>
#include "small.h"
static int seen;
static void watch(void *user, int layer, const void *result)
{
    seen += layer + (user == &seen) + (result != 0);
}
static unsigned char arena[SMALL_ARENA_SIZE + 3];
int main(void)
{
    static uint8_t rgb[31 * 50 * 3];
    static float p[SMALL_OUTPUT_SIZE], t[SMALL_INPUT_SIZE], q[SMALL_OUTPUT_SIZE];
    for (int i = 0; i < (int)sizeof rgb; i++)
        rgb[i] = (uint8_t)(i * 7 + i / 50);
    small_instance *net = small_create(arena + 3, SMALL_ARENA_SIZE);
    int bad = !net || small_threads(net) != 1;
    bad |= small_classify(net, rgb, 50, 31, p) || small_preprocess(net, rgb, 50, 31, t) ||
           small_set_threads(net, 3) || small_run(net, t, q) || small_activate(q) ||
           small_threads(net) != 3;
    for (int i = 0; i < SMALL_OUTPUT_SIZE; i++)
        bad |= p[i] != q[i];
    bad |= small_run(net, 0, q) != SMALL_BAD_ARGUMENT || small_run(net, t, 0) != SMALL_BAD_ARGUMENT;
    bad |= small_run(0, t, q) != SMALL_BAD_ARGUMENT || small_activate(0) != SMALL_BAD_ARGUMENT;
    bad |= small_classify(0, rgb, 5, 5, p) != SMALL_BAD_ARGUMENT;
    bad |= small_preprocess(0, rgb, 5, 5, t) != SMALL_BAD_ARGUMENT;
    bad |= small_classify(net, rgb, 0, 31, p) != SMALL_BAD_SIZE;
    bad |= small_classify(net, rgb, 50, -1, p) != SMALL_BAD_SIZE;
    bad |= small_classify(net, rgb, SMALL_MAX_SIDE + 1, 1, p) != SMALL_TOO_LARGE;
    bad |= small_classify(net, rgb, SMALL_MAX_SIDE, SMALL_MAX_SIDE, p) != SMALL_TOO_LARGE;
    bad |= small_set_threads(net, 0) != SMALL_BAD_ARGUMENT;
    bad |= small_set_threads(net, SMALL_MAX_THREADS + 1) != SMALL_BAD_ARGUMENT;
    bad |= small_set_threads(net, 1) || small_threads(net) != 1;
    bad |= small_watch(net, watch, &seen) || small_run(net, t, q) || small_watch(net, 0, 0);
    int layers = SMALL_LAYER_COUNT;
    bad |= small_run(net, t, q) || seen != layers * (layers - 1) / 2 + 2 * layers;
    bad |= !small_layers[layers - 1].name || small_layers[layers].name;
    small_destroy(net);
    bad |= small_run(net, t, q) != SMALL_BAD_ARGUMENT || small_threads(net) != 0;
    small_destroy(net);
    small_destroy(0);
    bad |= small_create(arena, SMALL_ARENA_SIZE - 1) != 0 || small_create(0, SMALL_ARENA_SIZE) != 0;
    for (int i = 0; i < SMALL_OUTPUT_COUNT; i++)
        printf("%s %zu %zu\\n", small_outputs[i].name, small_outputs[i].offset,
               small_outputs[i].label_count);
    printf("%s; %s\\n", small_outputs[0].labels[1], small_message(SMALL_BAD_SIZE));
    return bad;
}
"""


@pytest.mark.parametrize("library", ["libsmall.a", "libsmall.so"])
@pytest.mark.parametrize("language", ["c", "c++"])
def test_c_and_cpp_programs_link_the_library(
    library: str, language: str, built: Built, tmp_path: Path
) -> None:
    (tmp_path / "user.c").write_text(USER)
    standard = {"c": "-std=c99", "c++": "-std=c++11"}[language]
    machine = next(m for m in MACHINES if m.target is HOST)
    zig.run(
        tmp_path, "cc", *machine.get_zig_target("gnu"), *LINK_OPTIONS, "-x", language, standard, "-Wall", "-Wextra",
        "-Wpedantic", "-Werror", f"-I{built.folder}", "user.c", "-x", "none",
        str(built.folder / library), "-o", "user", "-lpthread", "-lm",
    )  # fmt: skip
    environment = {**os.environ, "LD_LIBRARY_PATH": str(built.folder)}
    completed = subprocess.run(
        [tmp_path / "user"], env=environment, capture_output=True, text=True, check=False
    )
    assert completed.stdout.splitlines() == [
        "logits 0 4", "mask 4 0",
        f"{LABELS[1]}; the network does not support this image size",
    ]  # fmt: skip
    assert completed.returncode == 0


def test_the_program_builds_from_its_sources(built: Built, tmp_path: Path) -> None:
    machine = next(m for m in MACHINES if m.target is HOST)
    zig.run(
        built.folder / "src", "cc", *machine.get_zig_target("gnu"), *LINK_OPTIONS, "-I..", "runner.c",
        "../libsmall.a", "-o", str(tmp_path / "again"), "-lpthread", "-lm",
    )  # fmt: skip
    completed = subprocess.run([tmp_path / "again", "--help"], capture_output=True, check=False)
    assert completed.stdout.decode() == built.run_program("--help").stdout


DOCUMENTED = {
    f"small_{symbol}"
    for symbol in ("create", "destroy", "run", "preprocess", "activate", "classify", "decide", "predict",
                 "has_thresholds", "set_threads",
                 "threads", "watch", "message", "version", "outputs", "layers",
                 *(("set_isa", "isa") if "x86-64" in HOST.title else ()))
}  # fmt: skip


def test_libraries_export_only_the_header_names(built: Built) -> None:
    header = (built.folder / "small.h").read_text()
    (create,) = re.findall(r"^#define small_create (\w+)$", header, re.MULTILINE)
    archive = (built.folder / "libsmall.a").read_bytes()
    member = archive[archive.rindex(b"\x7fELF") :]
    assert set(elf_symbols.list_global_symbols(member)) == {*DOCUMENTED, create}
    library = ctypes.CDLL(str(built.folder / "libsmall.so"))
    for symbol in {*DOCUMENTED, create}:
        assert hasattr(library, symbol)
    for hidden in ("small_k0_conv", "small_weights", "__TVMBackendParallelLaunch", "pool_launch"):
        assert not hasattr(library, hidden)


def test_builds_are_reproducible_in_any_folder(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "another temporary folder"
    elsewhere.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    rebuilt = ARM.emit(HOST, make_small_model())
    assert rebuilt == built.artifact
    assert list(elsewhere.iterdir()) == []
    for content in built.artifact.files.values():
        assert b"/tmp" not in content
        assert os.getcwd().encode() not in content
        assert str(Path.home()).encode() + b"/" not in content


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.b-c", "a_b_c"), ("2nets", "net_2nets"), ("_x", "net_x"), ("é", "net_"), ("int", "int")],
)
def test_names_become_identifiers(name: str, expected: str) -> None:
    assert c_header.to_identifier(name) == expected


def make_single_op_model(op: Op, *shape: int, name: str = "one") -> Model:
    add = NetBuilder(*shape, name=name)
    add("op", op)
    graph = add.build(Output("y", "op"), Output("again", "op"), Output("given", "image"))
    return Model(graph, sample_weights(graph))


def test_a_vector_network_with_duplicate_outputs(tmp_path: Path) -> None:
    model = make_single_op_model(Linear(3), 7, name="42.v")
    folder = write_artifact(tmp_path, ARM.emit(HOST, model))
    assert (folder / "libnet_42_v.so").is_file()
    source, x = model.graph.inputs[0], np.arange(7, dtype=np.float32)
    (outputs,) = ARM.infer(HOST, folder, source, [x])
    assert np.array_equal(outputs["given"], x)
    assert outputs["y"].tobytes() == outputs["again"].tobytes()
    np.testing.assert_allclose(outputs["y"], float_program.run(model, [x])[0]["y"], rtol=1e-5)
    with pytest.raises(UserError, match="this network does not take an image"):
        Device(ARM, HOST).run(folder, source, [make_random_image(3, 3)])
    (tmp_path / "a.ppm").write_bytes(encode_ppm(make_random_image(3, 3)))
    command = [tmp_path / "net_42_v-run", tmp_path / "a.ppm"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 2
    assert completed.stderr.endswith("a.ppm: this network does not take an image\n")


class Strange(Op):
    keyword = "strange"

    def infer(self, x: TensorType) -> TensorType:
        return x

    torch = onnx = infer  # type: ignore[assignment]


def test_ops_without_a_kernel_are_refused() -> None:
    model = make_single_op_model(Relu(), 3, 4, 4)
    node = replace(model.graph.nodes[0], op=Strange())
    graph = replace(model.graph, nodes=(node,))
    (refusal,) = ARM.refusals(HOST, graph)
    assert refusal.node is node
    assert refusal.reason == "host has no kernel for `strange`"


def test_networks_that_are_too_large_are_refused() -> None:
    add = NetBuilder(1, 1, 40000)
    add("flat", Flatten())
    add("huge", Linear(9000))
    (refusal,) = ARM.refusals(HOST, add.build())
    assert refusal.node.name == "huge"
    assert (
        refusal.reason
        == "host supports values and weights of up to 1024 MiB, but this has 1373 MiB"
    )


def test_networks_that_need_too_much_memory_are_refused(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_MEMORY", 1 << 10)
    with pytest.raises(UserError, match=r"needs 0 MiB of memory, but host supports up to 0 MiB"):
        ARM.emit(HOST, built.model)


def test_training_only_parts_are_removed(tmp_path: Path) -> None:
    model = make_single_op_model(Relu(), 3, 4, 4)
    head = replace(model.graph.outputs[2], train_only=True)
    graph = replace(model.graph, outputs=(model.graph.outputs[0], head))
    folder = write_artifact(tmp_path, ARM.emit(HOST, Model(graph, model.weights)))
    (outputs,) = ARM.infer(HOST, folder, graph.inputs[0], [np.ones((3, 4, 4), np.float32)])
    assert list(outputs) == ["y"]


def test_a_second_input_is_refused() -> None:
    model = make_single_op_model(Relu(), 3, 4, 4)
    second = Input("second", TensorType((3, 4, 4)))
    node = replace(model.graph.nodes[0], inputs=("second",))
    graph = Graph("two", (*model.graph.inputs, second), (node,), model.graph.outputs)
    (refusal,) = ARM.refusals(HOST, graph)
    assert refusal.reason == "host supports one network input, but this reads another one"


def test_no_arm_target_refuses_the_small_model(built: Built) -> None:
    assert [list(ARM.refusals(t, built.model.graph)) for t in ARM.targets] == [[]] * 5


def test_a_missing_tool_comes_with_its_install_command(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tcc.backends.arm.backend.installed_version", lambda _: None)
    with pytest.raises(MissingTool, match=r"apache-tvm is needed to .* 'tcc-compiler\[arm\]'"):
        ARM.emit(HOST, built.model)


def test_a_kernel_that_cannot_be_built_names_its_node(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_error(kernel: Kernel, symbol: str) -> None:
        raise ValueError("no such loop")

    loops = dict.fromkeys(BUILDERS, raise_error)

    monkeypatch.setattr(
        objects, "build_function", lambda kernel, symbol: loops[type(kernel)](kernel, symbol)
    )
    with pytest.raises(
        compile_model.BuildError, match=r"host: no kernel for `stem` .*: no such loop"
    ):
        ARM.emit(HOST, built.model)


def test_a_failing_linker_leaves_no_files(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(objects, "compile_kernels", lambda *_: b"not an object file")
    with pytest.raises(compile_model.BuildError, match=r"host: small: zig .* failed"):
        ARM.emit(HOST, built.model)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_as_such(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_disk_full(command: list[str], **_: object) -> None:
        raise subprocess.CalledProcessError(1, command, b"error: unable to write: NoSpaceLeft\n")

    monkeypatch.setattr(subprocess, "run", raise_disk_full)
    with pytest.raises(MachineError, match=r"E0604.*No space left on device"):
        ARM.emit(HOST, built.model)


@pytest.fixture
def full_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder with space for one page."""
    mounted = ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(tmp_path)]
    if os.geteuid() or subprocess.run(mounted, check=False).returncode:
        pytest.skip("mounting a small disk takes root")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_kernels_compile_without_disk_space(built: Built, full_scratch: Path) -> None:
    """LLVM would abort the process if it could not write them."""
    with pytest.raises(MachineError) as caught:
        ARM.emit(HOST, built.model)
    assert "cannot write temporary files: No space left on device" in str(caught.value)
    assert f"--> {full_scratch}" in str(caught.value)
    assert list(full_scratch.iterdir()) == []


def test_progress_is_reported(built: Built) -> None:
    reports: list[tuple[str, int, int]] = []
    ARM.emit(HOST, built.model, progress=lambda *report: reports.append(report))
    stages = list(dict.fromkeys(stage for stage, _, _ in reports))
    assert stages == ["choose kernels", "write kernels", "compile kernels", "link"]
    for stage in stages:
        parts = [(step, total) for name, step, total in reports if name == stage]
        assert parts[0][0] == 0
        assert parts[-1][0] == parts[-1][1]
        assert parts == sorted(parts)
