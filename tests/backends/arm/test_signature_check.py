"""The compiled signature check, as built into programs, against another implementation."""

import random
import shutil
import subprocess
from importlib.resources import files

import pytest

from tcc.backends.arm.codegen import runner_signature, zig
from tcc.backends.arm.machine import MACHINES
from tcc.compiler.support import ed25519_pem

ed25519 = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
pytest.importorskip("ziglang")
# tests/backends/arm/test_runner_signature.py runs signed programs among the fast tests.
pytestmark = pytest.mark.slow

ORDER = 2**252 + 27742317777372353535851937790883648493
CHECK = r"""
#include <stdint.h>
#include <stdio.h>
#include "ed25519.h"
static uint8_t head[100], message[1 << 16];
int main(void)
{
    while (fread(head, 1, 100, stdin) == 100) {
        size_t size = head[96] | head[97] << 8;
        if (fread(message, 1, size, stdin) != size)
            return 1;
        putchar(ed25519_verify(head + 32, head, message, size) ? '1' : '0');
    }
    return 0;
}
"""


@pytest.fixture(scope="module", params=["host", "arm-a7"])
def check(request, tmp_path_factory):
    """Returns whether the compiled check accepts each (key, signature, message)."""
    emulator = () if request.param == "host" else ("qemu-arm",)
    if emulator and not shutil.which(*emulator):
        pytest.skip("needs qemu-arm")
    folder = tmp_path_factory.mktemp(request.param)
    library = files("tcc.backends.arm") / "runtime" / runner_signature.LIBRARY
    for file in runner_signature.LIBRARY_FILES:
        (folder / file).write_text((library / file).read_text("utf-8"), "utf-8")
    header = files("tcc.backends.arm") / "runtime" / runner_signature.HASH_HEADER
    (folder / runner_signature.HASH_HEADER).write_text(header.read_text("utf-8"))
    (folder / "check.c").write_text(CHECK)
    (machine,) = (m for m in MACHINES if m.target.name == request.param)
    options = (
        *machine.get_zig_target("musl"),
        *zig.COMPILE_OPTIONS,
        f"-mcpu={machine.cpu}",
        "-static",
    )
    zig.run(folder, "cc", *options, "check.c", *runner_signature.UNITS, "-o", "check")

    def run_check(cases):
        stream = b"".join(
            key + signature + len(message).to_bytes(4, "little") + message
            for key, signature, message in cases
        )
        command = [*emulator, folder / "check"]
        completed = subprocess.run(
            command, input=stream, capture_output=True, check=True, timeout=300
        )
        assert len(completed.stdout) == len(cases)
        return [byte == ord("1") for byte in completed.stdout]

    return run_check


def generate_pairs(count, seed):
    """Yield keys, signatures and messages of every length up to more than a hash block."""
    rng = random.Random(seed)
    for number in range(count):
        key = ed25519.Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))
        message = rng.randbytes(number if number < 300 else rng.randrange(1 << 14))
        yield key.public_key().public_bytes_raw(), key.sign(message), message


def test_valid_signatures_are_accepted(check):
    cases = list(generate_pairs(400, 1))
    assert check(cases) == [True] * len(cases)


def test_test_vectors_of_rfc_8032_are_accepted(check):
    vectors = [
        ("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
         "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b", ""),
        ("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
         "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00", "72"),
    ]  # fmt: skip
    assert check([tuple(map(bytes.fromhex, vector)) for vector in vectors]) == [True, True]


def test_any_changed_bit_is_refused(check):
    rng, cases = random.Random(2), []
    for key, signature, message in generate_pairs(120, 3):
        cases.append((key, flip_bit(signature, rng.randrange(512)), message))
        cases.append((flip_bit(key, rng.randrange(256)), signature, message))
        cases.append((key, signature, message + b"\0"))
        if message:
            cases.append((key, signature, flip_bit(message, rng.randrange(8 * len(message)))))
    assert not any(check(cases))


def test_non_canonical_signatures_are_refused(check):
    """S + k L passes a naive check, but only one form of a signature is valid (RFC 8032)."""
    cases = []
    for key, signature, message in generate_pairs(100, 4):
        number = int.from_bytes(signature[32:], "little")
        forms = (number + times * ORDER for times in range(1, 16))
        cases += [
            (key, signature[:32] + form.to_bytes(32, "little"), message)
            for form in forms
            if form < 2**256
        ]
    assert len(cases) > 1000
    assert not any(check(cases))


def flip_bit(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_random_input_gives_the_verdict_of_cryptography(check):
    rng = random.Random(5)
    cases = [(rng.randbytes(32), rng.randbytes(64), rng.randbytes(40)) for _ in range(200)]
    assert check(cases) == [is_verified(*case) for case in cases]


def is_verified(key, signature, message):
    from cryptography.exceptions import InvalidSignature

    try:
        ed25519.Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def test_only_openssl_public_keys_are_read():
    from cryptography.hazmat.primitives import serialization

    key = ed25519.Ed25519PrivateKey.generate().public_key()
    raw, form = key.public_bytes_raw(), serialization.PublicFormat.SubjectPublicKeyInfo
    pem = key.public_bytes(serialization.Encoding.PEM, form)
    assert ed25519_pem.encode(raw).encode() == pem
    assert ed25519_pem.decode(pem) == ed25519_pem.decode(pem.replace(b"\n", b"\r\n")) == raw
    for invalid_pem in (
        b"",
        pem[:-30],
        pem + pem,
        b"x" + pem,
        pem.replace(b"PUBLIC", b"PRIVATE"),
        raw,
    ):
        assert ed25519_pem.decode(invalid_pem) is None
