"""`k2 node run` and `k2 node drain`: the life of one node."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

import click

from k2store.cli.remote import admin
from k2store.cli.verb import Verb, output, settings
from k2store.config import Duration

if TYPE_CHECKING:
    from k2store.node.process import Ready

LOOK_INTERVAL_S: Final = 0.1
"""Between two looks at whether a draining node is still there."""


@click.group("node")
def node() -> None:
    """Run a node, or make one end in an orderly way."""


@node.command("run", cls=Verb)
@click.option("--data", metavar="DIR", help="Folder of the data (node.data).")
@click.option("--listen", metavar="HOST:PORT", help="Address of the gRPC port (node.listen).")
@click.option("--admin", metavar="HOST:PORT", help="Address of the HTTP port (admin.listen).")
@click.option("--name", metavar="NAME", help="The node's name (node.name).")
@click.option(
    "--services", metavar="NAME,...", help="Services of other packages, too (node.services)."
)
@click.option(
    "--insecure",
    is_flag=True,
    default=None,
    help="Listen beyond loopback without TLS (tls.insecure).",
)
def run(
    *,
    data: str | None,
    listen: str | None,
    admin: str | None,
    name: str | None,
    services: str | None,
    insecure: bool | None,
) -> None:
    """Serve until told to end: SIGTERM or Ctrl-C drains, a second one ends at once.

    Prints one line when the node can be used; with --json, that line is a JSON document. Logs go
    to the error stream.
    """
    loaded = settings(
        {
            "node.data": data,
            "node.listen": listen,
            "node.name": name,
            "node.services": services,
            "admin.listen": admin,
            "tls.insecure": insecure,
        }
    )
    from k2store.node.launch import launch

    launch(loaded.settings, on_ready=say_ready)


def say_ready(ready: Ready) -> None:
    """Print what a node tells when it can be used, and let the reader have it now."""
    import msgspec

    output().document(msgspec.to_builtins(ready), ready.line())
    sys.stdout.flush()


@node.command("drain", cls=Verb)
@click.option("--address", metavar="HOST:PORT", help="The node (client.endpoint).")
@click.option(
    "--grace", metavar="DURATION", help="Time for open transactions, instead of the node's own."
)
@click.option("--wait", is_flag=True, help="Return when the node has gone, not when it begins.")
def drain(*, address: str | None, grace: str | None, wait: bool) -> None:
    """Make a node take no new work, finish what is open, and end.

    Returns when the node has begun to drain; with --wait, when it no longer answers.
    """
    loaded = settings({"client.endpoint": address})
    try:
        grace_ms = 0 if grace is None else max(1, int(Duration.parse(grace)) // 1_000_000)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--grace") from None
    with admin(loaded.settings) as remote:
        incarnation = remote.status().incarnation if wait else b""
        remote.drain(grace_ms)
        output().document(
            {"draining": remote.address}, f"{remote.address} drains and will end by itself"
        )
        sys.stdout.flush()
        while wait and remote.is_there(incarnation):
            time.sleep(LOOK_INTERVAL_S)
