"""The engine behind asyncio: a thread that steps, and streams that wait.

::

    loop     stream(start) ── inbox ──▶ start, leave ─┐         ┌──▶ queue of the stream
    thread                                            └─▶ step ─┘    (call_soon_threadsafe)

Everything that touches the engine or its pool runs in that thread, between two steps: `Front.call` is how
others get there. A stream that is left before its end cancels its sequence. A fault of the engine ends
the thread with its traceback, every stream with `k2store.Unavailable`, and so every later call.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import NamedTuple, TypeVar

import k2store
from serving.engine.engine import Engine
from serving.engine.request import Outcome, Request

T = TypeVar("T")


class Stream:
    """Outcomes of one sequence, as they come; ends with the one that has a `finish`.

    number  of the sequence
    """

    def __init__(self) -> None:
        self.number = 0
        self._queue: asyncio.Queue[Outcome | k2store.K2Error] = asyncio.Queue()

    def put(self, outcome: Outcome | k2store.K2Error) -> None:
        """In the loop's thread: something happened."""
        self._queue.put_nowait(outcome)

    async def __aiter__(self) -> AsyncGenerator[Outcome, None]:
        while True:
            outcome = await self._queue.get()
            if isinstance(outcome, k2store.K2Error):
                raise outcome
            yield outcome
            if outcome.finish is not None:
                return


class _Task(NamedTuple):
    """Something for the engine's thread: `run` it, or `refuse` it where nothing runs any more."""

    run: Callable[[], None]
    refuse: Callable[[k2store.K2Error], None]


class Front:
    """See the module. Open inside ``async with``; meanwhile nobody else uses the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._inbox: deque[_Task] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._failure: k2store.K2Error | None = None
        self._streams: dict[int, Stream] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="k2-engine", daemon=True)

    async def __aenter__(self) -> Front:
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The thread ends after the step that it is in; whoever still waits gets `Unavailable`."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    @property
    def failure(self) -> k2store.K2Error | None:
        """Why no more steps are made; None while they are."""
        return self._failure

    async def call(self, function: Callable[[Engine], T]) -> T:
        """Run something in the engine's thread, between two steps; gives what it gives.

        Its errors of the store's tree come back here; any other is a fault of the engine.
        """
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(self._engine))
            except k2store.K2Error as error:
                future.set_exception(error)
            finally:
                if not future.done():
                    future.set_exception(_failed())

        def refuse(error: k2store.K2Error) -> None:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

        self._post(_Task(run, refuse))
        return await asyncio.wrap_future(future)

    @asynccontextmanager
    async def stream(self, start: Callable[[Engine], int]) -> AsyncIterator[Stream]:
        """A sequence's outcomes; it is cancelled if the block is left before its end.

        start  makes the sequence and gives its number: `Engine.submit`, or `Engine.adopt`
        """
        stream = Stream()

        def begin(engine: Engine) -> None:
            stream.number = start(engine)
            self._streams[stream.number] = stream

        def leave() -> None:
            # Behind `begin` in the inbox, if that runs at all; 0 is no sequence.
            self._streams.pop(stream.number, None)
            self._engine.cancel(stream.number)

        try:
            await self.call(begin)
            yield stream
        finally:
            self._post(_Task(leave, lambda error: None))

    def generate(self, request: Request) -> AbstractAsyncContextManager[Stream]:
        """`stream` of a new request."""
        return self.stream(lambda engine: engine.submit(request))

    # -------------------------------------------------------------------------- the thread

    def _post(self, task: _Task) -> None:
        with self._wake:
            if self._failure is not None:
                task.refuse(self._failure)
            else:
                self._inbox.append(task)
                self._wake.notify()

    def _work(self) -> None:
        try:
            self._rounds()
        finally:
            # Also where a fault ends the thread, whose traceback is shown by the interpreter.
            with self._wake:
                self._failure = (
                    k2store.Unavailable("the engine is closed") if self._closing else _failed()
                )
                failure = self._failure
            for task in self._inbox:
                task.refuse(failure)
            self._tell([(stream, failure) for stream in self._streams.values()])

    def _rounds(self) -> None:
        stuck = False
        while True:
            with self._wake:
                # A step that could do nothing waits for a call: only that changes anything.
                while not (self._closing or self._inbox or (self._engine.has_work and not stuck)):
                    self._wake.wait()
                if self._closing:
                    return
            while self._inbox:
                self._inbox.popleft().run()
            steps = self._engine.counts.steps
            outcomes = self._engine.step()
            stuck = self._engine.counts.steps == steps and not outcomes
            self._tell(
                [
                    (stream, outcome)
                    for outcome in outcomes
                    if (stream := self._streams.get(outcome.number)) is not None
                ]
            )

    def _tell(self, told: list[tuple[Stream, Outcome | k2store.K2Error]]) -> None:
        if told:
            assert self._loop is not None, "the front is open"
            self._loop.call_soon_threadsafe(_put, told)


def _put(told: list[tuple[Stream, Outcome | k2store.K2Error]]) -> None:
    for stream, outcome in told:
        stream.put(outcome)


def _failed() -> k2store.Unavailable:
    return k2store.Unavailable("the engine has failed; its log says how")
