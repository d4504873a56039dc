"""Leases: one holder at a time, in true time, with a fencing token.

The row at the lease's key says who holds it and until when, in nanoseconds of true time. It is
only ever changed by one-shots under conditions, so the store itself decides::

    take     the key has no value, or its version is the one seen and its expiry lies before the
             taker's own stamp
    renew    the version is still ours
    release  the version is still ours: delete

Two clocks never meet. A taker is told that it holds the lease only when true time has passed its
stamp (rule T3), and that lies after the old expiry. A holder stops believing before true time can
have reached its expiry: a stamp is never before true time when it is given (rule T1), so true
time is at most the stamp of the last renewal plus what its own monotonic clock has counted since
that was *sent*, with the largest drift that clock can have. So at no moment of true time do two
clients believe that they hold it.

`Lease.token` is the stamp of the taking: later holders have larger ones. Give it to whatever the
lease protects, and let that refuse smaller ones.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from k2store.client.conditions import absent, field, own_time, version_is
from k2store.errors import ConditionFailed, Conflict, Expired, K2Error, Rejected
from truetime.commit_wait import DRIFT_PPM_DEFAULT
from truetime.timestamp import time_ns

if TYPE_CHECKING:
    from k2store.client.conditions import Condition
    from k2store.client.database import Database

_BILLION: Final = 1_000_000_000
_MILLION: Final = 1_000_000
_POLL_S: Final = 0.25
_RENEWALS_PER_TTL: Final = 3


class Holding(Struct, frozen=True, rename={"expiry_ns": "expiry"}):
    """The row of a lease: who, by name and by one `Lease` object, and until when (true time, ns)."""

    holder: bytes
    nonce: bytes
    expiry_ns: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Holding).decode


class Lease:
    """A lease on a key; made by `Database.lease`, held inside ``async with``.

    It is renewed in the background. When it is lost all the same, because the store could not be
    reached for too long or somebody deleted the row, the block is cancelled and leaves with
    `Expired`.
    """

    __slots__ = (
        "_cancelled",
        "_cancelling",
        "_database",
        "_expiry_ns",
        "_holder",
        "_key",
        "_lost",
        "_measured_at_ns",
        "_measured_ns",
        "_nonce",
        "_owner",
        "_renewal",
        "_ttl_ns",
        "_version",
        "_wait_s",
        "token",
    )

    def __init__(
        self, database: Database, key: bytes, *, ttl_s: float, holder: bytes, wait_s: float
    ) -> None:
        if type(holder) is not bytes:
            raise Rejected("the holder's name is bytes", field="holder")
        if ttl_s < 0.05:
            raise Rejected("a lease lasts at least 50 ms", field="ttl")
        self._database = database
        self._key = key
        self._ttl_ns = int(ttl_s * _BILLION)
        self._wait_s = wait_s
        self._holder = holder
        self._nonce = database.rng.getrandbits(64).to_bytes(8, "big")
        self._version = 0
        self._expiry_ns = 0
        # True time was at most `_measured_ns` when the monotonic clock showed `_measured_at_ns`.
        self._measured_ns = 0
        self._measured_at_ns = 0
        self._lost: Expired | None = None
        self._cancelled = False
        self._cancelling = 0
        self._owner: asyncio.Task[object] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self.token = 0

    def __repr__(self) -> str:
        return f"<Lease {self._key!r} token {self.token} {'held' if self.held else 'not held'}>"

    @property
    def key(self) -> bytes:
        """What is leased."""
        return self._key

    @property
    def left_s(self) -> float:
        """How long it is certainly still held if nothing renews it, seconds; 0 when it is not."""
        if not self.token or self._lost is not None:
            return 0.0
        return max(0, self._expiry_ns - self._latest_ns()) / _BILLION

    @property
    def held(self) -> bool:
        """Whether it is certainly held now."""
        return self.left_s > 0

    def disown(self) -> None:
        """Cancel nobody when the lease is lost; `check` and the block's end still tell."""
        self._owner = None

    def check(self) -> None:
        """Raise `Expired` unless it is certainly held now."""
        if not self.held:
            raise self._lost or self._expired("it is not held")

    # ------------------------------------------------------------------------------ the block

    async def __aenter__(self) -> Lease:
        await self._acquire()
        self._owner = asyncio.current_task()
        self._cancelling = 0 if self._owner is None else self._owner.cancelling()
        loop = asyncio.get_running_loop()
        self._renewal = loop.create_task(self._renew(), name=f"lease {self._key!r}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        owner, self._owner = self._owner, None
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        if self._lost is not None:
            if self._cancelled and owner is not None:
                # As asyncio.timeout does it: only our own cancellation becomes the failure.
                others = owner.uncancel() > self._cancelling
                if not others and isinstance(error, asyncio.CancelledError):
                    raise self._lost from None
            if error is None:
                raise self._lost
            return
        held = self.held
        self._expiry_ns = 0
        await self._release()
        if not held and error is None:
            raise self._expired("it ended before its block did")

    # ---------------------------------------------------------------------------- the machine

    def _latest_ns(self) -> int:
        """True time now is at most this."""
        elapsed_ns = self._database.session.bounded_time.monotonic_ns() - self._measured_at_ns
        return self._measured_ns + elapsed_ns + elapsed_ns * DRIFT_PPM_DEFAULT // _MILLION + 1

    def _measure(self, stamp: int, sent_at_ns: int) -> None:
        """Learn from a stamp that was given after the monotonic clock showed `sent_at_ns`."""
        if self._measured_at_ns == 0 or time_ns(stamp) < self._latest_ns_at(sent_at_ns):
            self._measured_ns, self._measured_at_ns = time_ns(stamp), sent_at_ns

    def _latest_ns_at(self, monotonic_ns: int) -> int:
        elapsed_ns = monotonic_ns - self._measured_at_ns
        return self._measured_ns + elapsed_ns + elapsed_ns * DRIFT_PPM_DEFAULT // _MILLION + 1

    async def _acquire(self) -> None:
        """Take the lease, waiting for the present holder if there is one."""
        database = self._database
        session = database.session
        until_s = session.now_s() + self._wait_s
        while True:
            sent_at_ns = session.bounded_time.monotonic_ns()
            view = database.snapshot(strong=True)
            async with view:
                row = await view.get_record(self._key)
            self._measure(view.at, sent_at_ns)
            conditions: tuple[Condition, ...]
            if row is None:
                conditions, free_in_ns = (absent(self._key),), 0
            else:
                holding = self._decoded(row.value)
                conditions = (
                    version_is(self._key, row.version),
                    field(self._key, "expiry").earlier_than(own_time()),
                )
                free_in_ns = holding.expiry_ns - session.bounded_time.lower_ns()
            if free_in_ns <= 0:
                try:
                    await self._write(conditions)
                except ConditionFailed:
                    free_in_ns = 0  # Somebody else was faster, or the old one is not over yet.
                else:
                    self.token = self._version
                    if self.held:
                        return
                    # The answer was under way for longer than the lease lasts.
                    self.token = free_in_ns = 0
            pause_s = min(max(free_in_ns / _BILLION, 0.001), _POLL_S)
            pause_s *= 1 + database.rng.random() / 4
            if session.now_s() + pause_s >= until_s:
                raise Conflict(f"the lease {self._key!r} is held by somebody else", key=self._key)
            await asyncio.sleep(pause_s)

    def _decoded(self, value: bytes) -> Holding:
        try:
            return _decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Rejected(
                f"the value at {self._key!r} is not a lease: {error}", field="key"
            ) from None

    async def _write(self, conditions: tuple[Condition, ...]) -> None:
        """Write a row that says that it is ours, for a whole time to live from now."""
        database = self._database
        sent_at_ns = database.session.bounded_time.monotonic_ns()
        expiry_ns = self._latest_ns_at(sent_at_ns) + self._ttl_ns
        value = _encode(Holding(self._holder, self._nonce, expiry_ns))
        stamp = await database.put(self._key, value, conditions=conditions)
        self._version = stamp
        self._measure(stamp, sent_at_ns)
        self._expiry_ns = expiry_ns

    async def _renew(self) -> None:
        """Renew three times per time to live; give up when the lease can no longer be ours."""
        try:
            while True:
                left_s = self.left_s
                if left_s <= 0:
                    raise self._expired("it could not be renewed in time")
                due_s = self._ttl_ns / _BILLION / _RENEWALS_PER_TTL
                pause_s = left_s - (_RENEWALS_PER_TTL - 1) * due_s
                await asyncio.sleep(max(pause_s, min(due_s / 4, left_s)))
                await self._renew_once()
        except Expired as lost:
            self._lost = lost
            if self._owner is not None:
                self._cancelled = True
                self._owner.cancel()

    async def _renew_once(self) -> None:
        try:
            async with asyncio.timeout(max(self.left_s, 0.001)):
                await self._write((version_is(self._key, self._version),))
        except ConditionFailed:
            # A renewal whose answer was lost and that took is not told apart by its version.
            if not await self._adopt():
                raise self._expired("somebody else has taken or deleted it") from None
        except (K2Error, TimeoutError):
            return  # Tried again as long as it is ours.

    async def _adopt(self) -> bool:
        """Whether the row is one that we have written ourselves; then it is our latest."""
        try:
            record = await self._database.get_record(self._key)
        except K2Error:
            return True  # Nothing is known; the next renewal will tell.
        if record is None or record.version < self._version:
            return False
        try:
            holding = self._decoded(record.value)
        except Rejected:
            return False
        if holding.nonce != self._nonce:
            return False
        self._version, self._expiry_ns = record.version, holding.expiry_ns
        return True

    async def _release(self) -> None:
        """Give it back; if that fails it ends by itself."""
        try:
            await self._database.delete(
                self._key, conditions=(version_is(self._key, self._version),)
            )
        except K2Error:
            return

    def _expired(self, why: str) -> Expired:
        return Expired(f"the lease {self._key!r} is lost: {why}", what="lease")
