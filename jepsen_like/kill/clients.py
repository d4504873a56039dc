"""The load: clients that note in the ledger what they were told.

Half of them are patient: their deadline is longer than any restart, so the library resolves
every outcome by itself. The others give up soon and are left with `OutcomeUnknown`, which the
campaign asks for afterwards.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

import k2store
from jepsen_like.kill.ledger import End, Ledger, Write

PATIENT: Final = "60s"
IMPATIENT: Final = "400ms"

ACCOUNTS: Final = 8
BALANCE: Final = 1_000
BANK: Final = b"bank/"

PAUSE_S: Final = 0.01
"""After a refusal, so that clients of a dead node do not spin."""


class Clients:
    """The workers of one round, until `stop`."""

    def __init__(self, db: k2store.Database, ledger: Ledger, prefix: bytes, random: Random) -> None:
        """`prefix`: of every key the round writes, the bank's apart."""
        self._db = db
        self._ledger = ledger
        self._prefix = prefix
        self._random = random
        self._serial = 0
        self._stopped = False
        self.violations: list[str] = []

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True

    async def run(self, each: int) -> None:
        """As many workers of every kind, until stopped and done with what they have begun."""
        async with asyncio.TaskGroup() as group:
            for number in range(each):
                timeout = PATIENT if number % 2 == 0 else IMPATIENT
                group.create_task(self._inserts(timeout))
                group.create_task(self._pairs(timeout))
                group.create_task(self._counts(self._prefix + b"count/%d" % number, timeout))
                group.create_task(self._transfers(timeout))
            group.create_task(self._audits())

    def counter_keys(self, each: int) -> list[bytes]:
        """The counters that `run` adds to."""
        return [self._prefix + b"count/%d" % number for number in range(each)]

    def _next(self) -> int:
        self._serial += 1
        return self._serial

    async def _inserts(self, timeout: str) -> None:
        """One-shots that write a key that must not be there."""
        while not self._stopped:
            number = self._next()
            key, value = self._prefix + b"one/%08d" % number, b"value %d" % number
            write = self._ledger.begin({key: value})
            try:
                write.at = await self._db.compare_and_put(key, value, missing=True, timeout=timeout)
            except k2store.ConditionFailed as error:
                self.violations.append(f"{key!r} was there before its only write: {error}")
                write.end = End.REFUSED
            except k2store.K2Error as error:
                await self._failed(write, error)
            else:
                write.end = End.ACKNOWLEDGED

    async def _pairs(self, timeout: str) -> None:
        """Interactive transactions that read a key and write two new ones."""
        while not self._stopped:
            number = self._next()
            stem, value = self._prefix + b"pair/%08d" % number, b"value %d" % number
            write = self._ledger.begin({stem + b"/a": value, stem + b"/b": value})
            try:
                async for txn in self._db.transactions(timeout=timeout):
                    async with txn:
                        if await txn.get(stem + b"/a") is not None:
                            self.violations.append(f"{stem!r} was there before its only write")
                        for key in write.rows:
                            txn.put(key, value)
            except k2store.K2Error as error:
                await self._failed(write, error)
            else:
                assert txn.committed_at is not None
                write.at, write.end = txn.committed_at, End.ACKNOWLEDGED

    async def _counts(self, counter: bytes, timeout: str) -> None:
        """Interactive transactions that add one, by one worker a counter."""
        while not self._stopped:
            write = self._ledger.begin({}, counter)
            try:
                async for txn in self._db.transactions(timeout=timeout):
                    async with txn:
                        held = int(await txn.get(counter) or 0)
                        txn.put(counter, b"%d" % (held + 1))
            except k2store.K2Error as error:
                await self._failed(write, error)
            else:
                write.end = End.ACKNOWLEDGED

    async def _transfers(self, timeout: str) -> None:
        """Interactive transactions that move money; whatever becomes of them, the sum stays."""
        while not self._stopped:
            giver, taker = self._random.sample(range(ACCOUNTS), 2)
            try:
                async for txn in self._db.transactions(timeout=timeout):
                    async with txn:
                        names = [account(giver), account(taker)]
                        held = await txn.get_many(names)
                        amount = self._random.randint(1, 5)
                        for name, change in zip(names, (-amount, amount), strict=True):
                            txn.put(name, b"%d" % (int(held[name] or 0) + change))
            except k2store.K2Error:
                await asyncio.sleep(PAUSE_S)

    async def _audits(self) -> None:
        """Reads of all accounts at one stamp."""
        while not self._stopped:
            try:
                self.violations += await audit(self._db)
            except k2store.K2Error:
                await asyncio.sleep(PAUSE_S)
            await asyncio.sleep(PAUSE_S)

    async def _failed(self, write: Write, error: k2store.K2Error) -> None:
        write.why = f"{type(error).__name__}: {error}"
        if isinstance(error, k2store.OutcomeUnknown):
            write.transaction = error.transaction or ""
        else:
            write.end = End.REFUSED
        await asyncio.sleep(PAUSE_S)


def account(number: int) -> bytes:
    """The key of an account."""
    return BANK + b"%d" % number


async def open_bank(db: k2store.Database) -> None:
    """Give every account its money."""
    async for txn in db.transactions(timeout=PATIENT):  # not a one-shot: they may lie apart
        async with txn:
            for number in range(ACCOUNTS):
                txn.put(account(number), b"%d" % BALANCE)


async def audit(db: k2store.Database) -> list[str]:
    """What is wrong with the bank now, if anything."""
    held = await db.get_many([account(number) for number in range(ACCOUNTS)])
    total = sum(int(value or 0) for value in held.values())
    wanted = ACCOUNTS * BALANCE
    return [] if total == wanted else [f"the accounts hold {total}, not {wanted}: {held}"]
