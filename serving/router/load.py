"""What workers have to do, by the count of who gives it to them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from kv_pool.keys import Worker
from kv_pool.routing.facts import Load

DECODE_S: Final = 0.05
"""Stands for the steps that a running answer shares with everything else on its worker."""


class Task:
    """A request on a worker: the seconds of its prefill, until the first token is there."""

    __slots__ = ("prefill_s",)

    def __init__(self, prefill_s: float) -> None:
        self.prefill_s = prefill_s

    def began(self) -> None:
        """The first token is there."""
        self.prefill_s = 0.0


class Loads(Mapping[Worker, Load]):
    """Load of each worker that has anything to do."""

    def __init__(self) -> None:
        self._tasks: dict[Worker, dict[int, Task]] = {}
        self._numbers = itertools.count()

    @contextmanager
    def given(self, worker: Worker, prefill_s: float) -> Iterator[Task]:
        """A worker has a request more, inside the block."""
        number = next(self._numbers)
        tasks = self._tasks.setdefault(worker, {})
        task = tasks[number] = Task(prefill_s)
        try:
            yield task
        finally:
            del tasks[number]
            if not tasks:
                self._tasks.pop(worker, None)

    def __getitem__(self, worker: Worker) -> Load:
        tasks = self._tasks[worker].values()
        return Load(len(tasks), sum([task.prefill_s + DECODE_S for task in tasks]))

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)
