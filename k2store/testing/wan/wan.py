"""The owner's handle on an emulated network: `open_wan`, `Wan`."""

from __future__ import annotations

import contextlib
import re
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from k2store.errors import K2Error, Rejected, Unavailable
from k2store.testing.wan import addresses, namespaces
from k2store.testing.wan.link import LinkCounts, LinkRule
from k2store.testing.wan.matrix import DEFAULT_REGIONS, ROUND_TRIPS_MS, round_trip_ms
from k2store.testing.wan.orders import (
    Count,
    Counted,
    Failed,
    Listen,
    Listening,
    Order,
    Ready,
    Reply,
    SetRule,
    Setup,
    decode_reply,
    encode,
)

Kind = Literal["namespaces", "proxy"]

ANSWER_S: Final = 15.0
END_S: Final = 10.0
JITTER_MS: Final = 1.0
_REGION: Final = re.compile(r"[a-z0-9-]{1,20}")


def open_wan(
    regions: Sequence[str] = DEFAULT_REGIONS,
    *,
    kind: Kind | None = None,
    round_trips_ms: Mapping[frozenset[str], float] = ROUND_TRIPS_MS,
    jitter_ms: float = JITTER_MS,
    seed: int = 0,
) -> Wan:
    """A network between regions, for ``with``.

    kind            how it is made; None takes namespaces where they can be had, else the proxy
    round_trips_ms  of each pair of regions; the table of :mod:`~k2store.testing.wan.matrix` unless
                    given
    jitter_ms       most that a piece takes longer than half a round trip
    seed            of jitter and loss

    Raises `Rejected` for regions without a name or figure, `Unavailable` where the kind that was
    asked for cannot be had.
    """
    if not 1 <= len(regions) <= addresses.REGIONS_MAX or len(set(regions)) != len(regions):
        raise Rejected(
            f"1 to {addresses.REGIONS_MAX} regions with different names are possible",
            field="regions",
        )
    for region in regions:
        if _REGION.fullmatch(region) is None:
            raise Rejected(f"{region!r} is no name of a region: {_REGION.pattern}", field="regions")
    refusal = namespaces.refusal()
    if kind == "namespaces" and refusal is not None:
        raise Unavailable(refusal)
    chosen: Kind = kind or ("proxy" if refusal else "namespaces")
    rules = {
        (source, target): LinkRule(
            delay_s=round_trip_ms(source, target, round_trips_ms) / 2000,
            jitter_s=jitter_ms / 1000 if source != target else 0.0,
        )
        for source in regions
        for target in regions
    }
    return Wan(tuple(regions), chosen, rules, seed)


class Wan:
    """See `open_wan`. Each verb on a link is about one direction, from `source` to `target`.

    Not for several threads at once. A verb returns when its rule is in force, in well under a
    millisecond unless the engine is busy.
    """

    def __init__(
        self,
        regions: tuple[str, ...],
        kind: Kind,
        rules: dict[tuple[str, str], LinkRule],
        seed: int,
    ) -> None:
        self.regions = regions
        self.kind = kind
        self._rules = rules
        self._calm = dict(rules)
        self._seed = seed
        self._engine: subprocess.Popen[bytes] | None = None
        self._slot = 0
        self._placed: dict[str, str] = {}
        self._proxied: dict[tuple[str, str], str] = {}

    def __repr__(self) -> str:
        return f"<Wan {self.kind} {' '.join(self.regions)}>"

    # ------------------------------------------------------------------------------- life

    def __enter__(self) -> Self:
        module = "router" if self.kind == "namespaces" else "proxy"
        self._engine = subprocess.Popen(
            [sys.executable, "-m", f"k2store.testing.wan.{module}"],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C is for the owner, who still needs the network while it stops its nodes.
            start_new_session=True,
        )
        try:
            ready = self._ask(Setup(list(self.regions), self._seed))
            assert isinstance(ready, Ready), "the first answer says where the network is"
            self._slot = ready.slot
            for source, target in self._rules:
                self._send(source, target)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the network down. Returns when nothing of it is left; again does nothing."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        assert engine.stdin is not None
        assert engine.stdout is not None
        assert engine.stderr is not None
        with contextlib.suppress(BrokenPipeError):
            engine.stdin.close()
        try:
            engine.wait(END_S)
        except subprocess.TimeoutExpired:
            engine.kill()
            engine.wait()
            if self.kind == "namespaces":
                namespaces.clear(self._slot)
        engine.stdout.close()
        engine.stderr.close()

    # ------------------------------------------------------------------------------ places

    def host(self, region: str, number: int = 1) -> str:
        """The IP address at which a process in `region` listens; `number` 1..14 tells several."""
        index = self._index(region)
        if not 1 <= number <= addresses.NUMBER_MAX:
            raise Rejected(f"a region has {addresses.NUMBER_MAX} addresses", field="number")
        if self.kind == "proxy":
            return "127.0.0.1"
        return addresses.address(self._slot, index, number)

    def hosts(self, region: str, number: int = 1) -> list[str]:
        """Every address at which the holder of `host` may be dialled: names for its certificate."""
        own = self.host(region, number)
        if self.kind == "proxy":
            return [own]
        return [addresses.seen_from(own, viewer) for viewer in range(len(self.regions) + 1)]

    def place(self, region: str, address: str) -> None:
        """Say that ``host:port`` is in a region, which an address between namespaces says itself."""
        self._index(region)
        self._placed[address] = region

    def address(self, viewer: str, real: str) -> str:
        """``host:port`` at which a process that stands in `viewer` dials the process at `real`.

        In the proxy that is a port of its own. Between namespaces, a process inside the viewer's
        dials `real` itself as well; a process outside, such as a test, is taken to stand in
        `viewer` when it dials what this gives (the other must then listen on every address).
        """
        index = self._index(viewer)
        if self.kind == "namespaces":
            host, _, port = real.rpartition(":")
            if not addresses.region_of(host):
                raise Rejected(f"{real} is in no region of this network", field="address")
            return f"{addresses.seen_from(host, index)}:{port}"
        found = self._proxied.get((viewer, real))
        if found is None:
            region = self._placed.get(real)
            if region is None:
                raise Rejected(f"nobody said in which region {real} is: place()", field="address")
            listening = self._ask(Listen(viewer, region, real))
            assert isinstance(listening, Listening), "the answer names the port"
            found = self._proxied[viewer, real] = listening.address
        return found

    def command(self, region: str, command: Sequence[str]) -> list[str]:
        """The command line that runs a command in a region; its process number stays its own."""
        self._index(region)
        if self.kind == "proxy":
            return list(command)
        return ["ip", "netns", "exec", namespaces.name(self._slot, region), *command]

    # ------------------------------------------------------------------------------- rules

    def rule(self, source: str, target: str) -> LinkRule:
        """The rule in force."""
        self._index(source)
        self._index(target)
        return self._rules[source, target]

    def delay(
        self, source: str, target: str, one_way_ms: float, *, jitter_ms: float = JITTER_MS
    ) -> None:
        """Let what is sent from now on take so long."""
        if one_way_ms < 0 or jitter_ms < 0:
            raise Rejected("a delay is not negative", field="one_way_ms")
        self._change(source, target, delay_s=one_way_ms / 1000, jitter_s=jitter_ms / 1000)

    def loss(self, source: str, target: str, fraction: float) -> None:
        """Lose so much of what is sent, 0..1."""
        if not 0 <= fraction <= 1:
            raise Rejected("a loss is a fraction between 0 and 1", field="fraction")
        self._change(source, target, loss=fraction)

    def double(self, source: str, target: str, fraction: float) -> None:
        """Let so much of what is sent arrive twice, 0..1. The proxy has no packets to double."""
        if not 0 <= fraction <= 1:
            raise Rejected("what is doubled is a fraction between 0 and 1", field="fraction")
        self._change(source, target, double=fraction)

    def cut(self, source: str, target: str) -> None:
        """Let nothing pass from `source` to `target`; the other direction stays as it is."""
        self._change(source, target, cut=True)

    def part(self, one: str, other: str) -> None:
        """Cut both directions."""
        self.cut(one, other)
        self.cut(other, one)

    def isolate(self, region: str) -> None:
        """Part a region from all others."""
        self._index(region)
        for other in self.regions:
            if other != region:
                self.part(region, other)

    def heal(self, source: str | None = None, target: str | None = None) -> None:
        """Bring one direction, or all of them, back to how the network was opened."""
        if (source is None) != (target is None):
            raise Rejected("give both ends or none", field="target")
        if source is not None and target is not None:
            self.rule(source, target)
        ends = self._rules if source is None or target is None else [(source, target)]
        for link in ends:
            if self._rules[link] != self._calm[link]:
                self._rules[link] = self._calm[link]
                self._send(*link)

    def statistics(self) -> dict[tuple[str, str], LinkCounts]:
        """What happened on each link so far, by source and target."""
        counted = self._ask(Count())
        assert isinstance(counted, Counted), "the answer has the counts"
        return {(source, target): counts for source, target, counts in counted.links}

    # ------------------------------------------------------------------------------ engine

    def _index(self, region: str) -> int:
        if region not in self.regions:
            raise Rejected(
                f"there is no region {region!r}; there are {', '.join(self.regions)}",
                field="region",
            )
        return self.regions.index(region) + 1

    def _change(self, source: str, target: str, **fields: float | bool) -> None:
        before = self.rule(source, target)
        self._rules[source, target] = LinkRule(
            **{name: fields.get(name, getattr(before, name)) for name in before.__struct_fields__}
        )
        self._send(source, target)

    def _send(self, source: str, target: str) -> None:
        self._ask(SetRule(source, target, self._rules[source, target]))

    def _ask(self, order: Order) -> Reply:
        engine = self._engine
        if engine is None:
            raise Rejected("the network is not open", field="wan")
        assert engine.stdin is not None
        assert engine.stdout is not None
        try:
            engine.stdin.write(encode(order) + b"\n")
        except BrokenPipeError:
            raise self._broken() from None
        line = b""
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([engine.stdout], [], [], ANSWER_S)
            piece = engine.stdout.read(1 << 16) if readable else b""
            if not piece:
                raise self._broken()
            line += piece
        reply = decode_reply(line)
        if isinstance(reply, Failed):
            raise Unavailable(f"the emulated network refused: {reply.message}")
        return reply

    def _broken(self) -> K2Error:
        """Why the engine does not answer."""
        engine = self._engine
        assert engine is not None
        assert engine.stderr is not None
        engine.kill()
        engine.wait()
        said = engine.stderr.read().decode(errors="replace").strip().splitlines()
        return Unavailable(f"the engine of the network ended: {said[-1] if said else 'no answer'}")


def leftovers() -> list[str]:
    """Names of namespaces of networks, of any owner, that stand on this machine now."""
    folder = Path("/run/netns")
    return sorted(found.name for found in folder.glob("k2wan*"))
