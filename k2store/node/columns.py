"""A session's next frame: answers gather here as columns and leave as one SessionResponse."""

from __future__ import annotations

from k2store.v1 import session_pb2 as wire
from mvcc.messages import Commits, Committed, Rows, Value, Values

Failure = wire.Failure


class Columns:
    """What has gathered for one session since its last frame."""

    __slots__ = (
        "committed_at",
        "committed_request",
        "committed_values",
        "committed_waited_ns",
        "count",
        "failures",
        "other",
        "size",
        "value_at",
        "value_bytes",
        "value_request",
        "value_version",
        "written",
    )

    def __init__(self) -> None:
        self.count = 0
        """Answers to requests gathered."""
        self.size = 0
        """Bytes of keys and values gathered, about."""
        self.value_request: list[int] = []
        self.value_at: list[int] = []
        self.value_version: list[int] = []
        self.value_bytes: list[bytes] = []
        self.committed_request: list[int] = []
        self.committed_at: list[int] = []
        self.committed_waited_ns: list[int] = []
        self.committed_values: list[list[tuple[int, bytes | None]] | None] | None = None
        self.written: list[int] = []
        self.failures: list[wire.Failure] = []
        self.other: wire.SessionResponse | None = None

    def add_value(self, request: int, answer: Value) -> None:
        """A value read."""
        self.count += 1
        self.value_request.append(request)
        self.value_at.append(answer.stamp)
        self.value_version.append(answer.version)
        value = answer.value or b""
        self.size += len(value)
        self.value_bytes.append(value)

    def add_values(self, answer: Values) -> None:
        """Values read together."""
        self.count += len(answer.requests)
        self.value_request += answer.requests
        self.value_at += answer.stamps
        self.value_version += answer.versions
        self.value_bytes += answer.values
        self.size += sum(map(len, answer.values))

    def add_commits(self, answer: Commits) -> None:
        """Commits whose stamps have all passed."""
        count = len(answer.requests)
        self.count += count
        self.committed_request += answer.requests
        self.committed_at += answer.stamps
        self.committed_waited_ns += [0] * count
        if self.committed_values is not None:
            self.committed_values += [None] * count

    def add_committed(self, request: int, answer: Committed, waited_ns: int) -> None:
        """A commit whose stamp has passed."""
        self.count += 1
        if answer.values is not None and self.committed_values is None:
            self.committed_values = [None] * len(self.committed_request)
        self.committed_request.append(request)
        self.committed_at.append(answer.stamp)
        self.committed_waited_ns.append(waited_ns)
        if self.committed_values is not None:
            self.committed_values.append(answer.values)
        if answer.values is not None:
            self.size += sum(len(value) for _, value in answer.values if value is not None)

    def add_failure(self, failure: wire.Failure) -> None:
        """An operation that failed."""
        self.count += 1
        self.failures.append(failure)

    def add_rows(self, request: int, answer: Rows) -> None:
        """A page of a scan."""
        self.count += 1
        page = self.rest().rows.add(request=request, at=answer.stamp)
        page.key.extend([row[0] for row in answer.rows])
        page.version.extend([row[1] for row in answer.rows])
        page.value.extend([row[2] for row in answer.rows])
        self.size += sum(len(row[0]) + len(row[2]) for row in answer.rows)
        if answer.resume is not None:
            page.resume = answer.resume

    def rest(self) -> wire.SessionResponse:
        """The part of the frame for everything that is not frequent enough for lists of its own."""
        if self.other is None:
            self.other = wire.SessionResponse()
        return self.other

    def encode(self, lo_ns: int, safe: int) -> bytes:
        """The frame."""
        frame = self.other if self.other is not None else wire.SessionResponse()
        frame.lo_ns = lo_ns
        frame.safe = safe
        if self.value_request:
            values = frame.values
            values.request.extend(self.value_request)
            values.at.extend(self.value_at)
            values.version.extend(self.value_version)
            values.value.extend(self.value_bytes)
        if self.committed_request:
            committed = frame.committed
            committed.request.extend(self.committed_request)
            committed.at.extend(self.committed_at)
            committed.waited_ns.extend(self.committed_waited_ns)
            if self.committed_values is not None:
                for reads in self.committed_values:
                    committed.read_count.append(len(reads) if reads is not None else 0)
                    for version, value in reads or ():
                        committed.version.append(version)
                        committed.value.append(value or b"")
        if self.written:
            frame.written.extend(self.written)
        if self.failures:
            frame.failures.extend(self.failures)
        return frame.SerializeToString()
