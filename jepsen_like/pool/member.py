"""A worker of the load as a process of its own: ``python -m jepsen_like.pool.member``, a `Member` on standard input.

It ends in good order when its standard input does. Every event of its history is in its file before anything
else happens, so a kill takes none of what it was told.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

import k2store
from jepsen_like.history import Event, History, Recorder
from jepsen_like.pool.load import Load, Memories
from jepsen_like.pool.worker import WorkerLoad
from kv_pool.edge.pool import Pool
from kv_pool.keys import Worker

AGAIN_S = 0.3


class Member(msgspec.Struct, frozen=True):
    """Who the process is. `life` begins the names of its history's processes: no other process has it."""

    address: str
    region: str
    name: str
    life: str
    file: str
    others: list[tuple[str, str]]
    regions: list[str]
    lease_s: float
    step_s: float
    seed: int
    folder: str
    """Where slots lie that routers look at."""


def events_of(path: Path) -> list[Event]:
    """The events in a file; what a kill has cut off at its end is not one."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [msgspec.json.decode(line, type=Event) for line in lines]


def merged(recorder: Recorder, files: list[Path]) -> History:
    """All histories as one, by the clock that all processes of a machine share."""
    return History.merge(
        [recorder.history(), *[History(events) for file in files if (events := events_of(file))]]
    )


async def _main(member: Member, sink: Callable[[Event], object]) -> None:
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    watching = loop.create_task(_until_it_ends(reader, over))
    load = Load(Recorder(time.monotonic_ns, sink), f"{member.life}.", Memories(Path(member.folder)))
    others = tuple([Worker(region, name) for region, name in member.others])
    while not over.is_set():
        try:
            async with (
                k2store.connect(member.address, name=member.name) as database,
                Pool(database, member.region, name=member.life) as pool,
                pool.learner(regions=member.regions) as tree,
            ):
                load.trees[member.region] = tree
                worker = WorkerLoad(
                    load,
                    pool,
                    member.name,
                    random.Random(member.seed),
                    ttl_s=member.lease_s,
                    pause_s=member.step_s,
                    others=others,
                )
                await worker.run(over.is_set)
        except k2store.K2Error:
            await asyncio.sleep(AGAIN_S)
    watching.cancel()


async def _until_it_ends(reader: asyncio.StreamReader, over: asyncio.Event) -> None:
    await reader.read()
    over.set()


def main() -> None:
    """Be the member that standard input tells of."""
    member = msgspec.json.decode(sys.stdin.buffer.readline(), type=Member)
    encode = msgspec.json.Encoder().encode
    with Path(member.file).open("ab", buffering=0) as file:
        asyncio.run(_main(member, lambda event: file.write(encode(event) + b"\n")))


if __name__ == "__main__":
    main()
