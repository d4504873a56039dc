"""Wakes those whose answers have arrived.

One client process and one node would work by turns if everybody were woken at once: what they ask
next leaves as one frame, when the last of them has asked, and the node has nothing to do until
then.  So the answers of a long frame are told in two halves::

    node     ██ turn ██            ██ turn ██▒▒ turn ▒▒
    frame              ╲          ╱        ╱ ╲
    client              ██ first ██▒▒ second ▒▒██ first ...

What the first half asks has left when the second half wakes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

TOLD_AT_ONCE_MAX: Final = 191
"""Most answers that are told at once.  Half of more must still be worth a frame of its own, which
costs either end as much as some 40 operations."""

Answered: TypeAlias = "list[tuple[asyncio.Future[Any], Any]]"
"""Who waits, and for what."""


class Waker:
    """Belongs to one session, which says when a frame has left."""

    __slots__ = ("_asked", "_later", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, asked: Callable[[], bool]) -> None:
        """``asked``: whether something is about to leave; :meth:`left` is called when it has."""
        self._loop = loop
        self._asked = asked
        self._later: Answered = []

    def tell(self, answered: Answered) -> None:
        """Give the answers, perhaps the second half of them a few turns of the loop later."""
        if len(answered) > TOLD_AT_ONCE_MAX and not self._later:
            half = len(answered) // 2
            self._later = answered[half:]
            del answered[half:]
            _give(answered)
            self._loop.call_soon(self._first_half_has_run)
        else:
            _give(answered)

    def left(self) -> None:
        """What had been asked has been given to the connection."""
        if self._later:
            self._loop.call_soon(self._tell_the_rest)  # behind the writer, which wakes first

    def _first_half_has_run(self) -> None:
        if not self._asked():  # else `left` goes on with it
            self._tell_the_rest()

    def _tell_the_rest(self) -> None:
        rest, self._later = self._later, []
        _give(rest)


def _give(answered: Answered) -> None:
    for future, answer in answered:
        if not future.done():
            future.set_result(answer)
