"""Channels to whoever keeps the control plane: their options, and credentials from files."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from k2store.config import Settings
from k2store.errors import Rejected, Unavailable
from k2store.rpc.transport import FRAME_BYTES_MAX

T = TypeVar("T")
S = TypeVar("S", bound=grpc.aio.Call)

DEADLINE_S: Final = 5.0
"""How long a call to the control plane may take, other members and pauses included."""

PAUSE_S: Final = 0.05
PAUSE_S_MAX: Final = 2.0
"""Between two attempts: it doubles from the first to the second."""

ENDING_S: Final = 0.2
"""How long calls that were cancelled may take to end before their channel is closed."""

SILENCE_S_MAX: Final = 10.0
"""A watch that has heard nothing for so long is doubted: somebody is asked, and it begins anew."""

TRANSIENT: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)
"""How a call ends whose connection broke, in one way or another: it may be tried again."""

OPTIONS: Final = (
    ("grpc.max_receive_message_length", FRAME_BYTES_MAX),
    ("grpc.max_send_message_length", FRAME_BYTES_MAX),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A peer that is gone without a word is noticed after half a minute, and left.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)


def channel(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    """A channel to `host:port`; nothing is sent before the first call."""
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=OPTIONS)
    return grpc.aio.secure_channel(address, credentials, options=OPTIONS)


class Life:
    """Whether a client is open still: it refuses calls, ends pauses, and explains broken calls.

    A client ends its calls first, gives them a moment to end, and only then closes its channels; and
    whoever waits for a call is let go as soon as the client ends, whatever becomes of the call.
    """

    def __init__(self) -> None:
        self._closed = asyncio.Event()
        self._running: dict[asyncio.Future[Any], grpc.aio.Call | None] = {}
        self._streams: set[grpc.aio.Call] = set()

    @property
    def over(self) -> bool:
        """Whether the client was closed."""
        return self._closed.is_set()

    async def end(self) -> None:
        """The client is being closed: end what runs; afterwards channels may be closed."""
        self._closed.set()
        for call in (*self._running.values(), *self._streams):
            if call is not None:
                call.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=ENDING_S)
        for left in tuple(self._running):
            left.cancel()  # gRPC does not always tell a call that it was cancelled before it began.

    def check(self, what: str) -> None:
        """Raise Unavailable once the client is closed."""
        if self.over:
            raise Unavailable(f"{what} was not asked: this client was closed")

    @contextmanager
    def stream(self, what: str, begin: Callable[[], S]) -> Iterator[S]:
        """A stream for the length of a block; it ends with the block, or with the client."""
        self.check(what)
        stream = begin()
        self._streams.add(stream)
        try:
            yield stream
        finally:
            self._streams.discard(stream)
            stream.cancel()

    async def pause(self, seconds: float) -> None:
        """Wait, but not longer than the client is open."""
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            return

    async def call(self, what: str, run: Callable[[], Awaitable[T]]) -> T:
        """What a call gives; Unavailable as soon as the client is closed, whatever becomes of it."""
        self.check(what)
        begun = run()
        asked = asyncio.ensure_future(begun)
        self._running[asked] = begun if isinstance(begun, grpc.aio.Call) else None
        asked.add_done_callback(self._ran)
        ended = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((asked, ended), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            asked.cancel()
            raise
        finally:
            ended.cancel()
        if not asked.done() or asked.cancelled():
            raise Unavailable(f"{what} was not answered: this client was closed")
        return asked.result()

    def _ran(self, asked: asyncio.Future[T]) -> None:
        """Nobody may wait for it any more, so nobody misses how it ended."""
        del self._running[asked]
        if not asked.cancelled():
            asked.exception()


def node_credentials(settings: Settings) -> grpc.ChannelCredentials:
    """How a node shows who it is: with the certificate that it serves with, signed by `[tls]`."""
    tls = settings.tls
    return _credentials(
        (tls.authority, "tls.authority"), (tls.key, "tls.key"), (tls.certificate, "tls.certificate")
    )


def client_credentials(settings: Settings) -> grpc.ChannelCredentials:
    """How a command line shows who it is: by the section `[client]`."""
    client = settings.client
    return _credentials(
        (client.authority, "client.authority"),
        (client.key, "client.key"),
        (client.certificate, "client.certificate"),
    )


def token_of(settings: Settings) -> str | None:
    """The token in the file of `client.token`; None without one."""
    content = _content(settings.client.token, "client.token")
    return None if content is None else content.decode("ascii", "replace").strip()


def _credentials(
    authority: tuple[str, str], key: tuple[str, str], certificate: tuple[str, str]
) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_content(*authority),
        private_key=_content(*key),
        certificate_chain=_content(*certificate),
    )


def _content(name: str, setting: str) -> bytes | None:
    if not name:
        return None
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Rejected(f"{setting}: cannot read {name}: {error.strerror}", field=setting) from error
