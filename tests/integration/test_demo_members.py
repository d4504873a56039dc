"""Processes of `k2 demo`: how they begin, and each way in which they end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.demo.member import Member
from bench.processes import BenchError
from k2store.testing.keeper import Keeper

# Says what it was given, or that it has no input, and then what ended it.
SAYS = """
import sys, signal
def told(*_):
    sys.stderr.write("told to end\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
print("got", sys.stdin.readline().strip(), flush=True)
if sys.argv[1] == "reads":
    sys.stdin.read()
    sys.stderr.write("input closed\\n")
else:
    signal.pause()
"""


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    """Who ends processes whose owner is gone."""
    with Keeper() as found:
        yield found


def member(log: Path, tie: Keeper | bytes, program: str = SAYS) -> Member:
    """A process that says a line."""
    how = "reads" if isinstance(tie, bytes) else "waits"
    return Member("fra/w1", [sys.executable, "-c", program, how], log, tie)


def test_one_that_reads_ends_with_its_input(tmp_path: Path) -> None:
    """It is given its line, and ends in order when its input closes; it can be started again."""
    one = member(tmp_path / "log", b"a setting")
    for _ in range(2):
        assert asyncio.run(one.start()) == "got a setting"
        assert one.runs
        assert one.ended() == ""
        one.end()
        one.reap()
        assert not one.runs
    assert (tmp_path / "log").read_text() == "input closed\n" * 2


def test_one_that_is_kept_ends_when_told(tmp_path: Path, keeper: Keeper) -> None:
    """It has no input, and ends by a signal that it can answer."""
    one = member(tmp_path / "log", keeper)
    assert asyncio.run(one.start()) == "got"
    one.end()
    one.reap()
    assert (tmp_path / "log").read_text() == "told to end\n"


@pytest.mark.parametrize("how", ["reads", "waits"])
def test_an_end_that_nobody_planned_is_told(tmp_path: Path, keeper: Keeper, how: str) -> None:
    """Killed from outside it says by what, once; killed by its owner it says nothing."""
    one = member(tmp_path / "log", b"" if how == "reads" else keeper)
    asyncio.run(one.start())
    process = one._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    end_s = time.monotonic() + 10
    said = ""
    while not said and time.monotonic() < end_s:
        said = one.ended()
    assert said == "was killed by SIGKILL"
    assert (one.ended(), one.runs) == ("", False)
    asyncio.run(one.start())
    one.kill()
    assert (one.ended(), one.runs) == ("", False)


def test_one_that_does_not_start_says_why(tmp_path: Path) -> None:
    """Its last words are in the error."""
    one = member(tmp_path / "log", b"", "import sys; sys.exit('no such model')")
    with pytest.raises(BenchError, match=r"fra/w1 did not start: .*no such model"):
        asyncio.run(one.start())
    one.reap()
