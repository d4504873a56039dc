"""Worker processes that are given seeds, one at a time, and are replaced when they say nothing."""

from __future__ import annotations

import os
import queue
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Final

import msgspec

from jepsen_like.swarm.worker import Answer

STUCK_S: Final = 300.0
"""A seed that takes longer, on any machine, does not come to an end."""
_HASH_SEED_MAX: Final = 2**32 - 1


class Stuck(msgspec.Struct, frozen=True):
    """A seed after which a worker had to be ended, or ended by itself."""

    kind: str
    seed: int
    what: str


class Task(msgspec.Struct, frozen=True):
    """A seed to be run, of a kind of plan. `again`: in a fresh process, under another hash seed."""

    kind: str
    seed: int
    again: bool = False


class Worker:
    """One process at a time, under a hash seed of its own."""

    def __init__(self, rng: random.Random, stuck_s: float = STUCK_S) -> None:
        self._rng = rng
        self.stuck_s = stuck_s
        """How long a seed may take."""
        self._process: subprocess.Popen[str] | None = None

    def run(self, task: Task) -> Answer | Stuck:
        """Run one seed, however it ends."""
        if task.again:
            self.close()
        process = self._process
        if process is None:
            process = self._process = self._begin()
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(self.stuck_s, process.kill)
        timer.start()
        try:
            process.stdin.write(f"{task.kind} {task.seed}\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line:
            return msgspec.json.decode(line, type=Answer)
        status = self._end()
        what = f"no answer within {self.stuck_s:g} s" if status < 0 else f"exit status {status}"
        return Stuck(task.kind, task.seed, what)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._end()

    def _end(self) -> int:
        process, self._process = self._process, None
        assert process is not None
        process.communicate()
        return process.returncode

    def _begin(self) -> subprocess.Popen[str]:
        # Dependence on the order of sets and of hashes would show as a trace that differs.
        seed = str(self._rng.randint(1, _HASH_SEED_MAX))
        return subprocess.Popen(
            [sys.executable, "-m", "jepsen_like.swarm"],
            env=os.environ | {"PYTHONHASHSEED": seed},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def together(
    tasks: Iterator[Task], jobs: int, rng: random.Random
) -> Iterator[tuple[Task, Answer | Stuck]]:
    """Run tasks in `jobs` processes, as long as there are tasks; each with what came of it."""
    done: queue.SimpleQueue[tuple[Task, Answer | Stuck] | None] = queue.SimpleQueue()
    taking = threading.Lock()

    def work(worker: Worker) -> None:
        try:
            while True:
                with taking:
                    task = next(tasks, None)
                if task is None:
                    return
                done.put((task, worker.run(task)))
        finally:
            worker.close()
            done.put(None)

    workers = [Worker(random.Random(rng.random())) for _ in range(jobs)]
    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    left = jobs
    while left:
        came = done.get()
        if came is None:
            left -= 1
        else:
            yield came
    for thread in threads:
        thread.join()
