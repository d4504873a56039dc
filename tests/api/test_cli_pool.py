"""`k2 pool` against a node process: what the asking verbs print, and the replay of a trace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bench.trace import generate, ideal_hits
from k2store.cli.group import k2
from k2store.testing import LocalNode, local_node
from kv_pool.blocks import chain, root, split_names
from kv_pool.edge.pool import Pool
from kv_pool.namespace import Namespace, Scheme
from kv_pool.records import Tier

Run = Callable[..., Any]
NAMESPACE = Namespace(
    tenant="", model="m", revision="r", dtype="bf16", layout="NHD", block_tokens=4
)
ENGINES = Namespace(
    tenant="",
    model="m",
    revision="r",
    dtype="bf16",
    layout="NHD",
    block_tokens=4,
    scheme=Scheme.VLLM_SHA256,
)
DIGEST = NAMESPACE.digest()
TOKENS = list(range(24))
NAMES = chain(root(DIGEST), TOKENS, 4).names


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
    """A node with two workers: one has six blocks, the other the first two in another tier; a prompt of
    their own goes on behind the first two."""

    async def fill(running: LocalNode) -> None:
        async with running.connect() as db, Pool(db, "fra") as pool:
            await pool.declare(NAMESPACE)
            await pool.declare(ENGINES)
            async with pool.worker("a", ttl_s=60) as a, pool.worker("b", ttl_s=60) as b:
                await a.publish(DIGEST, NAMES[:64], Tier.DEVICE)
                await a.publish(DIGEST, NAMES, Tier.DEVICE)
                other = chain(root(DIGEST), [*TOKENS[:8], 99, 99, 99, 99], 4).names
                await b.publish(DIGEST, other[:32], Tier.HOST)
                await b.publish(DIGEST, other, Tier.HOST)

    with local_node(tmp_path_factory.mktemp("node")) as running:
        asyncio.run(fill(running))
        yield running


@pytest.fixture
def run(node: LocalNode) -> Run:
    """Run a verb of the pool against the node, in this process."""

    def call(*arguments: str, code: int = 0) -> Result:
        empty = node.path / "empty.toml"
        empty.touch()
        words = ["--config", str(empty), "pool", *arguments, "--address", node.address]
        result = CliRunner().invoke(k2, words)
        assert result.exit_code == code, result.output
        return result

    return call


def test_match_tells_who_has_how_much(run: Run) -> None:
    """Tokens are named by the namespace's description, or names are given; depths are those of each
    worker's tier."""
    tokens = ",".join(map(str, [*TOKENS, 7, 7, 7, 7]))
    told = json.loads(run("match", DIGEST.hex(), "--tokens", tokens, "--json").stdout)
    assert (told["blocks"], told["longest"]) == (7, 6)
    assert told["holders"] == [
        {"worker": "fra/a", "tier": "device", "blocks": 6},
        {"worker": "fra/b", "tier": "host", "blocks": 2},
    ]
    assert told["staleness_s"] > 0
    same = json.loads(run("match", DIGEST.hex(), "--names", NAMES.hex(), "--json").stdout)
    assert same["holders"] == told["holders"]
    page = run("match", DIGEST.hex(), "--names", NAMES.hex())
    assert "6 of 6 blocks" in page.stderr
    assert "fra/a" in page.stdout


@pytest.mark.parametrize(
    "words, code",
    [
        (("match", DIGEST.hex()), 2),
        (("match", "abc", "--tokens", "1"), 2),
        (("match", DIGEST.hex(), "--names", "abcd"), 2),
        (("match", DIGEST.hex(), "--tokens", "1,x"), 2),
        (("match", bytes(16).hex(), "--tokens", "1"), 2),
        (("match", ENGINES.digest().hex(), "--tokens", "1"), 2),
        (("blocks", "fra"), 2),
        (("blocks", "fra/nobody"), 2),
    ],
)
def test_what_cannot_be_asked_is_refused(run: Run, words: tuple[str, ...], code: int) -> None:
    """Wrong digests, names, tokens and workers end with the code of a wrong use."""
    run(*words, code=code)


def test_the_tree_has_runs_under_what_they_go_on_from(run: Run) -> None:
    """Parents come first, each run says who has how much of it, and a limit is kept and told."""
    lines = [json.loads(line) for line in run("tree", "--json").stdout.splitlines()]
    first, *rest = lines
    assert (first["depth"], first["blocks"]) == (0, 4)
    assert first["holders"] == ["fra/a device 4", "fra/b host 2"]
    assert sorted((one["depth"], one["blocks"], tuple(one["holders"])) for one in rest) == [
        (2, 1, ("fra/b host 1",)),
        (4, 2, ("fra/a device 2",)),
    ]
    inside = {name.hex() for name in split_names(NAMES[:64])}
    assert all(one["parent"] in inside for one in rest)
    page = run("tree", "--limit", "1", "--namespace", DIGEST.hex())
    assert page.stdout.count("\n") == 1
    assert "2 more runs" in page.stderr
    assert run("tree", "--depth", "0").stdout.count("\n") == 1
    assert "no blocks" in run("tree", "--namespace", bytes(16).hex()).stderr


def test_blocks_and_stats_tell_what_workers_have(run: Run) -> None:
    """Runs of one worker with their state; all workers with lease and blocks by tier."""
    told = json.loads(run("blocks", "fra/a", "--json").stdout)["runs"]
    assert [
        (one["depth"], one["blocks"]) for one in sorted(told, key=lambda one: one["depth"])
    ] == [
        (0, 4),
        (4, 2),
    ]
    assert {(one["tier"], one["phase"], one["valid"], one["claims"]) for one in told} == {
        ("device", "ready", True, 0)
    }
    stats = json.loads(run("stats", "--json").stdout)
    assert (stats["blocks"], stats["rows"], stats["malformed"]) == (9, 4, 0)
    workers = {one["worker"]: one for one in stats["workers"]}
    assert workers["fra/a"]["device"] == 6
    assert workers["fra/b"]["host"] == 3
    assert all(one["state"] == "live" and one["lease_s"] > 0 for one in workers.values())
    assert "fra/b" in run("stats").stdout


def test_a_replay_hits_what_an_endless_cache_would(node: LocalNode, tmp_path: Path) -> None:
    """Over a node of its own, or a store that is named: hits are the ideal ones to the block, all of
    them can be claimed, and the last line says so."""
    requests = generate(3, 40)
    file = tmp_path / "trace"
    file.write_text(
        "".join(
            json.dumps(
                {
                    "timestamp": one.timestamp,
                    "input_length": one.input_length,
                    "output_length": one.output_length,
                    "hash_ids": one.hash_ids,
                }
            )
            + "\n"
            for one in requests
        )
    )
    words = ["pool", "replay", "--trace", str(file), "--workers", "3", "--claims", "--json"]
    for more in ([], ["--address", node.address]):
        result = CliRunner().invoke(k2, [*words, *more])
        assert result.exit_code == 0, result.output
        told = json.loads(result.stdout.splitlines()[-1])
        assert told["block_references"] == sum(len(one.hash_ids) for one in requests)
        assert told["block_hits"] == told["ideal_hits"] == sum(ideal_hits(requests))
        assert told["claimed_blocks"] == told["block_hits"] > 0
        assert told["requests"] == 40
    file.write_text("no trace\n")
    refused = CliRunner().invoke(k2, words)
    assert refused.exit_code == 2
    assert "line 1" in refused.stderr
