"""Faults of disks: power lost, full, failing, slow, damaged, lost, and old.

What must never follow is a node that goes on with less than it has acknowledged. A node whose disk
was damaged, or is an old one, may notice and refuse; then it is given an empty disk and comes back as
another member, which copies everything. What it shows in the end is compared with all others.
"""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jepsen_like.nemesis import tracing
from jepsen_like.nemesis.schedule import Fault
from jepsen_like.nemesis.world import Broken, Unable, grown
from k2store import K2Error

if TYPE_CHECKING:
    from jepsen_like.nemesis.world import Running, World
    from k2store.testing.cluster import ClusterNode
    from k2store.testing.disk_image import DiskImage

PATIENCE_S: Final = 15.0
"""How long an effect may let wait for itself after the time of its fault."""
WHOLE_S: Final = 20.0
"""How long until every log has all its voters again."""
NOTICED_S: Final = 40.0
"""A node with an old disk that started without the control plane is told so once that is back."""
OLD: Final = ("is an old copy", "lacks what this node has acknowledged")
NO_SPACE: Final = "No space left on device"


def _disk(world: World, fault: Fault) -> DiskImage:
    found = world.disks.get(fault.target)
    if found is None:
        raise Unable("nodes have no disks of their own here")
    return found


def _ended(world: World, node: ClusterNode, patience_s: float) -> bool:
    return world.until(lambda: not node.running, patience_s)


# -- failing ---------------------------------------------------------------------------------------


def power_cut(world: World, fault: Fault) -> Running:
    """No byte reaches the disk any more, then the process is killed."""
    disk = _disk(world, fault)
    with world.claim(fault) as node:
        disk.cut()
        # It runs on for a moment, on a disk that takes nothing: it may acknowledge nothing.
        time.sleep(0.02)
        node.kill()
        yield
        lost = disk.restore()
        back = world.start(node)
        return f"a file that was never synced is gone; {back}" if lost else None


def disk_full(world: World, fault: Fault) -> Running:
    """No room for another byte."""
    disk = _disk(world, fault)
    with world.claim(fault) as node:
        log_bytes = node.log_path.stat().st_size
        taken = disk.fill()
        # The log's present file was made in full: only the next one asks for room.
        world.write_bulk(node.region)
        try:
            yield
            _ended(world, node, PATIENCE_S)
        finally:
            disk.free()
        if node.running:
            return None
        status = node.kill()
        noticed = NO_SPACE in grown(node.log_path, log_bytes)
        back = world.start(node)
        if not noticed:
            return None
        return f"{taken} bytes taken; ended with status {status} for want of room; {back}"


def fail_sync(world: World, fault: Fault) -> Running:
    """Syncs fail with EIO."""
    with world.claim(fault) as node:
        try:
            with tracing.syncs(node.process, "error=EIO") as traced:
                yield
                _ended(world, node, PATIENCE_S)
                failed = traced.count("INJECTED")
        except OSError as error:
            raise Unable(str(error)) from error
        if node.running:
            if failed:
                raise Broken(f"{node.name} goes on after {failed} failed syncs")
            return None
        status = node.kill()
        back = world.start(node)
        return f"{failed} syncs failed; ended with status {status}; {back}" if failed else None


def slow_disk(world: World, fault: Fault) -> Running:
    """Each sync takes `amount` ns longer."""
    with world.claim(fault) as node:
        try:
            with tracing.syncs(node.process, f"delay_enter={int(fault.amount / 1000)}") as traced:
                yield
                delayed = traced.count("DELAYED")
        except OSError as error:
            raise Unable(str(error)) from error
        return f"{delayed} syncs took {fault.amount / 1e6:.0f} ms longer" if delayed else None


# -- lost ------------------------------------------------------------------------------------------


def _may_lose(world: World, node: ClusterNode) -> None:
    """Take the right to lose a copy, which `_whole` gives back."""
    if node.name == world.keeper:
        raise Unable(f"{node.name} keeps the control plane")
    if not world.destroying.acquire(blocking=False):
        raise Unable("another copy is lost at this time")
    if not world.until(world.has_no_second_loss, PATIENCE_S):
        world.destroying.release()
        raise Unable("a voter is missing already")


def _whole(world: World) -> None:
    world.until(world.has_no_second_loss, WHOLE_S)
    world.destroying.release()


def _anew(world: World, node: ClusterNode) -> str:
    """An empty disk: the node comes back as another member."""
    node.wipe()
    return world.start(node)


def _number(world: World, node: ClusterNode) -> int:
    """The id of a node that serves; 0 when it does not answer."""
    status = world.statuses().get(node.name)
    return 0 if status is None else status.cluster.node


def lose_disk(world: World, fault: Fault) -> Running:
    """Killed, and its disk is empty."""
    with world.claim(fault) as node:
        _may_lose(world, node)
        try:
            before = _number(world, node)
            node.kill()
            yield
            back = _anew(world, node)
            world.until(lambda: _number(world, node) > 0, PATIENCE_S)
            after = _number(world, node)
        finally:
            _whole(world)
        if not before < after:
            return None
        return f"member {before} is gone; member {after} is {back}"


def stale_disk(world: World, fault: Fault) -> Running:
    """Comes back with the disk as it was at the beginning."""
    with world.claim(fault) as node:
        _may_lose(world, node)
        old = world.cluster.path / node.name / "old-disk"
        try:
            node.kill()
            shutil.copytree(node.data, old)
            world.start(node)
            yield
            node.kill()
            node.wipe()
            shutil.move(old, node.data)
            return _with_old_disk(world, node)
        finally:
            shutil.rmtree(old, ignore_errors=True)
            _whole(world)


def _with_old_disk(world: World, node: ClusterNode) -> str:
    """Start a node on an old disk. It refuses, or ends as soon as the control plane can tell it."""
    log_bytes = node.log_path.stat().st_size
    began_s = time.monotonic()
    try:
        node.start()
    except K2Error as error:
        said = error.message
    else:
        if not _ended(world, node, NOTICED_S):
            raise Broken(f"{node.name} goes on with an old disk")
        said = grown(node.log_path, log_bytes)
    node.kill()
    if not any(why in said for why in OLD):
        raise Broken(f"{node.name} ended on its old disk, and did not say why: {said[-300:]}")
    noticed_s = time.monotonic() - began_s
    return f"refused its old disk after {noticed_s:.1f} s; {_anew(world, node)} as another member"


# -- damaged ---------------------------------------------------------------------------------------


NOTICES_S: Final = 3.0
"""For so long a node goes on with damage that it has not met."""


def corrupt(world: World, fault: Fault) -> Running:
    """Killed, and bits of a file are turned over."""
    rng = random.Random(f"{fault.at_ns} {fault.target}")
    with world.claim(fault) as node:
        _may_lose(world, node)
        try:
            node.kill()
            path, places = damage(node.data, rng, max(1, int(fault.amount)))
            yield
            try:
                back = world.start(node)
            except Broken as broken:
                return f"{path} damaged at {places}: {broken}; {_anew(world, node)}"
            ended = _ended(world, node, NOTICES_S)
            node.kill()
            if ended:
                return f"{path} damaged at {places}: it ended; {_anew(world, node)}"
            # What lies where nobody has looked may be met when another copy is lost.
            return f"{path} damaged at {places}: not met, {back}; {_anew(world, node)}"
        finally:
            _whole(world)


def damage(data: Path, rng: random.Random, bits: int) -> tuple[str, list[int]]:
    """Turn over bits of one file of a store, in a part of it that was written.

    Gives the file and the places. Preallocated zeros at the end of a file count for nothing.
    """
    files = [
        (path, content)
        for path in sorted(data.rglob("*"))
        if path.is_file() and (content := path.read_bytes().rstrip(b"\0"))
    ]
    # By size: most of what is stored is in few files, and that is what a disk damages.
    path, content = rng.choices(files, [len(content) for _, content in files])[0]
    places = sorted(rng.randrange(len(content)) for _ in range(bits))
    with path.open("r+b") as file:
        for place in places:
            file.seek(place)
            file.write(bytes((content[place] ^ 1 << rng.randrange(8),)))
    return str(path.relative_to(data)), places
