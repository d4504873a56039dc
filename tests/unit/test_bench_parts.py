"""The parts of the bench that decide a figure: quantiles, shares of keys, pauses, the peer's words."""

from __future__ import annotations

import time
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.etcd import read_rate, read_slowest_s
from bench.pool.chains import deal, read, renamed, write
from bench.pool.learning import Directory, applied, from_engines
from bench.pool.peers.redis import read_rate as read_redis
from bench.processes import BenchError
from bench.samples import median, quantile, rounded, spread
from bench.trace import generate
from bench.workloads import KEY_BYTES, VALUE_BYTES, Keys, Place, Recorder, initial
from kv_pool.blocks import split_names


@given(st.lists(st.integers(0, 2**40), min_size=1), st.floats(0, 1))
def test_a_quantile_has_its_share_below(samples: list[int], share: float) -> None:
    """A quantile is one of the samples; at most its share is smaller, at most the rest larger."""
    found = quantile(sorted(samples), share)
    assert found in samples
    assert sum(one < found for one in samples) <= share * len(samples)
    assert sum(one > found for one in samples) <= (1 - share) * len(samples)


def test_a_spread_is_in_milliseconds() -> None:
    """Samples in ns become quantiles in ms, and no samples become zeros."""
    found = spread(array("Q", range(1_000_000, 101_000_000, 1_000_000)))
    assert (found.p50_ms, found.p90_ms, found.p99_ms, found.max_ms) == (51.0, 91.0, 100.0, 100.0)
    assert spread(array("Q")).max_ms == 0.0
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert (rounded(12345.678), rounded(0.0123456)) == (12346.0, 0.01235)


@pytest.mark.parametrize("workers", [1, 3, 16])
def test_workers_share_all_keys_and_no_key(workers: int) -> None:
    """Every key belongs to exactly one worker, so each knows the value it expects."""
    keys = Keys(100)
    owners: dict[bytes, set[int]] = {}
    for worker in range(workers):
        for _ in range(4_000 // workers):
            owners.setdefault(keys.draw_own(Place(worker, workers)), set()).add(worker)
    assert len(owners) == 100
    assert all(len(mine) == 1 for mine in owners.values())


def test_keys_and_values_have_the_stated_sizes() -> None:
    """The sizes that the report states are those that are written, and a write is remembered."""
    keys = Keys(3)
    key = keys.names[1]
    assert (len(key), len(initial(key)), len(keys.fresh())) == (KEY_BYTES, VALUE_BYTES, VALUE_BYTES)
    assert keys.value(key) == initial(key)
    keys.wrote(key, b"new")
    assert keys.value(key) == b"new"


def test_a_recorder_forgets_the_warm_up_and_keeps_the_longest_pause() -> None:
    """Only what comes after `reset` counts, in units of work; the pause is between any two answers."""
    recorder = Recorder()
    recorder.done(time.perf_counter_ns(), 5)
    recorder.reset()
    began_ns = time.perf_counter_ns()
    recorder.last_ns = began_ns - 7_000_000
    recorder.done(began_ns, 9, count=100)
    recorder.done(began_ns, 9, count=100)
    assert recorder.count == 200
    assert list(recorder.wait_ns) == [9, 9]
    assert recorder.gap_ns >= 7_000_000
    assert all(latency_ns > 0 for latency_ns in recorder.latency_ns)


@pytest.mark.parametrize(
    "said, per_s, slowest_s",
    [
        (
            "FAIL: Throughput too low: 6123 writes/s\nSlowest request took too long: 0.76s",
            6123,
            0.76,
        ),
        ("PASS: Throughput is 14979 writes/s\nPASS: Slowest request took 0.21s\nPASS", 14979, 0.21),
    ],
)
def test_both_answers_of_the_peers_generator_are_read(
    said: str, per_s: float, slowest_s: float
) -> None:
    """`etcdctl check perf` words its rate by whether it likes it; both forms give the rate."""
    assert read_rate(said) == per_s
    assert read_slowest_s(said) == slowest_s


def test_an_answer_without_a_rate_is_refused() -> None:
    """No figure is made up where the peer's generator gave none."""
    assert read_rate("Error: context deadline exceeded") is None


def test_prompts_are_dealt_so_that_a_worker_publishes_what_it_lacks() -> None:
    """New blocks of a worker are those it has not had, once each; a file holds prompts as they are,
    and other names keep equal prefixes equal."""
    requests = generate(seed=3, requests=200)
    prompts = deal(requests, 256, workers=4)
    had: list[set[bytes]] = [set() for _ in range(4)]
    for request, prompt in zip(requests, prompts, strict=True):
        assert prompt.blocks == 2 * len(request.hash_ids)
        names = split_names(prompt.names)
        mine = had[prompt.worker]
        assert mine.issuperset(names[: prompt.new])
        assert mine.isdisjoint(names[prompt.new :])
        mine.update(names)
    one, other = prompts[0].names, prompts[1].names
    assert one[:16] == other[:16]
    assert renamed(one, 1)[:16] == renamed(other, 1)[:16] != renamed(one, 2)[:16]
    assert len(set(split_names(renamed(one, 1)))) == len(split_names(one))


def test_dealt_prompts_survive_their_file(tmp_path: Path) -> None:
    """Peers read from the file exactly what was dealt."""
    prompts = deal(generate(seed=3, requests=50))
    write(prompts, tmp_path / "chains")
    assert read(tmp_path / "chains") == prompts


def test_a_learner_holds_what_commits_and_engines_bring() -> None:
    """Fed by rows or by engines' batches, it counts every block, and matches as a scan would."""
    prompts = deal(generate(seed=5, requests=120), 256)
    directory = Directory(prompts, 256)
    for learner in (
        applied(directory, directory.commits()),
        from_engines(directory, directory.batches()),
    ):
        assert learner.counts().blocks == directory.blocks
        for prompt in prompts:
            match = learner.match(directory.namespace, prompt.names)
            depths = {holder.worker.name: depth for holder, depth in match.depths.items()}
            assert depths[f"w{prompt.worker}"] == prompt.blocks


def test_the_words_of_redis_are_understood() -> None:
    """Rate and median latency, also where the command that is named holds commas and quotes."""
    said = (
        '"test","rps","avg_latency_ms","p50_latency_ms"\n"EVALSHA 1,""x""","5000.5","1.0","0.75"\n'
    )
    assert read_redis(said) == (5000.5, 0.75)
    with pytest.raises(BenchError):
        read_redis("Could not connect")
