"""Another endpoint, as one end of a link knows it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from serving.transport.link import Frame, Link
from serving.transport.memory import Memory
from serving.transport.wire import Hello


class Peer:
    """See the module.

    name        what it calls itself
    geometries  of its memories
    memories    its memories themselves, where they can be mapped
    gone        set when nothing of it can be written here any more
    """

    def __init__(self, hello: Hello, link: Link, memories: Sequence[Memory]) -> None:
        self.name = hello.name
        self.geometries = hello.memories
        self.link = link
        self.memories = memories
        self.gone = asyncio.Event()
        self.waiting: dict[int, asyncio.Future[Frame]] = {}
        self.placing: dict[int, list[memoryview]] = {}
        self.serving: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Peer {self.name}{' lost' if self.is_lost else ''}>"

    @property
    def is_lost(self) -> bool:
        """Whether the link has ended."""
        return self.link.failure is not None
