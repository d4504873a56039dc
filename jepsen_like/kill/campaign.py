"""Rounds of load, kill, restart and judgement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, Generic, Protocol, TypeVar

from msgspec import Struct, field

import k2store
from jepsen_like.kill.clients import Clients, audit, open_bank
from jepsen_like.kill.ledger import End, Ledger, Row

CLIENTS_EACH: Final = 12
RUN_S_MIN: Final = 0.1
RUN_S_MAX: Final = 0.7
ROUNDS: Final = b"round/"
AFTER_S: Final = 0.1
AGAIN_S_MAX: Final = 1.0
AGAIN_SHARE: Final = 0.25
"""Share of the rounds in which the node is killed once more while it starts."""

ANSWER_S: Final = "60s"


class Target(Protocol):
    """What is attacked: one node, or a cluster. `kill` ends all of it."""

    @property
    def address(self) -> str:
        """Where clients connect."""
        ...

    async def spawn(self) -> None:
        """Start what does not run."""

    async def ready(self) -> None:
        """Return when what was started can be used."""

    async def kill(self) -> None:
        """End it."""


Attacked = TypeVar("Attacked", bound=Target)
Crash = Callable[[Attacked], Awaitable[None]]
"""Ends a node in the worst way, and returns when it may be started again."""


class Result(Struct):
    """What a campaign found; valid if there is no violation and something was acknowledged.

    unknown    writes whose clients were left without an outcome
    committed, aborted  what the store said of them
    """

    rounds: int = 0
    kills: int = 0
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    committed: int = 0
    aborted: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def valid(self) -> bool:
        """Whether the store has kept its word."""
        return not self.violations and self.acknowledged > 0


async def kill_it(server: Target) -> None:
    """kill -9."""
    await server.kill()


class Campaign(Generic[Attacked]):
    """Rounds against a node or a cluster, which keeps its data from one to the next."""

    def __init__(
        self,
        server: Attacked,
        random: Random,
        *,
        crash: Crash[Attacked] = kill_it,
        tell: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._server = server
        self._random = random
        self._crash = crash
        self._tell = tell
        self._seen: dict[bytes, Row] = {}
        self.result = Result()

    async def run(self, rounds: int) -> Result:
        """Run so many rounds, or until one finds a violation."""
        await self._server.spawn()
        try:
            await self._server.ready()
            async with k2store.connect(self._server.address, name="kill") as db:
                await open_bank(db)
                for number in range(rounds):
                    await self._round(db, number)
                    if self.result.violations:
                        break
                await self._whole(db)
        finally:
            await self._server.kill()
        return self.result

    async def _round(self, db: k2store.Database, number: int) -> None:
        random, result, ledger = self._random, self.result, Ledger()
        prefix = ROUNDS + b"%06d/" % number
        clients = Clients(db, ledger, prefix, Random(random.getrandbits(64)))
        async with asyncio.TaskGroup() as group:
            group.create_task(clients.run(CLIENTS_EACH))
            await asyncio.sleep(random.uniform(RUN_S_MIN, RUN_S_MAX))
            await self._kill()
            if random.random() < AGAIN_SHARE:
                await self._server.spawn()
                await asyncio.sleep(random.uniform(0, AGAIN_S_MAX))
                await self._kill()
            await self._server.spawn()
            await self._server.ready()
            await asyncio.sleep(AFTER_S)
            clients.stop()
        acknowledged, unknown = ledger.count(End.ACKNOWLEDGED), ledger.count(End.UNKNOWN)
        result.rounds += 1
        result.acknowledged += acknowledged
        result.refused += ledger.count(End.REFUSED)
        result.unknown += unknown
        for write in list(ledger.unknown()):
            outcome = await db.outcome(write.transaction, timeout=ANSWER_S)
            if outcome.state != "unknown":
                ledger.resolve(write, committed=outcome.state == "committed", at=outcome.at)
        result.committed += ledger.resolved["committed"]
        result.aborted += ledger.resolved["aborted"]
        result.violations += clients.violations
        rows = await rows_of(db, prefix)
        self._seen |= rows
        result.violations += ledger.violations(rows, clients.counter_keys(CLIENTS_EACH))
        result.violations += await audit(db)
        self._tell(
            f"round {number + 1}: {acknowledged} acknowledged, {unknown} unknown "
            f"({ledger.resolved['committed']} had committed), {len(result.violations)} violations"
        )

    async def _whole(self, db: k2store.Database) -> None:
        """What was there after its round must be there at the end, unchanged."""
        rows = await rows_of(db, ROUNDS)
        for key in rows.keys() | self._seen.keys():
            if rows.get(key) != self._seen.get(key):
                self.result.violations.append(
                    f"{key!r} was {self._seen.get(key)} after its round, is {rows.get(key)}"
                )

    async def _kill(self) -> None:
        await self._crash(self._server)
        self.result.kills += 1


async def rows_of(db: k2store.Database, prefix: bytes) -> dict[bytes, Row]:
    """All rows that begin with a prefix, at one fresh stamp."""
    async with db.snapshot(strong=True, timeout=ANSWER_S) as view:
        return {row.key: Row(row.value, row.version) async for row in view.scan(prefix)}
