"""The event loop: virtual time, seeded order, and domains that can die or stand still.

Owns the order in which callbacks run and nothing else; it knows no network, disk or clock. Three
things make a run a function of its seed alone:

- time is an integer of nanoseconds that moves only when nothing is ready, straight to the next
  timer, so a run neither sleeps nor reads a clock;
- of all callbacks that are ready, a seeded generator picks the next: asyncio's first-in-first-out
  order is one of many that real systems show, and code that leans on it is found out;
- tasks and futures hash by creation number instead of by address, because `asyncio.wait` and
  `asyncio.TaskGroup` iterate over sets of them.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import sys
import threading
from asyncio import events
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, Final, NoReturn, TypeVar, TypeVarTuple

from k2store.testing.simulation.domain import (
    SECOND_NS,
    Domain,
    DomainKilled,
    Future,
    Handle,
    State,
    Task,
    current,
)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STEPS_PER_INSTANT_MAX: Final = 1_000_000
_COMPACT_TIMERS_MIN: Final = 1024


class SimulationError(Exception):
    """The run failed, whatever the code under test says."""


class Deadlock(SimulationError):
    """Nothing is ready and no timer is set, yet somebody waits."""


class Livelock(SimulationError):
    """Callbacks keep each other ready without time ever moving."""


class OutOfTime(SimulationError):
    """The awaited thing did not happen within its limit of virtual time."""


class UnhandledError(SimulationError):
    """A task or callback failed and nobody looked at its exception."""


class Loop(asyncio.AbstractEventLoop):
    """Runs callbacks in seeded order on virtual time. One thread, one run, no sockets.

    What it does not offer (threads, sockets, signals, subprocesses) raises, as the abstract
    loop does: code under simulation gets those through ports.
    """

    def __init__(self, order: random.Random) -> None:
        """`order` decides which ready callback runs next; nothing else may draw from it."""
        self.now_ns = 0
        self.steps = 0
        self.domains: list[Domain] = []
        self.world = self.domain("world")
        self._random = order.random
        self._ready: list[Handle] = []
        self._timers: list[tuple[int, int, Handle]] = []
        self._timers_cancelled = 0
        self._numbers = itertools.count(1)
        self._failures: list[BaseException] = []
        self._thread = threading.get_ident()
        self._stopping = False
        self._running = False
        self._closed = False

    def number(self) -> int:
        """The next of a run's creation numbers."""
        return next(self._numbers)

    # Domains

    def domain(self, name: str) -> Domain:
        """Make a new, running domain."""
        domain = Domain(name)
        self.domains.append(domain)
        return domain

    def current_domain(self) -> Domain:
        """The domain of the callback that runs now; `world` outside of any."""
        return current.get(self.world)

    def kill(self, domain: Domain) -> None:
        """Nothing of this domain runs ever again. Its tasks are kept, frozen, until `close`.

        A failed assertion that nobody has looked at yet still fails the run; other exceptions
        might have found their waiter, had it lived.
        """
        for task in domain.failed():
            error = task.exception()
            if isinstance(error, AssertionError | SimulationError):
                self.fail(error)
        domain.kill()

    def pause(self, domain: Domain) -> None:
        """Hold everything of a running domain back from now on."""
        if domain.state is State.RUNNING:
            domain.state, domain.running = State.PAUSED, False

    def resume(self, domain: Domain) -> int:
        """Make all that came due while the domain was paused ready at once; gives how many."""
        if domain.state is not State.PAUSED:
            return 0
        domain.state, domain.running = State.RUNNING, True
        late = domain.release()
        self._ready.extend(late)
        return len(late)

    # Scheduling

    def time(self) -> float:
        """Virtual seconds since the start of the run."""
        return self.now_ns / SECOND_NS

    def call_soon(  # type: ignore[override]  # our handles are no subclass, for speed
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> Handle:
        """Run the callback in some order among all that is ready."""
        if context is None:
            context = copy_context()
        handle = Handle(callback, args, context, context.get(current, self.world))
        if not self._closed:
            self._ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]  # our handles are no subclass, for speed
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> Handle:
        """`call_soon`, from this thread only: a second thread would end determinism."""
        if threading.get_ident() != self._thread:
            raise SimulationError("a thread called into the simulation")
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]  # our handles are no subclass, for speed
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> Handle:
        """Run the callback `delay` virtual seconds from now."""
        context = context or copy_context()
        when_ns = self.now_ns + round(delay * SECOND_NS)
        return self.schedule(when_ns, context, callback, *args)

    def call_at(  # type: ignore[override]  # our handles are no subclass, for speed
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> Handle:
        """Run the callback when `time()` has reached `when`."""
        context = context or copy_context()
        return self.schedule(round(when * SECOND_NS), context, callback, *args)

    def schedule(
        self,
        when_ns: int,
        context: Context,
        callback: Callable[[*Ts], object],
        *args: *Ts,
    ) -> Handle:
        """Run the callback at `when_ns`, in the domain and the variables of `context`."""
        handle = Handle(callback, args, context, context.get(current, self.world))
        if not self._closed:
            handle.when_ns = when_ns
            handle.loop = self
            heapq.heappush(self._timers, (when_ns, next(self._numbers), handle))
        return handle

    def run_in_executor(  # type: ignore[override]  # nobody waits for it from another thread
        self, executor: None, func: Callable[[*Ts], T], *args: *Ts
    ) -> Future[T]:
        """Run a blocking call as if in a thread: others run while its time passes.

        It happens as a whole, at its end, on this very thread; if the domain dies before that, it
        does not happen. Only the default executor exists.
        """
        if executor is not None:
            raise SimulationError("there are no executors in a simulation")
        future: Future[T] = self.create_future()

        def call() -> None:
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001  # of any kind: it belongs to who waits
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        due_ns = self.now_ns + self.current_domain().blocking_ns()
        self.schedule(due_ns, copy_context(), call)
        return future

    def create_future(self) -> Future[Any]:
        """A future of this loop."""
        return Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> Task[T]:
        """Start a task in the caller's domain, or in that of `context`."""
        context = context or copy_context()
        domain = context.get(current, self.world)
        number = next(self._numbers)
        label = f"{domain.name}/{number}" if name is None else str(name)
        task = Task(coro, loop=self, number=number, name=label, context=context)
        if domain.state is State.DEAD or self._closed:
            task._log_destroy_pending = False
            domain.bury(task)
        else:
            domain.adopt(task)
        return task

    # Failures

    def fail(self, error: BaseException) -> None:
        """Make the run fail with this error as soon as the running callback returns."""
        self._failures.append(error)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What asyncio calls for an error that has nobody to go to: the run fails."""
        if self._closed or self.current_domain().state is State.DEAD:
            return
        error = UnhandledError(str(context.get("message")))
        error.__cause__ = context.get("exception")
        self.fail(error)

    def check(self) -> None:
        """Raise the first failure, those of tasks nobody awaited included."""
        if self._failures:
            raise self._failures[0]
        for domain in self.domains:
            for task in domain.failed():
                raise UnhandledError(f"task {task.get_name()} failed") from task.exception()

    # Running

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        """Run until the future is done and return its result; then `check`."""
        if isinstance(future, Generator):
            raise TypeError("coroutines made by generators are of the past")
        return self.run(future)

    def run(self, awaitable: Awaitable[T], limit_ns: int | None = None) -> T:
        """Run until the awaitable is done, for at most `limit_ns` of virtual time.

        Raises OutOfTime beyond the limit, Deadlock, Livelock, and the first failure of anybody.
        """

        def start() -> asyncio.Future[T]:
            return asyncio.ensure_future(awaitable, loop=self)

        future = self.world.context.copy().run(start)
        future.add_done_callback(self._stop, context=self.world.context)
        try:
            end_ns = None if limit_ns is None else self.now_ns + limit_ns
            if not self._run(end_ns):
                self._explain(future, limit_ns)
        finally:
            future.remove_done_callback(self._stop)
        result = future.result()
        self.check()
        return result

    def run_until(self, when_ns: int) -> None:
        """Run all that happens up to and including `when_ns`; then the time is `when_ns`."""
        self._run(when_ns)
        self.now_ns = max(self.now_ns, when_ns)
        self.check()

    def stop(self) -> None:
        """Return from `run` after the running callback."""
        self._stopping = True

    def is_running(self) -> bool:
        """True inside a run."""
        return self._running

    def is_closed(self) -> bool:
        """True after `close`."""
        return self._closed

    def get_debug(self) -> bool:
        """Never: debug mode reads the real clock."""
        return False

    def close(self) -> None:
        """End the run for good: every domain dies, every callback is forgotten.

        Only now are the frozen tasks of dead domains given up. What their `finally` blocks do
        meets a closed loop and dead ports, and changes nothing; their complaints are muted.
        """
        if self._closed:
            return
        assert not self._running
        self._closed = True
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            for domain in self.domains:
                domain.kill()
            for domain in self.domains:
                domain.dissolve()
            self._ready.clear()
            self._timers.clear()
        finally:
            sys.unraisablehook = hook

    def _stop(self, _: object) -> None:
        self._stopping = True

    def _explain(self, future: asyncio.Future[Any], limit_ns: int | None) -> NoReturn:
        waiting = [
            f"{task.get_name()} ({domain.state.value})"
            for domain in self.domains
            if domain.state is not State.DEAD
            for task in domain.pending()
        ]
        what = f"{future!r} still pending; waiting: {', '.join(waiting[:20]) or 'nobody'}"
        if not self._timers and not self._ready:
            raise Deadlock(f"nothing is scheduled at {self.now_ns} ns, {what}")
        raise OutOfTime(f"not done within {limit_ns} ns, {what}")

    def _run(self, end_ns: int | None) -> bool:
        """Run until stopped (True), or until `end_ns` or until nothing is left (False)."""
        if self._closed:
            raise SimulationError("the loop is closed")
        if self._running or events._get_running_loop() is not None:
            raise SimulationError("a loop is already running in this thread")
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=None, finalizer=self._finalize_generator)
        events._set_running_loop(self)
        self._running, self._stopping = True, False
        try:
            while self._ready or self._advance(end_ns):
                if self._run_instant():
                    return True
            return False
        finally:
            self._running = False
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def _advance(self, end_ns: int | None) -> bool:
        """Move time to the next timer, and all timers due then to the ready list."""
        timers, ready = self._timers, self._ready
        while timers and timers[0][2].dead:
            heapq.heappop(timers)
            self._timers_cancelled -= 1
        if not timers or (end_ns is not None and timers[0][0] > end_ns):
            return False
        if timers[0][0] > self.now_ns:
            self.now_ns = timers[0][0]
        now_ns = self.now_ns
        while timers and timers[0][0] <= now_ns:
            handle = heapq.heappop(timers)[2]
            handle.loop = None
            if handle.dead:
                self._timers_cancelled -= 1
            else:
                ready.append(handle)
        return True

    def _run_instant(self) -> bool:
        """Run ready callbacks until there are none; True if stopped."""
        ready, pick, failures = self._ready, self._random, self._failures
        steps = 0
        try:
            while ready:
                index = int(pick() * len(ready))
                handle = ready[index]
                last = ready.pop()
                if last is not handle:
                    ready[index] = last
                if handle.dead:
                    continue
                if not handle.domain.running:
                    handle.domain.hold(handle)
                    continue
                steps += 1
                try:
                    handle.context.run(handle.callback, *handle.arguments)
                except Exception as error:  # noqa: BLE001  # of any kind: it fails the run
                    self._callback_failed(handle, error)
                except DomainKilled:
                    assert not handle.domain.running, handle.domain
                if failures:
                    raise failures[0]
                if self._stopping:
                    return True
                if steps > STEPS_PER_INSTANT_MAX:
                    raise Livelock(f"{steps} callbacks at {self.now_ns} ns; the last: {handle!r}")
            return False
        finally:
            self.steps += steps

    def _callback_failed(self, handle: Handle, error: Exception) -> None:
        if handle.domain.state is State.DEAD:
            return
        failure = UnhandledError(f"callback {handle!r} failed")
        failure.__cause__ = error
        self.fail(failure)

    def _timer_cancelled(self) -> None:
        self._timers_cancelled += 1
        if self._timers_cancelled > max(_COMPACT_TIMERS_MIN, len(self._timers) // 2):
            self._timers = [entry for entry in self._timers if not entry[2].dead]
            heapq.heapify(self._timers)
            self._timers_cancelled = 0

    def _finalize_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Close a dropped asynchronous generator, as asyncio would; keep a dead one frozen."""
        domain = self.current_domain()
        if self._closed:
            return
        if domain.state is State.DEAD:
            domain.bury(generator)
        else:
            self.create_task(generator.aclose())
