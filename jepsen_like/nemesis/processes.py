"""Faults of processes: killed, stopped, paused, and without processor or memory."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jepsen_like.nemesis import control_groups
from jepsen_like.nemesis.schedule import Fault
from jepsen_like.nemesis.turning import turning

if TYPE_CHECKING:
    from jepsen_like.nemesis.world import Running, World

TURN_S: Final = 0.1
"""How long a process runs and stands still in turn, where no control group can starve it."""

THROTTLED_S: Final = 0.1
"""For how long a process must have been kept from running to have missed anything."""

HUNGER_S: Final = 10.0
"""How long a process is given to need memory that it does not get."""


def state_of(process: int) -> str:
    """The letter that the kernel gives for the state of a process: T for one that was stopped."""
    stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    return stat.rpartition(")")[2].split()[0]


def kill(world: World, fault: Fault) -> Running:
    """SIGKILL."""
    with world.claim(fault) as node:
        process = node.process
        status = node.kill()
        yield
        back = world.start(node)
        if status != -9 or node.process == process:
            return None
        return f"process {process} ended by signal 9; process {node.process} is {back}"


def stop(world: World, fault: Fault) -> Running:
    """SIGTERM: the node gives its leads away and ends."""
    with world.claim(fault) as node:
        process = node.process
        status = node.stop()
        yield
        back = world.start(node)
        return f"process {process} ended with status {status}; {back}" if status == 0 else None


def pause(world: World, fault: Fault) -> Running:
    """SIGSTOP, and SIGCONT."""
    with world.claim(fault) as node:
        began_s = time.monotonic()
        node.pause()
        yield
        state = state_of(node.process)
        node.resume()
        if state != "T":
            return None
        return f"the kernel says T after {time.monotonic() - began_s:.1f} s"


def starve_cpu(world: World, fault: Fault) -> Running:
    """`amount` of a processor, by a control group, or by stopping it most of the time."""
    with world.claim(fault) as node, ExitStack() as stack:
        try:
            group = stack.enter_context(control_groups.processor(node.process, fault.amount))
        except OSError:
            yield from _stutter(node.process, fault.amount)
            return f"stood still for {1 - fault.amount:.0%} of the time"
        yield
        times, seconds = group.throttled()
        if seconds < THROTTLED_S:
            return None
        return f"throttled {times} times, for {seconds:.1f} s"


def _stutter(process: int, share: float) -> Running:
    """Stop and continue a process, so that it runs for a share of the time."""
    import os
    import signal

    def turn() -> None:
        os.kill(process, signal.SIGSTOP)
        time.sleep(TURN_S * (1 - share))
        os.kill(process, signal.SIGCONT)

    with turning(TURN_S * share, turn):
        yield
    return None


def starve_memory(world: World, fault: Fault) -> Running:
    """`amount` bytes for what it needs from now on; it may be killed for that."""
    with world.claim(fault) as node:
        with control_groups.memory(node.process, int(fault.amount)) as group:
            yield
            # One that asks for nothing is not starved; it will, sooner or later.
            world.until(lambda: group.failures() > 0 or not node.running, HUNGER_S)
            failures = group.failures()
        if not node.running:
            node.kill()  # what is left of it
            return f"refused memory {failures} times and killed; {world.start(node)}"
        return f"refused memory {failures} times" if failures else None
