"""A node in a hundred lines, for tests of the client: serial, in memory, and told when to fail.

It speaks the session's protocol over any listener. What it is asked is kept in `requests`; `hooks`
decide what happens to a frame before or after it is served.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from k2store.client.connect import connect
from k2store.rpc.local import LocalTransport
from k2store.rpc.transport import Connection
from k2store.testing.simulation.loop import Loop
from k2store.v1 import session_pb2 as wire
from truetime import timestamp

START_NS = 1_800_000_000_000_000_000
Hook = Callable[["Peer", Connection, wire.SessionRequest], bool]
"""Sees a request before it is served; True means that it has dealt with it."""


class Peer:
    """One node; true time is `now_ns()`, and `lo_ns` of its frames lies `doubt_ns` below."""

    def __init__(self, now_ns: Callable[[], int], *, doubt_ns: int = 0) -> None:
        self.now_ns = now_ns
        self.doubt_ns = doubt_ns
        self.rows: dict[bytes, list[tuple[int, bytes | None]]] = defaultdict(list)
        self.stamps: dict[bytes, int] = {}
        self.marks: dict[bytes, dict[bytes, int]] = defaultdict(dict)
        self.outcomes: dict[bytes, int] = {}
        self.results: dict[bytes, Any] = {}
        self.planted: dict[bytes, dict[bytes, bytes | None]] = defaultdict(dict)
        self.requests: list[wire.SessionRequest] = []
        self.connections: list[Connection] = []
        self.metadata: list[dict[str, str]] = []
        self.hooks: list[Hook] = []
        self.applied: list[bytes] = []
        self.silent = False
        self.lose_answers = False
        self.page_rows = 3
        self.last = 0
        self.limits: dict[str, Any] = {}
        self.watches: dict[int, tuple[Connection, wire.WatchCall]] = {}
        self.told: dict[int, int] = {}
        self.progress: list[tuple[int, int, bool]] = []

    # The transport's side

    def on_connect(self, connection: Connection) -> None:
        self.connections.append(connection)
        self.metadata.append(dict(connection.metadata))

    def on_close(self, connection: Connection, reason: str) -> None:
        pass

    def on_frame(self, connection: Connection, frame: bytes) -> None:
        request = wire.SessionRequest.FromString(frame)
        self.requests.append(request)
        for hook in list(self.hooks):
            if hook(self, connection, request):
                return
        answer = self.serve(request)
        for call in request.watches:
            self.watches[call.request] = connection, call
            self.told[call.request] = call.since or self.stamp()
        for progress in request.watch_progress:
            self.progress.append((progress.request, progress.consumed, progress.cancel))
        if self.lose_answers:
            self.lose_answers = False
            connection.close("lost")
        elif not self.silent and not connection.closed:
            connection.send(answer.SerializeToString())

    def tell(self, *, mark: bool = True, lose_after: int | None = None) -> None:
        """Send every watch what it has not been told, and a mark."""
        for request, (connection, call) in list(self.watches.items()):
            if connection.closed:
                del self.watches[request]
                continue
            answer = self.frame()
            events = answer.watch_events.add(request=request)
            commits: dict[int, list[tuple[bytes, bytes | None]]] = defaultdict(list)
            for key, versions in sorted(self.rows.items()):
                if call.start <= key and (not call.end or key < call.end):
                    for at, value in versions:
                        if at > self.told[request]:
                            commits[at].append((key, value))
            for at, changes in sorted(commits.items())[:lose_after]:
                events.at.append(at)
                events.change_count.append(len(changes))
                for key, value in changes:
                    events.key.append(key)
                    events.value.append(value or b"")
                    events.deleted.append(value is None)
                self.told[request] = at
            if mark and lose_after is None:
                events.resolved = self.told[request] = max(self.told[request], self.last)
            connection.send(answer.SerializeToString())
            if lose_after is not None:
                connection.close("lost")

    # Serving

    def stamp(self) -> int:
        self.last = max(timestamp.pack(self.now_ns(), 7), self.last + (1 << 12))
        return self.last

    def frame(self) -> wire.SessionResponse:
        lo_ns = self.now_ns() - self.doubt_ns
        return wire.SessionResponse(lo_ns=lo_ns, safe=timestamp.boundary(lo_ns))

    def serve(self, request: wire.SessionRequest) -> wire.SessionResponse:
        answer = self.frame()
        if request.HasField("hello"):
            answer.welcome.CopyFrom(
                wire.SessionWelcome(node="peer", incarnation=b"1", **self.limits)
            )
        for call in request.writes:
            self.begin(call.txn, call.at)
            writes = zip(call.key, call.value, call.deleted or [False] * len(call.key), strict=True)
            self.planted[call.txn].update({k: None if d else v for k, v, d in writes})
            answer.written.append(call.request)
        self.serve_reads(request.reads, answer)
        for scan in request.scans:
            self.serve_scan(scan, answer)
        self.serve_commits(request.commits, answer)
        self.serve_one_shots(request.one_shots, answer)
        for question in request.outcomes:
            if question.decide:
                self.outcomes.setdefault(question.txn, 0)
            at = self.outcomes.get(question.txn)
            state = 3 if at is None else 1 if at else 2
            answer.outcomes.add(request=question.request, state=state, at=at or 0)
        for rollback in request.rollbacks:
            self.outcomes.setdefault(rollback.txn, 0)
        for past in request.histories:
            versions = [v for v in reversed(self.rows[past.key]) if not past.at or v[0] <= past.at]
            page = answer.histories.add(request=past.request, more=len(versions) > 2)
            for at, value in versions[:2]:
                page.at.append(at)
                page.value.append(value or b"")
                page.deleted.append(value is None)
        return answer

    def begin(self, txn: bytes, at: int) -> int:
        if txn and not at:
            at = self.stamps.setdefault(txn, 0) or self.stamp()
            self.stamps[txn] = at
        return at or self.stamp()

    def newest(self, key: bytes, at: int, txn: bytes = b"") -> tuple[int, bytes | None]:
        if key in self.planted.get(txn, {}):
            return at, self.planted[txn][key]
        found = [version for version in self.rows.get(key, ()) if version[0] <= at]
        version, value = found[-1] if found else (0, None)
        return (0, None) if value is None else (version, value)

    def serve_reads(self, reads: wire.ReadColumns, answer: wire.SessionResponse) -> None:
        for request, txn, at, key in zip(
            reads.request, reads.txn, reads.at, reads.key, strict=True
        ):
            at = self.begin(txn, at)
            if txn:
                self.marks[key][txn] = at
            version, value = self.newest(key, at, txn)
            answer.values.request.append(request)
            answer.values.at.append(at)
            answer.values.version.append(version)
            answer.values.value.append(value or b"")

    def serve_scan(self, scan: wire.ScanCall, answer: wire.SessionResponse) -> None:
        at = self.begin(scan.txn, scan.at)
        known = {*self.rows, *self.planted.get(scan.txn, ())}
        keys = sorted(k for k in known if scan.start <= k and (not scan.end or k < scan.end))
        if scan.reverse:
            keys.reverse()
        page = answer.rows.add(request=scan.request, at=at)
        for count, key in enumerate(keys):
            version, value = self.newest(key, at, scan.txn)
            if value is not None:
                page.key.append(key)
                page.version.append(version)
                page.value.append(value)
            full = len(page.key) >= min(scan.limit or self.page_rows, self.page_rows)
            if full and count + 1 < len(keys):
                page.resume = key if scan.reverse else key + b"\0"
                return

    def apply(self, txn: bytes, at: int, writes: dict[bytes, bytes | None]) -> None:
        for key, value in writes.items():
            self.rows[key].append((at, value))
            self.rows[key].sort(key=lambda version: version[0])
        self.outcomes[txn] = at
        self.applied.append(txn)

    def committed(self, answer: wire.SessionResponse, request: int, at: int) -> None:
        answer.committed.request.append(request)
        answer.committed.at.append(at)
        answer.committed.waited_ns.append(1000)

    def serve_commits(self, commits: wire.CommitColumns, answer: wire.SessionResponse) -> None:
        start = 0
        deleted = commits.deleted or [False] * len(commits.key)
        for request, txn, at, count in zip(
            commits.request, commits.txn, commits.at, commits.write_count, strict=True
        ):
            end = start + count
            at = self.begin(txn, at)
            writes = dict(self.planted.pop(txn, {}))
            for key, value, gone in zip(
                commits.key[start:end], commits.value[start:end], deleted[start:end], strict=True
            ):
                writes[key] = None if gone else value
            start = end
            newer = [k for k in writes if any(v[0] > at for v in self.rows.get(k, ()))]
            newer += [k for k in writes if any(mark > at for mark in self.marks[k].values())]
            if txn in self.outcomes and not self.outcomes[txn]:
                answer.failures.add(request=request, reason="Expired", message="aborted before")
            elif newer:
                self.outcomes[txn] = 0
                answer.failures.add(request=request, reason="Conflict", rule="t", key=newer[0])
            else:
                self.apply(txn, at, writes)
                self.committed(answer, request, at)

    def serve_one_shots(self, shots: wire.OneShotColumns, answer: wire.SessionResponse) -> None:
        predicates = iter(shots.predicates)
        conditions = iter(
            [
                (kind, key, version, value, next(predicates) if kind == 5 else None)
                for kind, key, version, value in zip(
                    shots.condition_kind,
                    shots.condition_key,
                    shots.condition_version or [0] * len(shots.condition_key),
                    shots.condition_value or [b""] * len(shots.condition_key),
                    strict=True,
                )
            ]
        )
        reads = iter(shots.read_key)
        deleted = shots.write_deleted or [False] * len(shots.write_key)
        writes = iter(zip(shots.write_key, shots.write_value, deleted, strict=True))
        for place, (request, txn) in enumerate(zip(shots.request, shots.txn, strict=True)):
            mine = [next(conditions) for _ in range(_count(shots.condition_count, place))]
            read = [next(reads) for _ in range(_count(shots.read_count, place))]
            written = [next(writes) for _ in range(_count(shots.write_count, place))]
            if txn not in self.results:
                at = self.stamp()
                failed = [i for i, one in enumerate(mine) if not self.holds(one, at)]
                values = [self.newest(key, at) for key in read]
                self.results[txn] = (at, failed, values)
                if not failed:
                    self.apply(txn, at, {k: None if d else v for k, v, d in written})
            at, failed, values = self.results[txn]
            if failed:
                answer.failures.add(
                    request=request, reason="ConditionFailed", condition=failed[0], stamp=at
                )
                continue
            self.committed(answer, request, at)
            if shots.read_count:
                answer.committed.read_count.append(len(values))
                answer.committed.version.extend(version for version, _ in values)
                answer.committed.value.extend(value or b"" for _, value in values)

    def holds(self, condition: tuple[int, bytes, int, bytes, Any], at: int) -> bool:
        kind, key, wanted, expected, predicate = condition
        version, value = self.newest(key, at)
        if kind == 5:
            if value is None:
                return False
            left = msgspec.msgpack.decode(value)[predicate.name]
            right = {0: predicate.integer, 1: at, 2: timestamp.time_ns(at)}[predicate.own]
            return {3: left < right, 5: left > right}[predicate.comparison]
        return {
            1: value is None,
            2: value is not None,
            3: version == wanted,
            4: value == expected,
        }[kind]


def _count(column: Any, place: int) -> int:
    return column[place] if column else 0


def fail_once(kind: str, **failure: Any) -> Hook:
    """Answer the next request that holds something of a kind with a failure, unserved."""
    done: list[bool] = []

    def hook(peer: Peer, connection: Connection, request: wire.SessionRequest) -> bool:
        asked = getattr(request, kind)
        numbers = [one.request for one in asked] if _repeated(asked) else list(asked.request)
        if done or not numbers:
            return False
        done.append(True)
        answer = peer.frame()
        for number in numbers:
            answer.failures.add(request=number, **failure)
        connection.send(answer.SerializeToString())
        return True

    return hook


def lose_once(kind: str, *, served: bool) -> Hook:
    """End the connection under the next request of a kind, after or before it is served."""
    done: list[bool] = []

    def hook(peer: Peer, connection: Connection, request: wire.SessionRequest) -> bool:
        asked = getattr(request, kind)
        if done or not (len(asked) if _repeated(asked) else len(asked.request)):
            return False
        done.append(True)
        if served:
            peer.serve(request)
        connection.close("lost")
        return True

    return hook


def _repeated(asked: Any) -> bool:
    return hasattr(asked, "__len__")


async def _main(
    scenario: Callable[[Any, Peer], Any], loop: Loop, seed: int, peer: Peer, options: Any
) -> None:
    transport = LocalTransport()
    await transport.listen("a:7400", peer)
    options.setdefault("dialer", transport)
    database = connect(
        "k2://a", monotonic_ns=lambda: loop.now_ns, rng=random.Random(seed), **options
    )
    async with database as db:
        await scenario(db, peer)


def _wall_ns(loop: Loop) -> int:
    return START_NS + loop.now_ns


def play(
    scenario: Callable[[Any, Peer], Any], *, seeds: int = 5, doubt_ns: int = 0, **options: Any
) -> None:
    """Run a scenario in virtual time, in several orders of what happens at one moment."""
    for seed in range(seeds):
        loop = Loop(random.Random(seed))
        peer = Peer(partial(_wall_ns, loop), doubt_ns=doubt_ns)
        try:
            loop.run(_main(scenario, loop, seed, peer, dict(options)), limit_ns=3600 * 10**9)
        finally:
            loop.close()
