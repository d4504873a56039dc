"""Programs whose course depends on how Python hashes, as asyncio's own parts do.

Run as a program it prints the order of events for each of them, one line each.
"""

from __future__ import annotations

import asyncio
import random
import sys

from k2store.testing.simulation import Loop


async def wait_in_order() -> list[int]:
    """In which order asyncio.wait gives up the tasks of a set that are done."""
    seen: list[int] = []

    async def child(number: int) -> int:
        await asyncio.sleep(0.001)
        return number

    waiting = {asyncio.ensure_future(child(number)) for number in range(20)}
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        seen += [task.result() for task in done]
    return seen


async def abort_in_order() -> list[int]:
    """In which order a task group that fails cancels its members."""
    seen: list[int] = []

    async def child(number: int) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            seen.append(number)
            raise

    async def fail() -> None:
        await asyncio.sleep(1)
        raise LookupError

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(child(number))
            group.create_task(fail())
    except* LookupError:
        pass
    return seen


async def futures_in_order() -> list[int]:
    """In which order a set of futures is iterated."""
    loop = asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(20)]
    garbage = [object() for _ in range(random.Random().randrange(1000))]
    return [futures.index(future) for future in set(futures)] if garbage is not None else []


async def words_in_order() -> list[str]:
    """In which order a set of words is iterated: a mistake that no loop can mend."""
    return list({f"word-{number}" for number in range(20)})


PITFALLS = (wait_in_order, abort_in_order, futures_in_order, words_in_order)


def main() -> None:
    """Print what each of them does under seed 1."""
    ballast = [bytearray(random.Random().randrange(10_000)) for _ in range(100)]
    for pitfall in PITFALLS:
        loop = Loop(random.Random(1))
        sys.stdout.write(f"{pitfall.__name__} {loop.run(pitfall())}\n")
        loop.close()
    ballast.clear()


if __name__ == "__main__":
    main()
