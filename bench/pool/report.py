"""What is told of the findings: a document for programs, and tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from bench.node import CLOCK_BOUND_NS
from bench.samples import median, rounded

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.pool.campaign import Findings
    from bench.pool.learning import Learned
    from bench.pool.plan import Rate
    from k2store.cli.output import Output

_BUSY: Final = 0.9
"""A client that uses more of its core than this may be what is measured."""


def document(found: Findings) -> dict[str, object]:
    """The figures at one size of blocks; None stands where something was not measured."""
    fenced, warmed, redis, etcd = found.fenced, found.warmed, found.redis, found.etcd
    assert fenced is not None
    assert warmed is not None
    publish = {str(one.in_flight): one for one in found.publish}
    acquire = {str(one.in_flight): one for one in found.acquire}
    sessions = {str(one.in_flight): one for one in found.sessions_publish}
    claims = {str(one.in_flight): one for one in found.sessions_acquire}
    dynamo = found.dynamo
    return {
        "block_tokens": found.settings.block_tokens,
        "match_p50_us": _middle(found, lambda one: one.match_p50_us),
        "match_p99_us": _middle(found, lambda one: one.match_p99_us),
        "longest_p50_us": _middle(found, lambda one: one.longest_p50_us),
        "longest_p99_us": _middle(found, lambda one: one.longest_p99_us),
        "dynamo_match_p50_us": _theirs(dynamo, "match_p50_us"),
        "dynamo_match_p99_us": _theirs(dynamo, "match_p99_us"),
        "dynamo_apply_blocks_per_s": _theirs(dynamo, "apply_blocks_per_s"),
        "ratio_dynamo_to_match": None
        if not dynamo
        else rounded(
            median([one["match_p50_us"] for one in dynamo])
            / median([one.match_p50_us for one in found.learned])
        ),
        "apply_blocks_per_s": _middle(found, lambda one: one.apply_blocks_per_s),
        "msgpack_blocks_per_s": _middle(found, lambda one: one.msgpack_blocks_per_s),
        "bytes_per_block": _middle(found, lambda one: one.bytes_per_block),
        "bytes_per_distinct_block": _middle(found, lambda one: one.bytes_per_distinct),
        "publish_txn_per_s": {name: rounded(one.per_s) for name, one in publish.items()},
        "publish_p50_ms": {name: rounded(one.latency.p50_ms) for name, one in publish.items()},
        "publish_p99_ms": {name: rounded(one.latency.p99_ms) for name, one in publish.items()},
        "publish_server_us": {name: rounded(one.server_us) for name, one in publish.items()},
        "publish_client_us": {name: rounded(one.client_us) for name, one in publish.items()},
        "publish_client_busy": {name: rounded(one.client_busy) for name, one in publish.items()},
        "publish_server_busy": {name: rounded(one.server_busy) for name, one in publish.items()},
        "sessions_publish_txn_per_s": {name: rounded(one.per_s) for name, one in sessions.items()},
        "sessions_publish_p50_ms": {
            name: rounded(one.latency.p50_ms) for name, one in sessions.items()
        },
        "sessions_publish_server_us": {
            name: rounded(one.server_us) for name, one in sessions.items()
        },
        "sessions_publish_client_us": {
            name: rounded(one.client_us) for name, one in sessions.items()
        },
        "etcd_publish_txn_per_s": None if etcd is None else _each(etcd.publish_per_s),
        "redis_always_publish_txn_per_s": None if redis is None else _each(redis.publish_per_s),
        "redis_always_set_per_s": None if redis is None else _each(redis.set_per_s),
        "redis_server_us": None if redis is None else _each(redis.server_us),
        "etcd_server_us": None if etcd is None else _each(etcd.server_us),
        "etcd_client_busy": None if etcd is None else _each(etcd.client_busy),
        "acquire_pairs_per_s": rounded(acquire["64"].per_s),
        "acquire_pairs_per_s_at_16": rounded(acquire["16"].per_s),
        "acquire_server_us": rounded(acquire["64"].server_us),
        "acquire_client_us": rounded(acquire["64"].client_us),
        "sessions_acquire_pairs_per_s": rounded(claims["64"].per_s),
        "acquire_p50_ms": rounded(claims["16"].latency.p50_ms),
        "acquire_p99_ms": rounded(claims["16"].latency.p99_ms),
        "acquire_commit_wait_p50_ms": rounded(claims["16"].commit_wait.p50_ms),
        "fence_ms": rounded(median(fenced.fence_ms)),
        "fence_worst_ms": rounded(max(fenced.fence_ms)),
        "fence_commit_wait_ms": rounded(median(fenced.commit_wait_ms)),
        "fence_blocks": fenced.blocks,
        "fence_rows": fenced.rows_written,
        "granted_after_fence": fenced.granted,
        "warm_start_s": rounded(warmed.seconds),
        "warm_start_blocks": warmed.blocks,
        "warm_start_orphans": warmed.orphans,
        "mooncake": None
        if found.mooncake is None
        else {name: rounded(one) for name, one in found.mooncake.items()},
        "compiled": found.learned[0].compiled,
        "scores": found.learned[0].scores,
        "prompts": found.learned[0].prompts,
        "publishes": found.publishes,
        "blocks_per_publish": rounded(found.new_blocks / max(1, found.publishes)),
        "row_bytes": found.row_bytes,
        "missing": sorted(found.missing),
        "trace": None if found.settings.trace is None else str(found.settings.trace),
        "fsync": True,
        "clock_bound_ns": CLOCK_BOUND_NS,
        "workers": 16,
        "server_core": found.cores.server,
        "load_core": found.cores.load,
        "load_average": [rounded(one) for one in found.load],
        "others_cores_max": rounded(max([one.others_cores for one in _all(found)])),
        "machine": msgspec.to_builtins(found.machine),
    }


def print_tables(found: Findings, output: Output) -> None:
    """The same for people."""
    machine, settings = found.machine, found.settings
    output.record(
        {},
        f"\nblocks of {settings.block_tokens} tokens, {found.learned[0].prompts:,} prompts "
        f"({'made up' if settings.trace is None else settings.trace.name}) on 16 workers: "
        f"{found.publishes:,} publishes of {found.new_blocks / max(1, found.publishes):.1f} "
        f"blocks, a row of {found.row_bytes} bytes",
    )
    output.record(
        {},
        f"{machine.processor}, {machine.cores} cores, {machine.python}, {machine.filesystem}; a "
        f"Struct {machine.struct_ns:.0f} ns, fdatasync p50 {machine.fdatasync_p50_us:.0f} µs; "
        f"server on core {found.cores.server}, load on core {found.cores.load}; every commit "
        f"synced; declared clock bound {CLOCK_BOUND_NS / 1e6:g} ms; load average "
        f"{found.load[0]:.1f} before, {found.load[-1]:.1f} after\n",
    )
    output.table("learner", _TREES, _trees(found))
    output.record({}, "")
    output.table("directory", _RATES, _rates(found))
    output.record({}, "")
    told = document(found)
    for text in (
        (
            "fence of {fence_blocks:,} blocks: {fence_ms} ms of which {fence_commit_wait_ms} for the "
            "clock, {fence_rows} row; {granted_after_fence} claims granted afterwards"
        ),
        "warm start of {warm_start_blocks:,} blocks: {warm_start_s} s, {warm_start_orphans} orphans",
        (
            "memory of the learner: {bytes_per_block} bytes a block held "
            "({bytes_per_distinct_block} a distinct one)"
        ),
    ):
        output.record({}, text.format(**told))


def warnings(found: Findings) -> list[str]:
    """What makes the figures doubtful, and what is missing."""
    told = list(found.missing.values())
    if found.settings.trace is None:
        told.append(
            "no --trace: the prompts are made up, with the marginals of the conversation trace"
        )
    others = max([one.others_cores for one in _all(found)])
    if others > 0.15:
        told.append(f"the machine was not idle: others kept up to {others:.2f} cores busy")
    if found.cores.shared:
        told.append("node and load share one core: rates are about half of what they would be")
    if found.machine.filesystem in {"tmpfs", "ramfs"}:
        told.append("the data lies in memory: syncs cost nothing (--data names another folder)")
    if found.etcd is not None and max(found.etcd.client_busy.values()) > _BUSY:
        told.append("the client of etcd used its whole core: etcd may be faster than it says")
    return told


_TREES: Final = ("tree", "match_p50_us", "match_p99_us", "longest_p50_us", "blocks_applied_per_s")
_RATES: Final = (
    "what",
    "in_flight",
    "per_s",
    "p50_ms",
    "p99_ms",
    "wait_p50_ms",
    "server_us",
    "client_us",
    "client_busy",
)


def _trees(found: Findings) -> list[tuple[object, ...]]:
    told = document(found)
    rows: list[tuple[object, ...]] = [
        (
            "k2store learner",
            told["match_p50_us"],
            told["match_p99_us"],
            told["longest_p50_us"],
            told["apply_blocks_per_s"],
        ),
        ("k2store, from vLLM's msgpack", "", "", "", told["msgpack_blocks_per_s"]),
    ]
    if found.dynamo:
        rows.append(
            (
                "Dynamo RadixTree, from Python",
                told["dynamo_match_p50_us"],
                told["dynamo_match_p99_us"],
                "",
                told["dynamo_apply_blocks_per_s"],
            )
        )
    if found.mooncake is not None:
        one = found.mooncake
        rows.append(
            (
                "Mooncake master, batch_is_exist",
                rounded(one["match_p50_us"]),
                rounded(one["match_p99_us"]),
                "",
                rounded(one["publish_blocks_per_s"]),
            )
        )
    return rows


def _rates(found: Findings) -> list[tuple[object, ...]]:
    rows = [_rate("publish", one) for one in found.publish]
    rows.extend([_rate("publish, by sessions", one) for one in found.sessions_publish])
    rows.extend([_rate("acquire + release", one) for one in found.acquire])
    rows.extend([_rate("acquire + release, by sessions", one) for one in found.sessions_acquire])
    if found.redis is not None:
        name = f"Redis {found.redis.version}, always: publish"
        for count, per_s in found.redis.publish_per_s.items():
            p50, cpu = found.redis.publish_p50_ms[count], found.redis.server_us[count]
            rows.append((name, count, rounded(per_s), rounded(p50), "", "", rounded(cpu), "", ""))
        for count, per_s in found.redis.set_per_s.items():
            rows.append(("Redis: bare SET", count, rounded(per_s), "", "", "", "", "", ""))
    if found.etcd is not None:
        one = found.etcd
        for count, per_s in one.publish_per_s.items():
            rows.append(
                (
                    f"etcd {one.version}: publish",
                    count,
                    rounded(per_s),
                    rounded(one.publish_p50_ms[count]),
                    "",
                    "",
                    rounded(one.server_us[count]),
                    "",
                    rounded(one.client_busy[count]),
                )
            )
    if found.mooncake is not None:
        per_s, p50 = found.mooncake["publish_per_s"], found.mooncake["publish_p50_us"] / 1e3
        rows.append(
            ("Mooncake put_batch, in memory", 1, rounded(per_s), rounded(p50), "", "", "", "", "")
        )
    return rows


def _all(found: Findings) -> list[Rate]:
    return [
        *found.publish,
        *found.acquire,
        *found.sessions_publish,
        *found.sessions_acquire,
    ]


def _rate(what: str, one: Rate) -> tuple[object, ...]:
    return (
        what,
        one.in_flight,
        rounded(one.per_s),
        rounded(one.latency.p50_ms),
        rounded(one.latency.p99_ms),
        rounded(one.commit_wait.p50_ms),
        rounded(one.server_us),
        rounded(one.client_us),
        rounded(one.client_busy),
    )


def _middle(found: Findings, figure: Callable[[Learned], float]) -> float:
    return rounded(median([figure(one) for one in found.learned]))


def _theirs(runs: list[dict[str, float]], figure: str) -> float | None:
    return rounded(median([one[figure] for one in runs])) if runs else None


def _each(figures: dict[str, float]) -> dict[str, float]:
    return {name: rounded(one) for name, one in figures.items()}
