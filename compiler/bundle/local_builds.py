"""Bundles that were built here and need no signature, although a key is trusted for their network.

Where the user says whose key signs a network, a bundle of it without a signature is one whose
signature was taken away, unless it was built here.
"""

from contextlib import suppress

from tcc.compiler.support import trust_list, user_folders
from tcc.compiler.support.diagnostics import UserError


def note(network: str, manifest_digest: str) -> None:
    """Note a bundle that was built just now, where a key is trusted for its network.

    Args:
        network: The network's name.
        manifest_digest: The SHA-256 of the manifest's bytes, in hex.
    """
    # A list that is not believed is said when the bundle is opened: this one is written already.
    with suppress(UserError):
        if trust_list.read().names(network):
            user_folders.LOCAL_BUILDS.add((manifest_digest,))


def has(manifest_digest: str) -> bool:
    """Whether the bundle of this manifest was built here."""
    return user_folders.LOCAL_BUILDS.has(manifest_digest)
