"""Whose conversation a request belongs to, for policies that go by it: said in a header by who asks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Final

from serving.api.exchange import Message, Receive, Send

HEADER: Final = b"x-session-id"
SESSION_BYTES_MAX: Final = 256

_session: ContextVar[str] = ContextVar("session", default="")


def session() -> str:
    """The conversation of the request that this task serves; empty where nothing was said."""
    return _session.get()


class Sessions:
    """An ASGI application around another one: notes the header for whoever asks `session` inside."""

    def __init__(self, inner: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self._inner = inner

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one exchange."""
        for name, value in scope.get("headers", ()):
            if name == HEADER:
                _session.set(value[:SESSION_BYTES_MAX].decode("latin-1"))
        await self._inner(scope, receive, send)
