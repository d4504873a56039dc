"""People who ask: some of each region at the same time, one turn after the other."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from msgspec import Struct

from bench.demo.real.plan import MODEL, TURN_S, Plan
from bench.demo.real.talks import Talk
from bench.processes import BenchError
from bench.serve.client import Message, Told, ask

NS_PER_S: Final = 1e9


class Turn(Struct, frozen=True, kw_only=True):
    """What became of a prompt; times are of the machine's monotonic clock.

    number        of the turn in its talk, from 0
    region        where it was asked; `before` is where the turn before it was, empty for a first one
    messages      all that was said up to it
    cached        tokens of the prompt that were not computed again
    failure       why there is no answer; empty where there is one
    """

    talk: int
    number: int
    is_lookup: bool
    region: str
    before: str
    messages: tuple[Message, ...]
    began_ns: int
    ended_ns: int
    first_s: float = 0.0
    tokens: int = 0
    cached: int = 0
    generated: int = 0
    answer: str = ""
    failure: str = ""

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is the second turn of a conversation that began in another region."""
        return self.number == 1 and self.region != self.before


class People:
    """All of them.

    routers  addresses by region
    took     is told of every turn that is over
    """

    def __init__(
        self,
        plan: Plan,
        talks: Sequence[Talk],
        routers: Mapping[str, str],
        took: Callable[[Turn], None],
    ) -> None:
        self._plan = plan
        self._routers = routers
        self._took = took
        self._queues: dict[str, deque[Talk]] = {region: deque() for region in plan.regions}
        for talk in talks:
            self._queues[talk.home].append(talk)
        self._began_s = time.monotonic()
        self._threads = ThreadPoolExecutor(plan.people * len(plan.regions), "people")
        self._broken_off = 0
        self.under_way = dict.fromkeys(plan.regions, 0)

    @property
    def left(self) -> int:
        """Prompts that nobody has asked, and nobody will."""
        waiting = [talk for queue in self._queues.values() for talk in queue]
        return self._broken_off + sum([len(talk.asks) for talk in waiting])

    async def ask(self) -> None:
        """Ask everything, or what there is time for."""
        self._began_s = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                for region in self._plan.regions:
                    for _ in range(self._plan.people):
                        group.create_task(self._person(region))
        finally:
            # Who still waits for an answer hears of its end when the processes end.
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _person(self, region: str) -> None:
        queue = self._queues[region]
        while queue and not self._is_late(0.0):
            await self._talk(queue.popleft())

    def _is_late(self, grace_s: float) -> bool:
        """Whether there is no time left for anything but what is under way."""
        latest_s = self._plan.begin_s
        return latest_s is not None and time.monotonic() - self._began_s > latest_s + grace_s

    async def _talk(self, talk: Talk) -> None:
        messages: list[Message] = [{"role": "system", "content": talk.system}]
        before = ""
        for number, (said, region) in enumerate(talk.asks):
            if number:
                await asyncio.sleep(self._plan.think_s)
            if self._is_late(TURN_S):
                self._broken_off += len(talk.asks) - number
                return
            messages.append({"role": "user", "content": said})
            turn = await self._turn(talk, number, region, before, tuple(messages))
            self._took(turn)
            if turn.failure:
                return
            messages.append({"role": "assistant", "content": turn.answer})
            before = region

    async def _turn(
        self, talk: Talk, number: int, region: str, before: str, messages: tuple[Message, ...]
    ) -> Turn:
        address, tokens_max = self._routers[region], self._plan.answer_tokens
        session = f"talk-{talk.number}"
        began_ns = time.monotonic_ns()
        told: Told | None = None
        failure = ""
        self.under_way[region] += 1
        try:
            told = await asyncio.get_running_loop().run_in_executor(
                self._threads, lambda: ask(address, MODEL, messages, tokens_max, session)
            )
        except (BenchError, OSError) as error:
            failure = str(error) or type(error).__name__
        finally:
            self.under_way[region] -= 1
        turn = Turn(
            talk=talk.number,
            number=number,
            is_lookup=talk.is_lookup,
            region=region,
            before=before,
            messages=messages,
            began_ns=began_ns,
            ended_ns=time.monotonic_ns(),
            failure=failure,
        )
        if told is None:
            return turn
        return Turn(
            talk=turn.talk,
            number=number,
            is_lookup=turn.is_lookup,
            region=region,
            before=before,
            messages=messages,
            began_ns=began_ns,
            ended_ns=turn.ended_ns,
            first_s=told.first_s,
            tokens=told.prompt_tokens,
            cached=told.cached_tokens,
            generated=told.completion_tokens,
            answer=told.text,
        )
