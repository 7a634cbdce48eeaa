"""The signature that a runner program checks when it starts: its key, and the signed message.

Monocypher 4.0.3 (https://monocypher.org, BSD-2-Clause or CC0) verifies it. `runtime/monocypher`
has two of its files, from the release `pymonocypher` 4.0.3.4 on PyPI, and its licence. These lack
the hash of Ed25519, which is in `runtime/ed25519.h`.
"""

import hashlib
from importlib.resources import files
from pathlib import Path

from tcc.backends.arm.codegen import operating_point
from tcc.backends.arm.machine import PROGRAM_SUFFIX
from tcc.compiler.ir.backend import RunnerSignature
from tcc.compiler.support import ed25519_pem, regular_files
from tcc.compiler.support.diagnostics import fail, make_file_span

LIBRARY, LIBRARY_VERSION = "monocypher", "4.0.3"
UNITS = ("monocypher.c",)
"""C files of the library, compiled into a program with the check."""
LIBRARY_FILES = (*UNITS, "monocypher.h")
CHECK_HEADER, HASH_HEADER = "signature.h", "ed25519.h"
"""The C of the check, which defines `check_signature`, and of its hash."""


def render_sources(name: str, public_key: bytes) -> dict[str, str]:
    """Return the additional files of a program with the signature check, by path.

    Args:
        name: The model's name.
        public_key: The 32 bytes of the public key.
    """
    folder = files("tcc.backends.arm") / "runtime"
    library = folder / LIBRARY
    texts = {file: (library / file).read_text("utf-8") for file in LIBRARY_FILES}
    texts["LICENCE-monocypher.txt"] = (library / "LICENSE.txt").read_text("utf-8")
    texts["signer.h"] = _write_header(public_key)
    return {
        f"{name}{PROGRAM_SUFFIX}.pem": ed25519_pem.encode(public_key),
        **{f"src/{file}": text for file, text in texts.items()},
    }


def find(folder: Path) -> RunnerSignature | None:
    """Return the signature that the program in a folder needs; None if it needs none.

    Raises:
        UserError: The artifact is damaged (E0652).
    """
    keys = sorted(folder.glob(f"*{PROGRAM_SUFFIX}.pem"))
    if not keys:
        return None
    name, network = operating_point.read_network(folder)
    program = f"{name}{PROGRAM_SUFFIX}"
    lines = [
        "tcc runner signature 1",
        f"network {network}",
        _describe_file(folder, program),
    ]
    message = "".join(f"{line}\n" for line in lines).encode()
    return RunnerSignature(f"{program}.sig", _read_key(keys[0]), message)


def _describe_file(folder: Path, name: str) -> str:
    """Return a file's line of the message: name, size and SHA-512."""
    with regular_files.open_file(folder / name) as file:
        content = file.read()
    return f"{name} {len(content)} {hashlib.sha512(content).hexdigest()}"


def _write_header(public_key: bytes) -> str:
    rows = (public_key[at : at + 8] for at in range(0, ed25519_pem.KEY_BYTES, 8))
    hex_rows = "".join(f"    {', '.join(f'0x{byte:02x}' for byte in row)},\n" for row in rows)
    return (
        "/* The Ed25519 public key that the program checks its signature with. */\n"
        f"static const unsigned char signer[{ed25519_pem.KEY_BYTES}] = {{\n{hex_rows}}};\n"
    )


def _read_key(path: Path) -> bytes:
    with regular_files.open_file(path) as file:
        public_key = ed25519_pem.decode(file.read(ed25519_pem.MAX_BYTES))
    if public_key is None:
        message = "the public key of the runner program is damaged"
        raise fail("E0652", message, make_file_span(str(path)), help="build the bundle again")
    return public_key
