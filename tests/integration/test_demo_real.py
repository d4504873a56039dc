"""`k2 demo` with real workers, small: a conversation that moves, a client of one's own, and what is left behind."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import OpenAI

from jepsen_like import check
from jepsen_like.formats import load
from k2store.testing.child import K2
from k2store.testing.wan import namespaces
from tests.integration.families import command_of, descendants, remaining

PATIENCE_S = 60.0
PROMPTS = 6
REFUSAL = namespaces.refusal()
SMALL = ("--regions", "2", "--requests", str(PROMPTS), "--json")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@contextmanager
def demo(*options: str) -> Iterator[subprocess.Popen[str]]:
    """A run under way; killed should the test end before it."""
    process = subprocess.Popen(
        [*K2, "demo", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def until_said(process: subprocess.Popen[str], words: str) -> list[str]:
    """What it says on the error stream, up to a line with these words."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            return said
    raise AssertionError("".join(said))


def test_a_conversation_goes_on_in_another_region(tmp_path: Path) -> None:
    """The second turn is answered in the other region and nothing of what the first one left is computed again; answers
    are those of a worker that keeps nothing, and the history is valid, also to the checker from outside. Then
    the regions go on answering OpenAI's own client, until Ctrl-C ends the run and every process."""
    data, report = tmp_path / "data", tmp_path / "report.html"
    with demo(*SMALL, "--keep", "--data", str(data), "--report", str(report)) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        said = until_said(process, "/v1") + until_said(process, "k2 chat")
        family = descendants(process.pid)
        bases = [line.split()[-1] for line in said if line.rstrip().endswith("/v1")]
        answers = [_asked(base) for base in bases[:2]]
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, rest
    left = remaining(family)
    assert not left, [command_of(one) for one in left]

    assert (told["requests"], told["failed_requests"]) == (PROMPTS, 0)
    assert told["second_turns_elsewhere"] == 1
    assert told["prefix_tokens_elsewhere"] > 100
    assert told["recomputed_prefix_tokens_elsewhere"] == 0
    assert told["fetched_blocks"] > 0
    assert told["fetched_bytes"] == told["fetched_blocks"] * 720 * 1024
    # They came over the emulated ocean.
    assert told["wan_bytes"] > told["fetched_bytes"]
    assert 0 < told["block_hits"] <= told["ideal_hits"] < told["block_references"]
    assert 0 < told["cached_token_ratio"] < 1
    assert told["greedy_compared"] > 0
    assert told["greedy_identical"] is True
    assert told["checker_valid"] is True
    assert told["publish_wan_round_trips"] == 0
    assert told["phantoms"] == 0
    assert told["claims"] > 0
    assert (told["learner_differences"], told["incidents"]) == (0, [])
    assert check(load(data / "history.k2h"), model="kv-directory").valid is True
    assert answers[0] == answers[1] != ""
    page = report.read_text()
    assert page.count("<svg") >= 5
    assert "<script" not in page


@pytest.mark.root
@pytest.mark.skipif(
    REFUSAL is not None, reason=f"NOT TESTED, real workers between namespaces: {REFUSAL}"
)
def test_regions_as_namespaces() -> None:
    """The same between network namespaces: a conversation's pages go over the emulated ocean, and none is computed
    again; answers are those of a worker that keeps nothing, and the history is valid."""
    done = subprocess.run(
        [*K2, "demo", *SMALL, "--wan", "namespaces"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["requests"], told["failed_requests"]) == (PROMPTS, 0)
    assert told["second_turns_elsewhere"] == 1
    assert told["recomputed_prefix_tokens_elsewhere"] == 0
    assert told["fetched_blocks"] > 0
    assert told["wan_bytes"] > told["fetched_bytes"]
    # Half of 90 ms, the way from one region to the other, is the least that any of them takes.
    assert told["staleness_p99_ms"] > 45
    assert told["greedy_identical"] is True
    assert told["checker_valid"] is True
    assert told["learner_differences"] == 0


def _asked(base: str) -> str:
    """A greedy answer of a region, by OpenAI's library."""
    client = OpenAI(base_url=base, api_key="none", timeout=120)
    (model,) = [one.id for one in client.models.list()]
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        max_tokens=6,
        temperature=0,
    )
    return answer.choices[0].message.content or ""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)]
)
def test_an_end_in_the_middle_leaves_nothing_behind(number: signal.Signals, code: int) -> None:
    """Interrupted, told to end or killed while people ask, the run takes every process with it."""
    with demo(*SMALL) as process:
        until_said(process, f"of {PROMPTS} prompts")
        family = descendants(process.pid)
        # Nodes, routers, workers, and those who keep and part them.
        assert len(family) >= 2 + 2 + 2
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, said
    left = remaining(family)
    assert not left, [command_of(one) for one in left]


def test_options_of_the_other_run_are_refused() -> None:
    """Simulated pools have sizes and speeds, and answer nobody; real ones do."""
    for options, words in (
        (("--speed", "4"), "--simulated"),
        (("--pool-blocks", "9"), "--simulated"),
        (("--simulated", "--keep"), "keep"),
    ):
        done = subprocess.run([*K2, "demo", *options], capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert words in done.stderr
