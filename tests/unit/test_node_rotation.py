"""A full segment is left behind: what its disk refuses ends the node in good order."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from k2store.node.cluster.rotation import Rotation
from k2store.storage import StorageFailed


class Log:
    """A log whose disk refuses when old segments are to go."""

    def drop_before(self, turn: int) -> None:
        """Refused."""
        raise StorageFailed(f"the disk refuses to drop what is before {turn}")


@pytest.mark.parametrize("stopped", [False, True])
def test_old_segments_that_cannot_be_dropped_fail_the_engine(*, stopped: bool) -> None:
    """The engine is told and stops itself; one that has stopped already is told nothing."""
    failures: list[BaseException] = []
    engine = SimpleNamespace(
        stopped=stopped, fail=failures.append, store=SimpleNamespace(log=Log(), settled=None)
    )
    host: Any = SimpleNamespace(engine=engine)
    rotation = Rotation(host)

    async def flushed() -> None:
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        done.set_result(7)
        rotation._flushed(done)

    asyncio.run(flushed())
    assert [type(error) for error in failures] == ([] if stopped else [StorageFailed])
