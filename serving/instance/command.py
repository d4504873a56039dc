"""`k2 fleet`: workers that share their pages over the directory, and the router in front of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from k2store.cli.reach import StoreVerb, database
from k2store.cli.verb import output
from k2store.config.dial import read_dial
from serving.instance.steps import Role, Step
from serving.sparse.choice import POLICIES

if TYPE_CHECKING:
    from kv_pool.edge.journal import Journal
    from serving.model import LoadedModel

MODEL = "smollm2-135m-instruct"
MODES = ("aggregated", "by-request", "by-layer")

_DIAL: Final = click.option(
    "--dial",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Other workers' pages at other addresses than they say: a line each, real=dialled.",
)
_JOURNAL: Final = click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Take down what the directory is asked for and answers.",
)


@click.command("worker", cls=StoreVerb)
@click.option("--worker", "name", required=True, metavar="REGION/NAME", help="Who it is.")
@click.option("--model", default=MODEL, show_default=True, metavar="NAME", help="See docs; or toy.")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.COLOCATED.value,
    show_default=True,
    help="What it does.",
)
@click.option(
    "--step",
    type=click.Choice([step.value for step in Step]),
    default=Step.CACHING_3.value,
    show_default=True,
    help="Who keeps what, where prefill and decode are apart.",
)
@click.option("--pages", type=click.IntRange(2), default=256, show_default=True, metavar="N")
@click.option("--host-pages", type=click.IntRange(0), default=0, show_default=True, metavar="N")
@click.option("--listen", default="127.0.0.1:0", show_default=True, help="Of its HTTP API.")
@click.option("--pages-at", default="127.0.0.1:0", show_default=True, help="Of its pages.")
@click.option("--advertise", default="", metavar="HOST", help="Host that others are told.")
@click.option("--regions", default="", metavar="NAME[,...]", help="All regions of the fleet.")
@click.option("--lease", type=click.FloatRange(0.3), default=3.0, metavar="SECONDS")
@click.option("--shared-memory/--no-shared-memory", default=True, help="To its machine's workers.")
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default=MODES[0],
    show_default=True,
    help="How pages are cut into calls when they move.",
)
@click.option("--fetch/--no-fetch", default=True, help="Prefixes that others have, where it pays.")
@click.option("--threads", type=click.IntRange(0), default=0, metavar="N", help="Of torch.")
@click.option(
    "--prefill-rate",
    type=click.FloatRange(0),
    default=0.0,
    metavar="TOKENS",
    help="Prompt tokens a second, for the cost model; tried out by default.",
)
@click.option(
    "--link",
    type=click.IntRange(0),
    metavar="ROWS",
    help="Link documents that are named apart, computed once anywhere: so many rows of each anew.",
)
@click.option(
    "--retain",
    type=click.Choice(POLICIES),
    help="Decode under this policy: what of an answer stays, or is attended to.",
)
@click.option(
    "--budget",
    type=click.IntRange(0),
    default=0,
    metavar="TOKENS",
    help="Decoded tokens that stay, or are attended to; no limit by default.",
)
@_DIAL
@_JOURNAL
async def worker(
    *,
    name: str,
    model: str,
    role: str,
    step: str,
    pages: int,
    host_pages: int,
    listen: str,
    pages_at: str,
    advertise: str,
    regions: str,
    lease: float,
    shared_memory: bool,
    mode: str,
    fetch: bool,
    threads: int,
    prefill_rate: float,
    link: int | None,
    retain: str | None,
    budget: int,
    dial: Path | None,
    journal: Path | None,
) -> None:
    """Run a worker that shares its pages with others over the directory, until it is interrupted.

    It answers over HTTP itself, as `k2 serve` does, and for routers of its region. Exit status 4 means that
    the directory has ended its life, because it did not renew its lease in time.
    """
    from serving.api.server import listening
    from serving.engine.assembly import geometry_of, namespace_of
    from serving.instance.instance import InstanceSettings, open_instance
    from serving.instance.place import worker_named
    from serving.instance.serving import serve_instance
    from serving.transport import Mode

    who = worker_named(name)
    loaded = model_named(model, threads)
    settings = InstanceSettings(
        region=who.region,
        name=who.name,
        regions=tuple(filter(None, regions.split(","))),
        role=Role(role),
        step=Step(step),
        pages=pages,
        host_pages=host_pages,
        listen=pages_at,
        advertise=advertise,
        dial={} if dial is None else dict(read_dial(dial)),
        shares_memory=shared_memory,
        mode=Mode[mode.upper().replace("-", "_")],
        fetches=fetch,
        lease_s=lease,
        prefill_tokens_per_s=prefill_rate,
        link=link,
        retain=retain or "",
        budget=budget,
    )
    sock = listening(listen)
    http = f"{advertise or listen.rpartition(':')[0]}:{sock.getsockname()[1]}"
    async with (
        database() as db,
        open_instance(
            db,
            settings,
            loaded.model,
            namespace=namespace_of(loaded, geometry_of(loaded.model)),
            http=http,
            decode=loaded.tokenizer.decode,
            journal=_journal(journal, name),
        ) as instance,
    ):
        output().document(
            {"worker": name, "http": f"http://{http}", "pages": list(instance.links.addresses)},
            f"{name} answers at http://{http}",
        )
        await serve_instance(sock, instance, loaded)


@click.command("router", cls=StoreVerb)
@click.option("--region", required=True, metavar="NAME", help="Whose workers it asks.")
@click.option("--model", default=MODEL, show_default=True, metavar="NAME", help="What they serve.")
@click.option("--listen", default="127.0.0.1:8080", show_default=True, help="Of its HTTP API.")
@click.option("--policy", default="cost", show_default=True, metavar="NAME", help="Of placing.")
@click.option(
    "--prefill-rate",
    type=click.FloatRange(1),
    default=250.0,
    show_default=True,
    metavar="TOKENS",
    help="Prompt tokens a second of a worker, for the policy.",
)
@click.option(
    "--spill/--no-spill",
    default=True,
    show_default=True,
    help="Ask workers of other regions while none of the own one takes requests.",
)
@_DIAL
@_JOURNAL
async def router(
    *,
    region: str,
    model: str,
    listen: str,
    policy: str,
    prefill_rate: float,
    spill: bool,
    dial: Path | None,
    journal: Path | None,
) -> None:
    """Answer in front of a region's workers, and place each request where it is cheapest.

    The API is the workers' own. A worker that is lost in the middle of an answer is replaced by another one, which goes
    on behind the tokens that were told; by one of another region where its own has none left. The header x-session-id
    names a conversation for policies that go by it.
    """
    from serving.api.server import listening
    from serving.router.fleet import FleetSettings
    from serving.router.serving import serve_router

    loaded = model_named(model, 1)
    sock = listening(listen)
    http = f"{listen.rpartition(':')[0]}:{sock.getsockname()[1]}"
    async with database() as db:
        await serve_router(
            db,
            sock,
            loaded,
            region=region,
            settings=FleetSettings(policy=policy, spills=spill),
            dial={} if dial is None else read_dial(dial),
            journal=_journal(journal, f"router {region}"),
            prefill_tokens_per_s=prefill_rate,
            on_ready=lambda: output().document(
                {"router": region, "http": f"http://{http}"},
                f"the router of {region} answers at http://{http}",
            ),
        )


@click.group("fleet")
def fleet() -> None:
    """Workers that share their pages, and the router in front of them."""


fleet.add_command(worker)
fleet.add_command(router)


def _journal(path: Path | None, name: str) -> Journal | None:
    """The journal of this process, if one is wanted: a restart goes on in the same file."""
    if path is None:
        return None
    from kv_pool.edge.journal import Journal

    return Journal(path, f"{name} {os.getpid()}")


def model_named(name: str, threads: int) -> LoadedModel:
    """A model by name; `threads` of torch for it, 0 for as many as torch likes."""
    import torch

    from serving.model import load
    from serving.model.toy import TOY, toy

    if threads:
        torch.set_num_threads(threads)
    return toy() if name == TOY else load(name)
