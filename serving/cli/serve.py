"""`k2 serve`: one worker with the OpenAI API."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from k2store.cli.verb import Verb, output
from k2store.errors import Rejected
from serving.sparse.choice import POLICIES, policy_named

if TYPE_CHECKING:
    from serving.sparse.policies import Policy

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("serve", cls=Verb)
@click.option(
    "--model",
    default="smollm2-135m-instruct",
    show_default=True,
    metavar="NAME|FILE",
    help="A model by name, or a GGUF file.",
)
@click.option("--name", metavar="NAME", help="What callers call it; the model's name by default.")
@click.option(
    "--listen",
    default="127.0.0.1:8000",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to answer HTTP; port 0 takes a free one.",
)
@click.option(
    "--exposed",
    is_flag=True,
    help="Allow an address that others reach: there is no encryption.",
)
@click.option(
    "--key-file", type=FILE, help="Callers must show the key in this file (Authorization: Bearer)."
)
@click.option("--pages", default=512, show_default=True, help="Pages of 16 tokens on the device.")
@click.option("--host-pages", default=512, show_default=True, help="Pages below it in memory.")
@click.option("--disk-pages", default=0, show_default=True, help="Pages below those on disk.")
@click.option(
    "--disk-file", type=FILE, help="The file of the pages on disk, made anew at every start."
)
@click.option(
    "--eviction",
    type=click.Choice(["lru", "cost"]),
    default="lru",
    show_default=True,
    help="Which page goes first: unused for longest, or cheapest to compute again for its use.",
)
@click.option("--sequences", default=16, show_default=True, help="Requests that run at a time.")
@click.option("--waiting", default=256, show_default=True, help="Requests that may wait.")
@click.option(
    "--step-tokens", default=512, show_default=True, help="Tokens that one step computes."
)
@click.option(
    "--context", default=0, help="Longest prompt and answer together; the model's own by default."
)
@click.option(
    "--answer-tokens",
    default=1_024,
    show_default=True,
    help="Longest answer of a chat that does not say.",
)
@click.option("--threads", type=int, help="Threads that compute; one for each core by default.")
@click.option("--forget", is_flag=True, help="Keep nothing for later prompts: compute each whole.")
@click.option(
    "--link",
    type=click.IntRange(0),
    metavar="ROWS",
    help="Link documents that are named apart, computed once: so many rows of each anew.",
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
def serve(
    *,
    model: str,
    name: str | None,
    listen: str,
    exposed: bool,
    key_file: Path | None,
    pages: int,
    host_pages: int,
    disk_pages: int,
    disk_file: Path | None,
    eviction: str,
    sequences: int,
    waiting: int,
    step_tokens: int,
    context: int,
    answer_tokens: int,
    threads: int | None,
    forget: bool,
    link: int | None,
    retain: str | None,
    budget: int,
) -> None:
    """Serve a model over the OpenAI API until told to end.

    Prints one line when requests are welcome; with --json, that line is a JSON document. SIGTERM and Ctrl-C
    give answers that are under way a few seconds.
    """
    _at_least(1, {"pages": pages, "answer-tokens": answer_tokens, "threads": threads})
    _at_least(0, {"host-pages": host_pages, "disk-pages": disk_pages, "context": context})
    if bool(disk_pages) != bool(disk_file):
        raise Rejected("--disk-pages and --disk-file go together", field="disk-file")
    if forget and link is not None:
        raise Rejected("who keeps nothing has nothing to link: --forget or --link", field="link")
    if not (exposed or _is_loopback(listen)):
        raise Rejected(f"{listen} can be reached by others: say --exposed", field="listen")
    key = _key(key_file)
    from serving.engine.settings import EngineSettings

    settings = EngineSettings(
        step_tokens_max=step_tokens,
        sequences_max=sequences,
        waiting_max=waiting,
        context_tokens=context,
        keeps_prefixes=not forget,
    )
    settings.check()
    policy = _policy(retain, budget)
    import torch

    from serving.api.app import Limits
    from serving.api.server import listening, run
    from serving.engine.assembly import Tiers, engine_over
    from serving.model import load

    if threads is not None:
        torch.set_num_threads(threads)
    sock = listening(listen)
    output().note(f"loading {model}")
    loaded = load(model)
    tiers = Tiers(device=pages, host=host_pages, disk=disk_pages, disk_path=disk_file)
    called = name or loaded.name
    url = f"http://{_shown(sock.getsockname())}/v1"
    run(
        sock,
        engine_over(loaded, tiers, settings, eviction=eviction, link=link, policy=policy),
        called,
        loaded.tokenizer,
        limits=Limits(answer_tokens=answer_tokens),
        key=key,
        on_ready=lambda: output().record(
            {"url": url, "model": called}, f"serving {called} at {url}"
        ),
    )


def _policy(retain: str | None, budget: int) -> Policy | None:
    """The policy that answers are decoded under, if there is one."""
    if retain is None:
        if budget:
            raise Rejected("a budget is one of a policy: --retain", field="budget")
        return None
    from serving.pages.geometry import PAGE_TOKENS

    return policy_named(retain, budget, PAGE_TOKENS)


def _at_least(least: int, values: dict[str, int | None]) -> None:
    for option, value in values.items():
        if value is not None and value < least:
            raise Rejected(f"--{option} is at least {least}", field=option)


def _key(path: Path | None) -> str:
    """The key in a file; empty without one."""
    if path is None:
        return ""
    try:
        key = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"cannot read {path}: {error}", field="key-file") from None
    if not key:
        raise Rejected(f"{path} holds no key", field="key-file")
    return key


def _is_loopback(listen: str) -> bool:
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(address: tuple[str, int]) -> str:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{host}:{address[1]}"
