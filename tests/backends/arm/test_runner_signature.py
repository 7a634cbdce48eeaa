"""A program built with a public key starts only with its signature file."""

import os
import shutil
import subprocess
from dataclasses import replace

import pytest
from arm_models import encode_ppm, make_random_image, make_small_model, write_artifact

from tcc.backends.arm.backend import Arm
from tcc.backends.arm.codegen import c_header, runner_signature
from tcc.compiler.ir.device import Device
from tcc.compiler.ir.operating_point import FittingData, OperatingPoint
from tcc.compiler.support.diagnostics import UserError

ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")

KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = KEY.public_key().public_bytes_raw()
SIGNATURE = "small-run.sig"
ORDER = 2**252 + 27742317777372353535851937790883648493
"""The order of the base point. The second half of a signature must be below it (RFC 8032)."""


def make_device(name, signer=PUBLIC):
    (target,) = (t for t in Arm().targets if t.name == name)
    return Device(Arm(signer=signer), target)


@pytest.fixture(scope="module", params=["host", "arm-a7"])
def built(request, tmp_path_factory):
    """A signed artifact with an operating point, and the command that runs programs of its target."""
    emulator = () if request.param == "host" else ("qemu-arm",)
    if emulator and not shutil.which(*emulator):
        pytest.skip("needs qemu-arm")
    target_device = make_device(request.param)
    folder = write_artifact(
        tmp_path_factory.mktemp(request.param),
        target_device.emit(make_small_model(), target_device.target.precisions[0], lambda *_: None),
    )
    (folder / "a.ppm").write_bytes(encode_ppm(make_random_image(31, 50)))
    store_point(target_device, folder, 1.5)
    sign(folder)
    return folder, emulator


@pytest.fixture
def signed(built, tmp_path):
    """A copy that a test may change."""
    folder, emulator = built
    return shutil.copytree(folder, tmp_path / "model"), emulator


def store_point(target_device, folder, temperature):
    fitting_data = FittingData("", 0, "", None)
    point = OperatingPoint("logits", temperature, 2, (0.25,), "", fitting_data)
    files = target_device.encode_operating_points(folder, (point,))
    assert "small-run" in files
    for name, content in files.items():
        (folder / name).write_bytes(content)


def sign(folder, key=KEY):
    signature_request = runner_signature.find(folder)
    assert signature_request.file == SIGNATURE
    (folder / signature_request.file).write_bytes(key.sign(signature_request.message))


def run(signed, *arguments):
    folder, emulator = signed
    command = [*emulator, folder / "small-run", *(arguments or [folder / "a.ppm"])]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def assert_refused(completed, reason):
    assert (completed.returncode, completed.stdout) == (3, ""), completed
    assert reason in completed.stderr


def test_a_signed_program_runs_and_uses_its_operating_point(signed):
    completed = run(signed)
    assert completed.returncode == 0, completed.stderr
    assert "\n  decision: " in completed.stdout
    assert "Exit status 3" in run(signed, "--help").stdout


def test_a_changed_operating_point_is_refused_until_signed(signed):
    folder, _ = signed
    store_point(make_device("host"), folder, 2.5)
    for options in ((), ("--help",), ("--describe",), ("--version",)):
        assert_refused(run(signed, *options), "is not valid for this program")
    sign(folder)
    assert run(signed).returncode == 0


def flip_bit(data, at, bit=1):
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("spoil", "expected_reason"),
    [
        (lambda data: flip_bit(data, 0), "is not valid for this program"),
        (lambda data: flip_bit(data, 31, 0x80), "is not valid for this program"),
        (lambda data: flip_bit(data, 32), "is not valid for this program"),
        (lambda data: flip_bit(data, 63, 0x20), "is not valid for this program"),
        (lambda data: data[:-1], "64 bytes"),
        (lambda data: data + b"\n", "64 bytes"),
        (lambda data: b"", "64 bytes"),
        (lambda data: bytes(64), "is not valid for this program"),
        (lambda data: data[:32] + (int.from_bytes(data[32:], "little") + ORDER).to_bytes(32, "little"), "is not valid for this program"),
    ],
    ids=["first", "sign of R", "S", "top of S", "short", "long", "empty", "zeros", "S + L"],
)  # fmt: skip
def test_a_corrupted_signature_is_refused(signed, spoil, expected_reason):
    folder, _ = signed
    (folder / SIGNATURE).write_bytes(spoil((folder / SIGNATURE).read_bytes()))
    assert_refused(run(signed), expected_reason)


def test_missing_and_foreign_signatures_are_refused(signed):
    folder, _ = signed
    sign(folder, OTHER_KEY)
    assert_refused(run(signed), "is not valid for this program")
    (folder / SIGNATURE).unlink()
    assert_refused(run(signed), "the signature is missing")
    (folder / SIGNATURE).mkdir()
    assert_refused(run(signed), SIGNATURE)


def change_program(folder, change):
    program = folder / "small-run"
    program.write_bytes(change(program.read_bytes()))


def test_a_program_that_grows_or_changes_is_refused(signed):
    folder, _ = signed
    change_program(folder, lambda data: data + b"\0")
    assert_refused(run(signed), "is not valid for this program")
    # Changes a label. Everything else runs as before.
    change_program(folder, lambda data: data[:-1].replace(b"adipose", b"stroma "))
    assert_refused(run(signed), "is not valid for this program")
    sign(folder)
    assert "stroma " in run(signed).stdout


def test_the_signature_of_another_network_is_refused(signed, built):
    """All other lines of the signature are the same."""
    folder, _ = signed
    message = runner_signature.find(folder).message
    (folder / SIGNATURE).write_bytes(KEY.sign(message.replace(b"_create_", b"_create_0")))
    assert_refused(run(signed), "is not valid for this program")
    (folder / SIGNATURE).write_bytes(KEY.sign(message.replace(b"signature 1", b"signature 2")))
    assert_refused(run(signed), "is not valid for this program")


def test_tcc_explains_how_to_sign_an_unsigned_program(signed):
    folder, emulator = signed
    target_device = make_device("arm-a7" if emulator else "host", signer=None)
    source = make_small_model().graph.inputs[0]
    (first_outputs,) = target_device.run(folder, source, [make_random_image(31, 50)])
    (folder / SIGNATURE).unlink()
    with pytest.raises(UserError) as caught:
        target_device.run(folder, source, [make_random_image(31, 50)])
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "E1365"
    assert "tcc sign BUNDLE --runner-key" in diagnostic.help
    # The builder can run its library in a temporary program.
    names = sorted(os.listdir(folder))
    (rebuilt_outputs,) = replace(target_device, backend=Arm(signer=PUBLIC)).run(
        folder, source, [make_random_image(31, 50)]
    )
    assert first_outputs["logits"].tobytes() == rebuilt_outputs["logits"].tobytes()
    assert sorted(os.listdir(folder)) == names


def test_programs_built_without_a_key_have_no_signature_code():
    runtime_files = c_header.load_runtime_sources("small", frozenset())
    assert not [
        file
        for file, text in runtime_files.items()
        if "sign" in file or "SIGNER" in text or "signature" in text
    ]
