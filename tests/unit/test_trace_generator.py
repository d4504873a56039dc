"""The made-up trace has the marginals of the published one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.trace import CONVERSATION, Marginals, Request, generate, ideal_hits, marginals, read

REAL = Path(
    os.environ.get("K2_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
).joinpath("conversation_trace.jsonl")


def near(value: float, wanted: float, tolerance: float) -> bool:
    """Whether a figure is as it should be, up to a share of it."""
    return abs(value - wanted) <= tolerance * wanted


def assert_alike(found: Marginals, tolerance: float) -> None:
    """Every marginal is that of the published trace; the shares up to some hundredths of them."""
    wanted = CONVERSATION
    assert found.requests == wanted.requests
    assert found.one_parent
    assert found.fan_out == wanted.fan_out
    for name in (
        *("references", "distinct", "seen_once", "hit_share", "span_s"),
        *("blocks_p50", "blocks_p99", "blocks_max"),
    ):
        value, expected = getattr(found, name), getattr(wanted, name)
        assert near(value, expected, tolerance), f"{name}: {value} instead of {expected}"


@pytest.mark.parametrize("seed", [0, 1])
def test_the_marginals_are_those_of_the_trace(seed: int) -> None:
    """Requests, references, distinct blocks, single use, fan-out, sizes and ideal hits, within 3 %;
    each block has one parent, block 0 begins every prompt, and arrivals are in order."""
    requests = generate(seed)
    assert_alike(marginals(requests), 0.03)
    assert all(request.hash_ids[0] == 0 for request in requests)
    times = [request.timestamp for request in requests]
    assert times == sorted(times)
    assert times[0] == 0
    assert all(
        len(request.hash_ids) == -(-request.input_length // 512) and request.output_length > 0
        for request in requests
    )


@pytest.mark.skipif(not REAL.exists(), reason="the published trace is not on this machine")
def test_the_trace_itself_has_them() -> None:
    """The published trace, where it is at hand, has exactly the marginals that are aimed at."""
    assert_alike(marginals(list(read(REAL))), 0.001)


def test_equal_seeds_give_equal_traces() -> None:
    """A seed is a trace; another seed is another one; so is any number of requests."""
    assert generate(7, 300) == generate(7, 300)
    assert generate(7, 300) != generate(8, 300)
    for count in (1, 2, 5):
        assert len(generate(0, count)) == count


def test_hits_are_counted_by_prefix() -> None:
    """A block counts as a hit only when all before it were known."""
    chains = [(0, 1, 2), (0, 1, 3), (0, 4), (0, 4, 5)]
    assert ideal_hits([Request(0, 1, 1, chain) for chain in chains]) == [0, 2, 1, 2]


def test_files_are_read_strictly(tmp_path: Path) -> None:
    """Lines come back as requests, as many as asked for; a line that is none is named."""
    file = tmp_path / "trace"
    line = '{"timestamp": 1, "input_length": 2, "output_length": 3, "hash_ids": [0, 4]}\n'
    file.write_text(line * 3 + "{}\n")
    assert list(read(file, 2)) == [Request(1, 2, 3, (0, 4))] * 2
    with pytest.raises(ValueError, match="line 4"):
        list(read(file))
