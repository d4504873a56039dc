"""The simulator's event loop: virtual time, seeded order, and what asyncio makes of it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import random
import threading
import time

import pytest

from k2store.testing.simulation import (
    SECOND_NS,
    Deadlock,
    Livelock,
    Loop,
    OutOfTime,
    SimulationError,
    UnhandledError,
)


@pytest.fixture
def loop():
    """A loop of seed 1, closed afterwards, with the garbage collector off meanwhile."""
    gc.collect()
    gc.disable()
    made = Loop(random.Random(1))
    yield made
    made.close()
    gc.enable()


def order_of(seed: int, count: int = 20) -> list[int]:
    """In which order that many ready callbacks run."""
    loop = Loop(random.Random(seed))
    order: list[int] = []
    for number in range(count):
        loop.call_soon(order.append, number)
    loop.run_until(0)
    loop.close()
    return order


def test_time_moves_only_between_timers(loop):
    """A year of sleeping takes no time, and every sleeper wakes at its own nanosecond."""
    woken: list[tuple[int, int]] = []

    async def sleeper(days: int) -> None:
        await asyncio.sleep(days * 86_400)
        woken.append((days, loop.now_ns))

    async def main() -> None:
        await asyncio.gather(*(sleeper(days) for days in (365, 1, 30)))

    began = time.monotonic()
    loop.run(main())
    assert woken == [(days, days * 86_400 * SECOND_NS) for days in (1, 30, 365)]
    assert time.monotonic() - began < 60


def test_time_is_kept_in_integers(loop):
    """Twenty thousand sleeps of a tenth of a millisecond add up exactly, which floats do not."""

    async def main() -> None:
        for _ in range(20_000):
            await asyncio.sleep(0.0001)

    loop.run(main())
    assert loop.now_ns == 2 * SECOND_NS


def test_the_seed_decides_the_order_of_what_is_ready():
    """Equal seeds run ready callbacks in equal order, different ones in different orders."""
    orders = {tuple(order_of(seed)) for seed in range(20)}
    assert order_of(3) == order_of(3)
    assert len(orders) == 20
    assert all(sorted(order) == list(range(20)) for order in orders)


def test_every_order_of_three_is_reachable():
    """The pick is not skewed to a few orders: all six of three callbacks occur."""
    assert len({tuple(order_of(seed, 3)) for seed in range(100)}) == 6


def test_what_asyncio_builds_on_the_loop_works(loop):
    """Timeouts, events, queues, task groups, locks and conditions behave as they should."""

    async def main() -> str:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=2)
        event, lock, seen = asyncio.Event(), asyncio.Lock(), []

        async def produce() -> None:
            for number in range(10):
                await queue.put(number)
            event.set()

        async def consume() -> None:
            while len(seen) < 10:
                async with lock:
                    seen.append(await queue.get())

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            group.create_task(consume())
        assert seen == list(range(10))
        await event.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await asyncio.sleep(5)
        assert loop.now_ns == 3 * SECOND_NS
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.create_future(), 1)
        assert await asyncio.gather(asyncio.sleep(1, "a"), asyncio.sleep(2, "b")) == ["a", "b"]
        with pytest.raises(ExceptionGroup) as failed:
            await fail_together()
        assert failed.group_contains(LookupError)
        assert loop.now_ns == 6 * SECOND_NS
        return "done"

    async def fail_together() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(100))
            group.create_task(fails())

    async def fails() -> None:
        raise LookupError

    assert loop.run_until_complete(main()) == "done"


def test_context_variables_follow_tasks_and_callbacks(loop):
    """A task keeps the variables of its creator, and a change in one is unseen in another."""
    variable = contextvars.ContextVar("variable", default=0)

    async def child(value: int) -> tuple[int, int]:
        before = variable.get()
        variable.set(value)
        await asyncio.sleep(0.1)
        return before, variable.get()

    async def main() -> None:
        variable.set(7)
        assert await asyncio.gather(child(1), child(2)) == [(7, 1), (7, 2)]
        seen = loop.create_future()
        loop.call_soon(lambda: seen.set_result(variable.get()))
        assert await seen == 7

    loop.run(main())


def test_cancelled_timers_are_forgotten(loop):
    """Time-outs that never fire cost no time and are not kept."""

    async def main() -> None:
        for _ in range(20_000):
            async with asyncio.timeout(1_000):
                await asyncio.sleep(0)

    loop.run(main())
    assert loop.now_ns == 0
    assert len(loop._timers) < 5_000


def test_nothing_scheduled_is_a_deadlock(loop):
    """Waiting for what nobody will ever do is an error that names who waits."""

    async def main() -> None:
        await asyncio.gather(loop.create_task(asyncio.Event().wait(), name="the waiter"))

    with pytest.raises(Deadlock, match="the waiter"):
        loop.run(main())


def test_callbacks_without_end_are_a_livelock(loop, monkeypatch):
    """Callbacks that keep each other ready while time stands still are an error."""
    monkeypatch.setattr("k2store.testing.simulation.loop.STEPS_PER_INSTANT_MAX", 1_000)

    def again() -> None:
        loop.call_soon(again)

    loop.call_soon(again)
    with pytest.raises(Livelock):
        loop.run_until(1)


def test_a_run_has_a_limit_of_virtual_time(loop):
    """A system that ticks for ever without finishing fails at the limit."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(1)

    with pytest.raises(OutOfTime):
        loop.run(tick(), limit_ns=100 * SECOND_NS)
    assert loop.now_ns == 100 * SECOND_NS


def test_an_exception_in_a_task_that_nobody_awaits_fails_the_run(loop):
    """A background task's exception reaches the run although its task object is dropped."""

    async def background() -> None:
        raise LookupError("lost")

    async def main() -> None:
        loop.create_task(background())
        await asyncio.sleep(1)

    with pytest.raises(UnhandledError) as failure:
        loop.run(main())
    assert isinstance(failure.value.__cause__, LookupError)


def test_an_exception_in_a_callback_fails_the_run(loop):
    """A callback's exception ends the run at once."""

    def callback() -> None:
        raise LookupError("lost")

    loop.call_later(1, callback)
    with pytest.raises(UnhandledError) as failure:
        loop.run(asyncio.sleep(2))
    assert isinstance(failure.value.__cause__, LookupError)
    assert loop.now_ns == 1 * SECOND_NS


def test_an_exception_that_somebody_handles_does_not_fail_the_run(loop):
    """Awaiting a failed task is enough, also long after it failed and among many others."""

    async def fails() -> None:
        raise LookupError

    async def main() -> None:
        task = loop.create_task(fails())
        for _ in range(2_000):
            await loop.create_task(asyncio.sleep(0))
        with pytest.raises(LookupError):
            await task

    loop.run(main())


def test_a_dead_domain_never_acts_again(loop):
    """After a kill neither callbacks nor timers nor `finally` blocks of the domain run."""
    acts: list[str] = []
    domain = loop.domain("node")

    async def worker() -> None:
        try:
            while True:
                await asyncio.sleep(1)
                acts.append("worked")
        finally:
            acts.append("finally")

    async def generate():
        try:
            yield 1
            yield 2
        finally:
            acts.append("generator's finally")

    async def consume() -> None:
        async for _ in generate():
            await loop.create_future()

    async def main() -> None:
        for make in (worker, consume):
            loop.create_task(make(), context=domain.context.copy())
        await asyncio.sleep(2.5)
        assert acts == ["worked", "worked"]
        loop.kill(domain)
        gc.collect()
        await asyncio.sleep(100)
        gc.collect()

    loop.run(main())
    assert acts == ["worked", "worked"]


def test_a_waiter_wakes_in_its_own_domain(loop):
    """A future resolved by a living domain does not bring a dead domain's waiter back."""
    acts: list[str] = []
    dead, alive = loop.domain("dead"), loop.domain("alive")
    shared = loop.create_future()

    async def waiter(name: str) -> None:
        await shared
        acts.append(f"{name} in {loop.current_domain().name}")

    for domain in (dead, alive):
        loop.create_task(waiter(domain.name), context=domain.context.copy())
    loop.run_until(0)
    loop.kill(dead)
    shared.set_result(None)
    loop.run_until(10)
    assert acts == ["alive in alive"]


def test_a_paused_domain_wakes_with_a_burst(loop):
    """Timers that come due during a pause fire late, together, at the moment of waking."""
    domain, fired = loop.domain("node"), []
    for delay in (1, 2, 3, 9):
        loop.schedule(
            delay * SECOND_NS, domain.context, lambda d=delay: fired.append((d, loop.now_ns))
        )
    loop.pause(domain)
    loop.run_until(5 * SECOND_NS)
    assert fired == []
    assert loop.resume(domain) == 3
    loop.run_until(10 * SECOND_NS)
    assert sorted(fired[:3]) == [(delay, 5 * SECOND_NS) for delay in (1, 2, 3)]
    assert fired[3] == (9, 9 * SECOND_NS)


def test_a_failed_assertion_is_not_forgiven_by_a_kill(loop):
    """A domain that is killed after an assertion failed in it still fails the run."""
    domain = loop.domain("node")

    async def asserts() -> None:
        raise AssertionError("broken invariant")

    async def main() -> None:
        loop.create_task(asserts(), context=domain.context.copy())
        await asyncio.sleep(1)
        loop.kill(domain)

    with pytest.raises(AssertionError, match="broken invariant"):
        loop.run(main())


def test_a_call_for_a_thread_takes_its_time_on_the_loop(loop):
    """A blocking call runs later, in virtual time and on this thread, and gives what it gives."""

    async def main() -> None:
        domain = loop.current_domain()
        domain.blocking_ns = lambda: SECOND_NS
        assert await asyncio.to_thread(threading.get_ident) == threading.get_ident()
        assert loop.now_ns == SECOND_NS
        with pytest.raises(LookupError):
            await loop.run_in_executor(None, {}.__getitem__, "absent")
        assert loop.now_ns == 2 * SECOND_NS

    loop.run(main())


def test_threads_executors_and_sockets_are_refused(loop):
    """What would bring foreign time into the run raises instead."""

    async def main() -> None:
        with pytest.raises(SimulationError):
            loop.run_in_executor(object(), print)
        with pytest.raises(RuntimeError):
            await asyncio.open_connection("localhost", 1)

    loop.run(main())
    caught: list[Exception] = []

    def foreign() -> None:
        try:
            loop.call_soon_threadsafe(print)
        except SimulationError as error:
            caught.append(error)

    thread = threading.Thread(target=foreign)
    thread.start()
    thread.join()
    assert len(caught) == 1


def test_a_dropped_generator_is_closed_on_the_loop(loop):
    """An asynchronous generator left half-way runs its `finally`, with its awaits, as asyncio's."""
    acts: list[str] = []

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            await asyncio.sleep(1)
            acts.append("closed")

    async def main() -> None:
        async for _ in numbers():
            break
        await asyncio.sleep(2)

    loop.run(main())
    assert acts == ["closed"]


def test_stepping_is_not_slower_than_asyncio_by_much():
    """The price of determinism: at most six times asyncio's CPU time on the same sleepers.

    Typical is about one; the test is there to notice an accident of another order.
    """

    async def main() -> None:
        async def sleeper(pace: int) -> None:
            for _ in range(20):
                await asyncio.sleep(0.0001 * pace)

        async with asyncio.TaskGroup() as group:
            for number in range(500):
                group.create_task(sleeper(number % 7))

    began = time.process_time()
    asyncio.run(main())
    real = time.process_time() - began
    loop = Loop(random.Random(1))
    began = time.process_time()
    loop.run(main())
    simulated = time.process_time() - began
    assert loop.steps > 15_000
    loop.close()
    assert simulated < 6 * real
