"""`k2 certificates make` and `k2 certificates show`: an authority and what it signed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from k2store.cli.verb import Verb, output
from k2store.errors import Rejected

if TYPE_CHECKING:
    from k2store.rpc.certificates import Files

DAYS_DEFAULT: Final = 730


@click.group("certificates")
def certificates() -> None:
    """Make the certificates of a cluster, and look at them."""


@certificates.command("make", cls=Verb)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--node",
    "nodes",
    multiple=True,
    metavar="NAME=ADDRESS[,ADDRESS...]",
    help="A node's name and the hosts or IP addresses at which it is dialled. Repeat it.",
)
@click.option(
    "--client", "clients", multiple=True, metavar="NAME", help="Name of a client. Repeat it."
)
@click.option(
    "--days",
    type=click.IntRange(min=1, max=3650),
    default=DAYS_DEFAULT,
    show_default=True,
    help="How long they are good.",
)
def make(*, folder: Path, nodes: tuple[str, ...], clients: tuple[str, ...], days: int) -> None:
    """Make certificates for nodes and clients, in FOLDER.

    The authority in FOLDER signs them; it is made when there is none. Certificates that are there
    already are replaced, which renews them.
    """
    from k2store.rpc.certificates import Authority

    wanted = [_node(said) for said in nodes]
    if not wanted and not clients:
        raise click.UsageError("name at least one --node or --client")
    authority = Authority(folder)
    made: list[tuple[str, str, Files]] = [
        (name, "node", authority.node(name, addresses, days=days)) for name, addresses in wanted
    ]
    made += [(name, "client", authority.client(name, days=days)) for name in clients]
    output().table(
        "certificates",
        ("name", "kind", "certificate", "key", "authority"),
        [(name, kind, *(str(path) for path in files)) for name, kind, files in made],
    )


@certificates.command("show", cls=Verb)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def show(*, folder: Path) -> None:
    """Show the certificates in FOLDER: whose they are, for which addresses, and until when."""
    from k2store.rpc.certificates import describe, now

    today = now()
    output().table(
        "certificates",
        ("name", "kind", "addresses", "ends", "days_left"),
        [
            (
                found.name,
                found.kind,
                " ".join(found.addresses),
                found.ends.isoformat(timespec="minutes"),
                (found.ends - today).days,
            )
            for found in (describe(path) for path in sorted(folder.glob("*.pem")))
        ],
    )


def _node(said: str) -> tuple[str, list[str]]:
    name, sign, addresses = said.partition("=")
    hosts = [host.strip() for host in addresses.split(",") if host.strip()]
    if not sign or not name or not hosts:
        raise Rejected(f"--node {said!r}: expected NAME=ADDRESS[,ADDRESS...]", field="node")
    return name, hosts
