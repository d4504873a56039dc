"""What a process asked the store for and what it was told, in a file: it outlives the process's end.

`Recording` stands between the directory's transactions and the store and says in the words of the checker
(`jepsen_like`, model ``kv-directory``) what each transaction would do, before it is sent, and what came of
it, when that is known. So nothing of the code that is judged is asked what it believes to have done. What a
killed process had asked for and did not hear of stays without an answer, which is the truth.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from kv_pool.blocks import NAME_BYTES, Names, split_names
from kv_pool.directory.membership import GENERATION_SHIFT
from kv_pool.keys import ID, PIN, RUN, RUN_BYTES, WORKERS, split_worker, worker_of
from kv_pool.records import Id, Phase, Pin, Run, State, decode, decode_run, position
from kv_pool.shots import (
    Committed,
    Compare,
    Condition,
    Done,
    Failed,
    Field,
    NoRow,
    Own,
    Row,
    Shot,
    Store,
    Transaction,
)
from truetime import timestamp

R = TypeVar("R")

Value = dict[str, object]

Kind: TypeAlias = Literal["invoke", "ok", "fail", "info"]
INVOKE: Final = "invoke"
OK: Final = "ok"
FAIL: Final = "fail"
INFO: Final = "info"

_GENERATION = position(Run, "generation")
_EXPIRY = position(Pin, "expiry_ns")


class Note(Struct, frozen=True, array_like=True):
    """One line of a journal. `names`: of the blocks that a publish is about."""

    kind: Kind
    process: str
    f: str
    value: Value
    time_ns: int
    stamp: int = 0
    names: bytes = b""


class Journal:
    """A file of notes. `slots_of`: where a worker keeps blocks, for what it publishes."""

    def __init__(self, path: Path, who: str) -> None:
        # Without a buffer: what was written is in the system's hands when the process is killed.
        self._file = path.open("ab", buffering=0)
        self._who = who
        self._count = 0
        self.slots_of: Callable[[Names], list[int]] | None = None

    def begin(self, f: str, value: Value, names: Names = b"") -> Asked:
        """Something is about to be asked for."""
        self._count += 1
        asked = Asked(self, f"{self._who} {self._count}", f, value, names)
        asked.note(INVOKE)
        return asked

    def write(self, note: Note) -> None:
        """One line."""
        body = msgspec.msgpack.encode(note)
        self._file.write(len(body).to_bytes(4, "big") + body)

    def close(self) -> None:
        """No more."""
        self._file.close()


class Asked:
    """Something that was asked for and has not been answered."""

    __slots__ = ("_f", "_journal", "_names", "_process", "_value")

    def __init__(self, journal: Journal, process: str, f: str, value: Value, names: Names) -> None:
        self._journal = journal
        self._process = process
        self._f = f
        self._value = value
        self._names = names

    def note(self, kind: Kind, stamp: int = 0) -> None:
        """What came of it."""
        now_ns = time.monotonic_ns()
        self._journal.write(
            Note(kind, self._process, self._f, self._value, now_ns, stamp, self._names)
        )


def read(path: Path) -> list[Note]:
    """The notes of a file; a last one that was cut off does not count."""
    data = path.read_bytes()
    decode_note = msgspec.msgpack.Decoder(Note).decode
    notes = []
    at = 0
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        notes.append(decode_note(data[at + 4 : end]))
        at = end
    return notes


class Recording:
    """A store that keeps a journal; otherwise it is the one below."""

    def __init__(self, below: Store, journal: Journal) -> None:
        self._below = below
        self._journal = journal

    async def shoot(self, shot: Shot) -> Done | Failed:
        """Note, send, note."""
        asked = self._begin(shot.conditions, shot.writes)
        try:
            outcome = await self._below.shoot(shot)
        except BaseException:
            _end(asked, INFO)
            raise
        if isinstance(outcome, Done):
            _end(asked, OK, outcome.at)
        else:
            _end(asked, FAIL)
        return outcome

    async def transact(self, function: Callable[[Transaction], Awaitable[R]]) -> Committed[R]:
        """The same for what is found out on the way: the last attempt is the one that counts."""
        asked: list[Asked] = []

        async def noted(txn: Transaction) -> R:
            # Another attempt is made only when the one before is known to have done nothing.
            _end(asked, FAIL)
            noting = _Noting(txn)
            value = await function(noting)
            asked[:] = self._begin(noting.looked, noting.writes)
            return value

        try:
            done = await self._below.transact(noted)
        except BaseException:
            _end(asked, INFO)
            raise
        _end(asked, OK, done.at)
        return done

    def _begin(
        self, conditions: Sequence[Condition], writes: Sequence[tuple[bytes, bytes | None]]
    ) -> list[Asked]:
        return [
            self._journal.begin(f, value, names)
            for f, value, names in described(conditions, writes, self._journal.slots_of)
        ]


class _Noting:
    """A transaction whose writes are noted, and what it looked at, as a shot has it for conditions."""

    __slots__ = ("_txn", "looked", "writes")

    def __init__(self, txn: Transaction) -> None:
        self._txn = txn
        self.looked: list[Condition] = []
        self.writes: list[tuple[bytes, bytes | None]] = []

    @property
    def at(self) -> int:
        return self._txn.at

    async def get(self, key: bytes) -> bytes | None:
        value = await self._txn.get(key)
        if value is not None and _is(key, RUN):
            generation = decode_run(value).generation
            self.looked.append(Field(key, _GENERATION, Compare.EQUAL, generation))
        return value

    def scan(self, start: bytes, end: bytes, limit: int) -> AsyncIterator[Row]:
        if _is(start, PIN) and len(split_worker(start)[1]) == len(PIN) + RUN_BYTES:
            self.looked.append(NoRow(start, _EXPIRY, Compare.GREATER, Own.TIME_NS))
        return self._txn.scan(start, end, limit)

    def put(self, key: bytes, value: bytes) -> None:
        self.writes.append((key, value))
        self._txn.put(key, value)

    def delete(self, key: bytes) -> None:
        self.writes.append((key, None))
        self._txn.delete(key)


def _is(key: bytes, kind: bytes) -> bool:
    """Whether a key is that of a worker's row of this kind."""
    return key.startswith(WORKERS) and split_worker(key)[1].startswith(kind)


def described(
    conditions: Sequence[Condition],
    writes: Sequence[tuple[bytes, bytes | None]],
    slots_of: Callable[[Names], list[int]] | None = None,
) -> list[tuple[str, Value, Names]]:
    """What a transaction would do to the directory: operations with their values, and blocks.

    A row that is shortened under a condition about pins is evicted from; leases change nothing.
    """
    evicts = any(isinstance(one, NoRow) for one in conditions)
    found: list[tuple[str, Value, Names]] = []
    pins: list[tuple[str, bytes, bytes]] = []
    released: set[str] = set()
    for key, value in writes:
        if not key.startswith(WORKERS):
            continue
        prefix, rest = split_worker(key)
        worker = str(worker_of(prefix))
        if rest == ID:
            assert value is not None, "a worker is never forgotten"
            found.append(_life(worker, value))
        elif rest.startswith(RUN):
            run = _run(worker, key, rest[len(RUN) :], value, conditions, evicts=evicts)
            if run is not None:
                f, told, names = run
                if f == "publish" and slots_of is not None:
                    told["slots"] = slots_of(names)
                found.append((f, told, names))
        elif rest.startswith(PIN):
            if value is None:
                released.add(key[-16:].hex())
            else:
                pins.append((worker, rest[len(PIN) :], value))
    found += [("release", {"claim": claim}, b"") for claim in sorted(released)]
    if pins:
        found.append(_claim(pins))
    return found


def _life(worker: str, value: bytes) -> tuple[str, Value, Names]:
    identity = decode(Id, value)
    f = "fence" if identity.state == State.FENCED else "register"
    return f, {"worker": worker, "incarnation": identity.incarnation}, b""


def _run(
    worker: str,
    key: bytes,
    part: bytes,
    value: bytes | None,
    conditions: Sequence[Condition],
    *,
    evicts: bool,
) -> tuple[str, Value, Names] | None:
    told: Value = {"worker": worker, "run": part[16:].hex()}
    if value is None:
        if not evicts:
            # A sweep: what it removes counted for nothing.
            return None
        generation = next(
            one.right
            for one in conditions
            if isinstance(one, Field) and one.key == key and one.position == _GENERATION
        )
        return "evict", told | {"generation": generation, "keep": 0}, b""
    run = decode_run(value)
    told["generation"] = run.generation
    if evicts:
        return "evict", told | {"keep": run.live}, b""
    if run.phase != Phase.READY:
        # What is announced only counts for nothing yet.
        return None
    told |= {"incarnation": run.incarnation, "tier": part[16], "blocks": run.live}
    return "publish", told, run.live_names()


def _claim(pins: list[tuple[str, bytes, bytes]]) -> tuple[str, Value, Names]:
    held = []
    first = decode(Pin, pins[0][2])
    for worker, rest, value in pins:
        pin = decode(Pin, value)
        held.append(
            {
                "worker": worker,
                "incarnation": pin.generation >> GENERATION_SHIFT,
                "run": rest[16:-16].hex(),
                "generation": pin.generation,
                "blocks": pin.blocks,
            }
        )
    claim = pins[0][1][-16:].hex()
    until = timestamp.ceiling(first.expiry_ns)
    if first.token:
        return "renew", {"claim": claim, "until": until}, b""
    return "acquire", {"claim": claim, "until": until, "held": held}, b""


def names_of(note: Note) -> list[bytes]:
    """The blocks of a publish."""
    assert len(note.names) % NAME_BYTES == 0, "names are packed"
    return split_names(note.names)


def _end(asked: list[Asked], kind: Kind, stamp: int = 0) -> None:
    for one in asked:
        one.note(kind, stamp)
    asked.clear()
