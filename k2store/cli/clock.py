"""`k2 clock`: where time comes from, how uncertain it is, and what that costs a commit."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from msgspec import Struct

from k2store.cli.exits import Exit
from k2store.cli.verb import Verb, output, settings
from k2store.config import Duration
from k2store.errors import ClockUncertain

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from k2store.clock import Clock
    from k2store.config import Settings
    from k2store.config.settings import Clock as ClockSettings


class ClockStatus(Struct, frozen=True, kw_only=True):
    """One look at a clock, as ``--json`` prints it.

    asked                       ``this machine``, or the address of the node that answered
    source, assumed             where the bound comes from; True when it is somebody's word
    lo_ns, hi_ns, bound_ns      the interval and its width; None when there is none
    bound_ns_max                no stamp is given while the interval is wider; None if not told
    ahead_ns_max                D: how far a stamp may lie ahead of true time
    refusal                     why no stamp can be given now; None when one can
    detail                      what the clock says about itself
    commit_wait_node_ns         from the begin to the earliest answer when the node stamps
    commit_wait_batch_ns        the same for a client that stamps from a fresh batch
    commits, commit_wait_*      what commits of the node have paid so far; None for this machine
    """

    asked: str
    source: str
    assumed: bool
    lo_ns: int | None
    hi_ns: int | None
    bound_ns: int | None
    bound_ns_max: int | None
    ahead_ns_max: int
    refusal: str | None
    detail: str
    commit_wait_node_ns: int | None
    commit_wait_batch_ns: int | None
    commits: int | None = None
    commit_wait_ns_mean: int | None = None
    commit_wait_ns_max: int | None = None


class NodeAnswer(Struct, frozen=True, kw_only=True):
    """What a node says of its clock: the fields of ``GetClockResponse`` that are needed."""

    source: str
    assumed: bool
    lo_ns: int
    hi_ns: int
    ahead_ns_max: int
    refusal: str = ""
    commits: int = 0
    commit_wait_ns_total: int = 0
    commit_wait_ns_max: int = 0


@click.command("clock", cls=Verb)
@click.option("--watch", is_flag=True, help="Look again and again, until interrupted.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--count", type=click.IntRange(min=1), help="With --watch: stop after so many looks.")
@click.option("--address", metavar="HOST:PORT", help="Ask this node, instead of this machine.")
def clock(*, watch: bool, interval_s: float, count: int | None, address: str | None) -> None:
    """Show where time comes from, how uncertain it is, and the commit wait that it implies.

    Without --address it is the clock that a node on this machine would have, by the settings in
    force. Exit code 3 while the clock is too uncertain to give stamps.
    """
    loaded = settings({"client.endpoint": address}).settings
    looks = itertools.count() if count is None else range(count)
    with _clock(loaded, remotely=address is not None) as look:
        for number in looks if watch else range(1):
            if number:
                time.sleep(interval_s)
            status = look()
            document = msgspec.to_builtins(status)
            if watch:
                output().record(document, line(status))
            else:
                output().document(document, page(status))
    if status.refusal is not None:
        click.get_current_context().exit(Exit.UNAVAILABLE)


@contextmanager
def _clock(loaded: Settings, *, remotely: bool) -> Iterator[Callable[[], ClockStatus]]:
    """A function that takes one look at the clock of the node, or of this machine."""
    if remotely:
        from k2store.cli.remote import admin

        with admin(loaded) as remote:
            yield lambda: of_node(remote.address, fields_of(remote.clock()))
        return
    from k2store.clock import open_clock

    file = loaded.clock.file
    source = open_clock(
        loaded.clock.source, bound_ns=loaded.clock.bound, path=Path(file) if file else None
    )
    yield lambda: of_machine(source, loaded.clock)


def fields_of(answer: Message) -> dict[str, object]:
    """A message by field name, fields that are at their default included."""
    return {field.name: getattr(answer, field.name) for field in answer.DESCRIPTOR.fields}


def of_machine(source: Clock, loaded: ClockSettings) -> ClockStatus:
    """A look at a clock of this machine, judged by the settings in force."""
    lo_ns: int | None
    hi_ns: int | None
    try:
        lo_ns, hi_ns = source.read()
        bound_ns = hi_ns - lo_ns
        refusal = None
        if bound_ns > loaded.bound_max:
            refusal = f"{Duration(bound_ns)} is wider than clock.bound_max {loaded.bound_max}"
    except ClockUncertain as error:
        lo_ns = hi_ns = bound_ns = None
        refusal = error.message
    described = source.source
    return ClockStatus(
        asked="this machine",
        source=described.name,
        assumed=described.assumed,
        lo_ns=lo_ns,
        hi_ns=hi_ns,
        bound_ns=bound_ns,
        bound_ns_max=int(loaded.bound_max),
        ahead_ns_max=int(loaded.ahead_max),
        refusal=refusal,
        detail=described.detail,
        commit_wait_node_ns=bound_ns,
        commit_wait_batch_ns=None if bound_ns is None else bound_ns + int(loaded.stamp_ttl),
    )


def of_node(address: str, answer: Mapping[str, object]) -> ClockStatus:
    """A node's answer to GetClock, by field name, in the form that this verb prints.

    Raises ``msgspec.ValidationError`` when the answer lacks a field or has one of another type.
    """
    told = msgspec.convert(dict(answer), NodeAnswer)
    bound_ns = told.hi_ns - told.lo_ns if told.hi_ns else None
    return ClockStatus(
        asked=address,
        source=told.source,
        assumed=told.assumed,
        lo_ns=told.lo_ns or None,
        hi_ns=told.hi_ns or None,
        bound_ns=bound_ns,
        bound_ns_max=None,
        ahead_ns_max=told.ahead_ns_max,
        refusal=told.refusal or None,
        detail="as the node says",
        commit_wait_node_ns=bound_ns,
        commit_wait_batch_ns=None,
        commits=told.commits,
        commit_wait_ns_mean=told.commit_wait_ns_total // told.commits if told.commits else 0,
        commit_wait_ns_max=told.commit_wait_ns_max,
    )


def page(status: ClockStatus) -> str:
    """One look, for people."""
    source = f"{status.source}{' (assumed)' if status.assumed else ''}"
    if status.detail != status.refusal:
        source += f": {status.detail}"
    lines = [
        ("clock of", status.asked),
        ("source", source),
        ("bound", _bound(status)),
        ("D", f"a stamp lies at most {Duration(status.ahead_ns_max)} ahead of true time"),
    ]
    if status.refusal is not None:
        lines.append(("refused", status.refusal))
    elif status.commit_wait_node_ns is not None:
        text = f"over {Duration(status.commit_wait_node_ns)} after the begin"
        if status.commit_wait_batch_ns is not None:
            text += f"; {Duration(status.commit_wait_batch_ns)} with a stamp from a batch"
        lines.append(("commit wait", text + "; the time a transaction works counts towards it"))
    if status.commits is not None:
        mean, worst = status.commit_wait_ns_mean or 0, status.commit_wait_ns_max or 0
        paid = f"{status.commits} commits, mean {Duration(mean)}, longest {Duration(worst)}"
        lines.append(("paid", paid))
    return "\n".join(f"{name:<12} {text}" for name, text in lines)


def line(status: ClockStatus) -> str:
    """One of many looks, for people."""
    source = f"{status.source}{' (assumed)' if status.assumed else ''}"
    if status.refusal is not None:
        return f"{source}  refused: {status.refusal}"
    return f"{source}  bound {_bound(status)}  lo {status.lo_ns}  hi {status.hi_ns}"


def _bound(status: ClockStatus) -> str:
    if status.bound_ns is None:
        return "none"
    limit = "" if status.bound_ns_max is None else f" (at most {Duration(status.bound_ns_max)})"
    return f"{Duration(status.bound_ns)}{limit}"
