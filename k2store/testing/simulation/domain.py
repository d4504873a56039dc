"""Domains: what dies, or stands still, together.

A *domain* is what dies together: one incarnation of one simulated process. Which domain a
callback belongs to is read from its `contextvars` context, which asyncio already carries from a
task to all it starts and from a waiter to its wake-up, whoever wakes it. Callbacks of a dead
domain never run again, not even their `finally` blocks; those of a paused one are held back and
released together.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec

if TYPE_CHECKING:
    from k2store.testing.simulation.loop import Loop

T = TypeVar("T")

SECOND_NS: Final = 1_000_000_000
BLOCKING_NS: Final = 200_000
"""How long a call that goes to a thread takes, unless a domain says otherwise."""
_SWEEP_TASKS_MIN: Final = 256


def _blocking_ns() -> int:
    """A call that finds its disk in good health."""
    return BLOCKING_NS


class DomainKilled(BaseException):
    """Unwinds a callback whose own domain was killed while it ran. Nobody should catch it."""


class State(enum.Enum):
    """Whether a domain's callbacks run."""

    RUNNING = "running"
    PAUSED = "paused"
    DEAD = "dead"


class Domain:
    """Everything that one simulated process has on the loop, to be paused or killed as one."""

    __slots__ = (
        "_graves",
        "_held",
        "_sweep_at",
        "_tasks",
        "blocking_ns",
        "context",
        "name",
        "running",
        "state",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = State.RUNNING
        self.running = True
        self.blocking_ns: Callable[[], int] = _blocking_ns
        """How long a call that goes to a thread takes now, in ns."""
        self.context = Context()
        self.context.run(current.set, self)
        self._tasks: dict[Task[Any], None] = {}
        self._held: list[Handle] = []
        self._graves: list[object] = []
        self._sweep_at = _SWEEP_TASKS_MIN

    def __repr__(self) -> str:
        return f"<domain {self.name} {self.state.value}>"

    def adopt(self, task: Task[Any]) -> None:
        """Keep the task alive until it is done, and its failure until somebody has seen it."""
        self._tasks[task] = None
        if len(self._tasks) >= self._sweep_at:
            self._sweep()
            self._sweep_at = max(_SWEEP_TASKS_MIN, 2 * len(self._tasks))

    def bury(self, thing: object) -> None:
        """Keep a reference until the end of the run, so that nothing is finalised before."""
        self._graves.append(thing)

    def pending(self) -> list[Task[Any]]:
        """Tasks that are not done, oldest first."""
        return [task for task in self._tasks if not task.done()]

    def failed(self) -> list[Task[Any]]:
        """Tasks whose exception nobody has retrieved, oldest first; none of a dead domain."""
        if self.state is State.DEAD:
            return []
        return [task for task in self._tasks if task.done() and task._log_traceback]

    def hold(self, handle: Handle) -> None:
        """Keep a paused domain's callback for later; forget a dead one's."""
        if self.state is State.PAUSED:
            self._held.append(handle)

    def _sweep(self) -> None:
        self._tasks = {t: None for t in self._tasks if not t.done() or t._log_traceback}

    def kill(self) -> None:
        """For the loop: nothing runs any more; the tasks stay, and keep silent."""
        self.state, self.running = State.DEAD, False
        self._held.clear()
        for task in self._tasks:
            task._log_destroy_pending = False
            task._log_traceback = False

    def release(self) -> list[Handle]:
        """For the loop: give back what was held."""
        held, self._held = self._held, []
        return held

    def dissolve(self) -> None:
        """For the loop, at the end of the run: give the tasks up, whatever they say to it."""
        for task in self._tasks:
            with contextlib.suppress(BaseException):
                task.get_coro().close()
        self._tasks.clear()
        self._graves.clear()


current: ContextVar[Domain] = ContextVar("simulation_domain")
"""The domain that the running callback belongs to."""


class Handle(msgspec.Struct, eq=False):
    """A scheduled callback: what asyncio's handles are to those who cancel them, only cheaper."""

    callback: Callable[..., object]
    arguments: tuple[Any, ...]
    context: Context
    domain: Domain
    when_ns: int = 0
    loop: Loop | None = None
    dead: bool = False

    def cancel(self) -> None:
        """Never run the callback; drop what it refers to."""
        if self.dead:
            return
        self.dead = True
        if self.loop is not None:
            self.loop._timer_cancelled()
        self.callback, self.arguments = _nothing, ()

    def cancelled(self) -> bool:
        """True once `cancel` was called."""
        return self.dead

    def when(self) -> float:
        """Due time of a timer, in the loop's seconds."""
        return self.when_ns / SECOND_NS


def _nothing() -> None:
    """What a cancelled handle would call."""


class Future(asyncio.Future[T]):
    """A future that hashes by a number instead of by its address."""

    __slots__ = ("_number",)

    def __hash__(self) -> int:
        # Numbered when first asked, not when created: few futures are ever hashed, and creating
        # them is the hot path.
        try:
            return self._number
        except AttributeError:
            # Only a Loop makes these futures; naming it would import in a circle.
            self._number: int = cast("Loop", self.get_loop()).number()
            return self._number


class Task(asyncio.Task[T]):
    """A task that hashes by creation number."""

    __slots__ = ("_number",)

    _log_traceback: bool
    _log_destroy_pending: bool

    def __init__(
        self,
        coroutine: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        loop: Loop,
        number: int,
        name: str,
        context: Context,
    ) -> None:
        self._number = number
        super().__init__(coroutine, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self._number
