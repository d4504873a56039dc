"""`k2 bench` from end to end, in small."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.families import command_of, descendants, remaining

K2 = "from k2store.cli import main; main()"
STATED = {
    "interactive_txn_per_s",
    "one_shot_per_s",
    "snapshot_reads_per_s",
    "scan_rows_per_s",
    "single_client_p50_ms",
    "single_client_one_shot_p50_ms",
    "bytes_per_key",
    "restart_s",
    "worst_pause_ms",
    "fdatasync_p50_us",
    "struct_ns",
}

POOL_STATED = {
    "match_p50_us",
    "match_p99_us",
    "longest_p50_us",
    "apply_blocks_per_s",
    "msgpack_blocks_per_s",
    "acquire_pairs_per_s",
    "acquire_p50_ms",
    "fence_ms",
    "warm_start_s",
    "bytes_per_block",
}


def bench(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `k2 bench store` on little data."""
    return subprocess.run(
        [
            *(sys.executable, "-c", K2, "bench", "store", "--quick", "--data", str(folder)),
            *("--keys", "2000", "--seconds", "0.2", *arguments),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
def test_the_bench_states_every_figure_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """The last line is one object with all figures; its rates are those of its measurements; the
    conditions they depend on stand beside them; the data is gone."""
    done = bench(tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name in STATED:
        assert isinstance(found[name], float), name
        assert found[name] > 0 or name == "bytes_per_key", name
    assert (found["in_flight"], found["fsync"], found["clock_bound_ns"]) == (256, True, 500_000)
    assert (found["keys"], found["key_bytes"], found["value_bytes"]) == (2_000, 16, 64)
    assert found["commit_wait_p50_ms"] >= 0
    assert found["etcd_writes_per_s"] is None
    assert found["ratio_one_shot_to_etcd"] is None
    rates = {(one["workload"], one["in_flight"]): one["per_s"] for one in found["workloads"]}
    assert len(rates) == 11
    assert rates["interactive", 256] == found["interactive_txn_per_s"]
    assert rates["one-shot", 256] == found["one_shot_per_s"]
    assert found["server_cpu_us_per_transaction"]["interactive"].keys() == {"1", "16", "256"}
    assert list(tmp_path.iterdir()) == []


def test_without_etcd_the_bench_says_so_and_goes_on(tmp_path: Path) -> None:
    """A peer that is not installed is said loudly, with the way to get it; the ratio is null."""
    done = bench(tmp_path, "--peer", "etcd", "--workload", "scan", "--json", PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "apt-get install etcd-server etcd-client" in done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ratio_one_shot_to_etcd"] is None
    assert found["etcd_writes_per_s"] is None
    assert found["interactive_txn_per_s"] is None
    assert found["scan_rows_per_s"] > 0


def test_the_tables_tell_the_conditions(tmp_path: Path) -> None:
    """Without --json the same stands in tables, under the conditions that decide the figures."""
    done = bench(tmp_path, "--workload", "snapshot")
    assert done.returncode == 0, done.stderr
    for said in ("clock bound 0.5 ms", "every commit synced", "fdatasync p50", "snapshot"):
        assert said in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_geo_bench_measures_three_regions_and_kills_a_leader(tmp_path: Path) -> None:
    """Its last line states every figure; nothing was lost or stale, no view had half a
    transaction; what is counted exactly is what the protocol says; the data is gone."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", K2, "bench", "geo", "--quick", "--kills", "1", "--json"),
            *("--data", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    broken = ("acknowledged_lost", "stale_reads", "half_transactions_seen", "staleness_understated")
    assert [found[name] for name in broken] == [0, 0, 0, 0]
    assert found["failover_s"]["kills"] == 1
    assert found["failover_s"]["p99"] > 0
    for name in ("visibility_delay_ms", "visibility_delay_remote_writers_ms"):
        assert found[name].keys() >= {"p50", "p99", "one_way", "epoch"}
        assert found[name]["p50"] > found[name]["one_way"] == 80.0
    assert found["views"] > 0
    assert found["replica_read_ratio"] > 0
    requests = found["commit_requests_elsewhere"]
    assert requests["one_shot"]["zone, at home in fra"] == 0
    assert requests["one_shot"]["zone, from sin"] == 1
    assert requests["strong_read"]["region, from iad"] == 1
    assert found["commit_round_trips"]["one_shot"].keys() == requests["one_shot"].keys()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_pool_bench_measures_learner_and_directory(tmp_path: Path) -> None:
    """Its last line states every figure; what can be counted is exact: one row a fence and no claim
    after it, no orphans, as many blocks as the trace has; peers that were not asked for are null."""
    arguments = ["pool", "--quick", "--prompts", "60", "--seconds", "0.2", "--peers", "", "--json"]
    done = subprocess.run(
        [*(sys.executable, "-c", K2, "bench", *arguments), "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the prompts are made up" in done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for figures in (found, found["at_16_tokens"]):
        for name in POOL_STATED:
            assert figures[name] > 0, name
        for who in ("publish_txn_per_s", "sessions_publish_txn_per_s"):
            assert figures[who].keys() == {"16", "256"}
            assert min(figures[who].values()) > 0
        for peer in ("dynamo_match_p50_us", "etcd_publish_txn_per_s", "mooncake"):
            assert figures[peer] is None
        assert figures["redis_always_publish_txn_per_s"] is None
        assert (figures["fence_rows"], figures["granted_after_fence"]) == (1, 0)
        assert figures["warm_start_orphans"] == 0
        assert figures["compiled"] is False
    assert found["at_16_tokens"]["warm_start_blocks"] == 32 * found["warm_start_blocks"]
    # Runs are cut in other places, prefixes are not.
    assert found["at_16_tokens"]["scores"] == 32 * found["scores"]
    assert list(tmp_path.iterdir()) == []


def test_a_peer_that_is_not_installed_is_said_loudly(tmp_path: Path) -> None:
    """The way to get it is named, for programs and for packages, and the rest is measured."""
    arguments = ["pool", "--quick", "--prompts", "30", "--seconds", "0.1", "--block-tokens", "512"]
    done = subprocess.run(
        [*(sys.executable, "-c", K2, "bench", *arguments), "--json", "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(tmp_path), "K2_BENCH_PEERS": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "apt-get install redis-server" in done.stderr
    assert "apt-get install etcd-server" in done.stderr
    for package in ("ai-dynamo-runtime", "mooncake-transfer-engine-non-cuda"):
        assert f"pip install {package}" in done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["missing"] == ["dynamo", "etcd", "mooncake", "redis"]
    assert found["publish_txn_per_s"]["16"] > 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_bench_that_is_ended_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Interrupted, told to end or killed while the directory is measured: node, driver and folder go with it."""
    arguments = [
        "pool",
        "--prompts",
        "300",
        "--seconds",
        "60",
        "--peers",
        "",
        "--block-tokens",
        "512",
    ]
    process = subprocess.Popen(
        [*(sys.executable, "-c", K2, "bench", *arguments), "--data", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        family = _until_published(process)
    finally:
        process.send_signal(number)
    assert process.wait(60) != 0
    assert remaining(family) == set()
    assert _gone(tmp_path) == []


def _until_published(process: subprocess.Popen[bytes]) -> set[int]:
    """Wait until the driver has used some time; gives everybody who came from the bench."""
    end_s = time.monotonic() + 60.0
    while time.monotonic() < end_s:
        family = descendants(process.pid)
        for one in family:
            if "bench.pool.volley" in command_of(one) and _used_ticks(one) > 150:
                assert len(family) >= 3  # The node, too, and the keeper.
                return family
        time.sleep(0.1)
    raise AssertionError(f"nothing was published: {process.poll()}")


def _used_ticks(process: int) -> int:
    try:
        fields = Path(f"/proc/{process}/stat").read_text("ascii", "replace").rpartition(")")[2]
    except OSError:
        return 0
    return int(fields.split()[11])


def _gone(folder: Path, patience_s: float = 10.0) -> list[Path]:
    """What is in a folder when it has had time to go."""
    end_s = time.monotonic() + patience_s
    while (left := list(folder.iterdir())) and time.monotonic() < end_s:
        time.sleep(0.1)
    return left
