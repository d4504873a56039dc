"""`k2 demo` on a small trace, and the rows it works with."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import k2store
from bench.prompts import ROOT, Match, Run, block_hash, register
from bench.replay import Replay, holding
from bench.trace import Request, generate, marginals
from k2store.cli.group import k2
from k2store.testing import embedded


def chain(*blocks: int) -> list[bytes]:
    """The hashes of a prompt."""
    return [block_hash(block) for block in blocks]


def test_the_demo_tells_what_it_did(tmp_path: Path) -> None:
    """From the made-up trace and one at a time, hits are the ideal ones, every new block is
    published once, and the node holds the same after a kill."""
    arguments = ["demo", "--requests", "60", "--in-flight", "1", "--data", str(tmp_path / "node")]
    result = CliRunner().invoke(k2, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    known = marginals(generate(0)[:60])
    assert told["requests"] == 60
    assert told["references"] == known.references
    assert told["hits"] == told["ideal_hits"] == round(known.hit_share * known.references)
    assert told["published_blocks"] == told["holds"]["blocks"] == known.distinct
    assert told["publishes"] == told["holds"]["runs"]
    assert told["survived_kill"] is True
    assert told["overtaken"] == 0
    assert told["publish"]["p50_ms"] > 0
    assert (tmp_path / "node" / "data").is_dir()


def test_the_demo_reads_a_trace(tmp_path: Path) -> None:
    """A file is replayed, many at a time and at its own pace if asked; the page names its figures,
    and a file that is no trace is refused."""
    file = tmp_path / "trace"
    lines = [
        json.dumps({"timestamp": n, "input_length": 9, "output_length": 9, "hash_ids": [0, n + 1]})
        for n in range(20)
    ]
    file.write_text("\n".join(lines))
    result = CliRunner().invoke(k2, ["demo", "--trace", str(file), "--speed", "2"])
    assert result.exit_code == 0, result.output
    for figure in ("20 in", "hits, ideal", "longest prefix", "after kill -9", "holds the same"):
        assert figure in result.stdout
    file.write_text("no trace\n")
    refused = CliRunner().invoke(k2, ["demo", "--trace", str(file)])
    assert refused.exit_code == 2
    assert "line 1" in refused.stderr


def test_prefixes_are_found_across_runs() -> None:
    """A match walks from run to run, ends inside one where the chain leaves it, and does not
    follow a run that hangs on another prefix."""

    async def scene() -> None:
        async with embedded() as db:
            pool = await register(db, "local", "w")
            assert await pool.match(chain(0, 1, 2)) == Match(0, b"", 1)
            await pool.publish(chain(0, 1, 2, 3), Match(0, b"", 1))
            inside = await pool.match(chain(0, 1, 7, 8))
            assert (inside.blocks, inside.reads) == (2, 2)
            await pool.publish(chain(0, 1, 7, 8), inside)
            deeper = await pool.match(chain(0, 1, 7, 8, 9))
            assert (deeper.blocks, deeper.reads) == (4, 3)
            assert (await pool.match(chain(0, 7, 8))).blocks == 1
            stored = [Run.decode(value) async for _, value in pool.rows()]
            assert {(run.parent, run.depth) for run in stored} == {(ROOT, 0), (block_hash(1), 2)}
            assert (await holding(pool)).blocks == 6

    asyncio.run(scene())


def test_who_is_not_the_holder_publishes_nothing() -> None:
    """A publish is refused after another incarnation has registered, when the run it continues is
    gone, and when somebody has published the same blocks."""

    async def scene() -> None:
        async with embedded() as db:
            old = await register(db, "local", "w")
            await old.publish(chain(0, 1), Match(0, b"", 1))
            with pytest.raises(k2store.ConditionFailed):
                await old.publish(chain(0, 1), Match(0, b"", 1))
            with pytest.raises(k2store.ConditionFailed):
                await old.publish(chain(0, 1, 2), Match(2, b"no such run", 1))
            new = await register(db, "local", "w")
            assert new.incarnation == old.incarnation + 1
            with pytest.raises(k2store.ConditionFailed):
                await old.publish(chain(5, 6), Match(0, b"", 1))
            assert (await holding(new)).runs == 0

    asyncio.run(scene())


def test_a_replay_ends_in_time() -> None:
    """Beyond its limit no prompt begins, and the figures are those of the prompts that did."""

    async def scene() -> None:
        async with embedded() as db:
            pool = await register(db, "local", "w")
            late = [
                Request(0, 1, 1, (0, 1)),
                Request(1_000, 1, 1, (0, 2)),
                Request(9, 1, 1, (0, 3)),
            ]
            replay = Replay(pool, late, speed=10.0, limit_s=0.05)
            await replay.run(1)
            assert (replay.counts.requests, replay.counts.references) == (2, 4)
            assert (await holding(pool)).blocks == 3

    asyncio.run(scene())


def test_prompts_at_the_same_time_publish_each_block_once() -> None:
    """Equal prompts in flight together overtake each other, and each block is stored once."""

    async def scene() -> None:
        async with embedded() as db:
            pool = await register(db, "local", "w")
            requests = [Request(0, 1, 1, (0, 1, 2)) for _ in range(30)]
            requests += [Request(0, 1, 1, (0, 1, 2, 3, number)) for number in range(4, 20)]
            replay = Replay(pool, requests, speed=0.0)
            await replay.run(16)
            assert replay.counts.requests == len(requests)
            assert replay.counts.overtaken > 0
            held = await holding(pool)
            assert held.blocks == replay.counts.published_blocks == 20
            assert held.runs == replay.counts.publishes

    asyncio.run(scene())
