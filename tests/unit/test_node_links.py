"""Streams between nodes: what their coming and going says of the requests under way."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from k2store.node.cluster.links import NODE_KEY, RECEIVER_KEY, Links
from k2store.rpc.transport import ConnectFailed, Connection, Handler


class NoWay:
    """A dialer that reaches nobody."""

    async def connect(
        self, address: str, metadata: Mapping[str, str], handler: Handler | None = None
    ) -> Connection:
        """Fail."""
        raise ConnectFailed(address, "there is no way")


class Stream:
    """A stream that another node has dialled, as far as links look at it."""

    def __init__(self, node: str, receiver: str = "1") -> None:
        self.peer = f"node {node}"
        self.metadata = {NODE_KEY: node, RECEIVER_KEY: receiver}
        self.closed = False
        self.queued_bytes = 0
        self.why = ""

    def send(self, frame: bytes) -> None:
        """Nothing is sent on it."""
        raise AssertionError(frame)

    async def drain(self) -> None:
        """Nothing waits."""

    async def receive(self) -> bytes:
        """Nothing comes."""
        raise AssertionError(self.peer)

    def close(self, reason: str = "") -> None:
        """End it."""
        self.closed, self.why = True, reason


@pytest.fixture
def lost() -> list[int]:
    """The nodes of which requests were given up, in order."""
    return []


@pytest.fixture
def links(lost: list[int]) -> Links:
    """The streams of a node that knows no others yet."""
    links = Links(NoWay(), arrived=lambda *_: None, lost=lost.append, changed=lambda: None)
    links.introduce(1, b"life", 1)
    return links


def test_what_was_asked_while_no_answer_could_come_is_given_up(
    links: Links, lost: list[int]
) -> None:
    """A node that was asked while it had no stream to us has dropped its answer: when it dials, its
    requests are over. A request would otherwise wait for its whole deadline."""
    links.on_connect(Stream("2"))
    assert lost == [2]


def test_each_stream_that_ends_gives_up_what_it_would_have_answered(
    links: Links, lost: list[int]
) -> None:
    """A newer stream replaces an older one; the end of either is the end of its requests, once."""
    first, second = Stream("2"), Stream("2")
    links.on_connect(first)
    links.on_connect(second)
    assert first.closed
    assert lost == [2, 2]
    links.on_close(first, "late news")
    assert lost == [2, 2]
    links.on_close(second, "gone")
    assert lost == [2, 2, 2]


def test_a_stream_without_a_name_is_closed(links: Links, lost: list[int]) -> None:
    """Who does not say which node it is gets no place."""
    for name in ("", "x", "1" * 10):
        stream = Stream(name)
        links.on_connect(stream)
        assert stream.closed
    assert lost == []


def test_a_stream_for_somebody_else_is_closed(links: Links, lost: list[int]) -> None:
    """A node with an empty disk stands where another one stood: it takes nothing in its place."""
    for receiver in ("9", ""):
        stream = Stream("2", receiver)
        links.on_connect(stream)
        assert stream.closed
        assert "this is node 1" in stream.why
    assert lost == []
