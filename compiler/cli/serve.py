"""`tcc serve`: a page that `tcc build --target web` wrote, on this machine."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tcc.compiler.cli.common_options import Json, Quiet, Verbose
from tcc.compiler.cli.run import BundleArgument
from tcc.compiler.support.console import Report
from tcc.compiler.support.diagnostics import fail, typed, whole_file

if TYPE_CHECKING:
    from tcc.compiler.bundle.bundle_folder import Bundle
    from tcc.compiler.support.static_server import StaticServer

PAGE = "index.html"
Host = Annotated[
    str,
    typer.Option("--host", metavar="ADDRESS", help="Address to listen on: others may be let in."),
]
Port = Annotated[
    int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")
]


def serve(
    bundle: BundleArgument,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Serve the page of a bundle for `web`, until it is interrupted.

    Only the bundle's own files are served, and to this machine alone unless `--host` says more.
    """
    from tcc.compiler.support.static_server import LOOPBACK
    from tcc.compiler.targets import devices

    report = Report(json, quiet, verbose)
    found, _ = devices.load(bundle, devices.signature_policy())
    with server(found, host, port) as listening:
        if host not in LOOPBACK:
            report.notice(
                "whoever reaches this machine can open the page; over http, browsers do not let it"
                " use the camera there"
            )
        report.text(listening.url)
        report.document({"url": listening.url, "bundle": str(bundle)})
        sys.stdout.flush()  # whoever waits for it through a pipe goes on from here
        report.note("Ctrl-C ends it")
        listening.serve_forever()


def server(bundle: "Bundle", host: str, port: int) -> "StaticServer":
    """Return what serves the page of a bundle.

    Raises:
        UserError: It has no page (E0659), or the address cannot be listened on (E0661).
    """
    from tcc.compiler.bundle.bundle_folder import MODEL
    from tcc.compiler.bundle.manifest import NAME
    from tcc.compiler.support.static_server import StaticServer

    paths = [NAME, *(file.path for file in bundle.manifest.files)]
    page = f"{MODEL}/{PAGE}"
    if page not in paths:
        message = f"a bundle for {bundle.manifest.target} has no page to serve"
        where = whole_file(str(bundle.folder))
        raise fail("E0659", message, where, help="build one with `tcc build --target web`")
    files: dict[str, Path] = {path: bundle.folder / path for path in paths}
    try:
        return StaticServer(host, port, files, page)
    except (OSError, TypeError, ValueError) as error:  # a name that is no name is one of these
        reason = getattr(error, "strerror", None) or "it is no address"
        message = f"cannot listen on {host[:80]}, port {port}: {reason}"
        help = "choose another with --port, or --port 0 for a free one"
        raise fail("E0661", message, typed("--port"), help=help) from error
