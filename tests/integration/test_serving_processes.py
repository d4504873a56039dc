"""Fleets as anybody starts them: `k2 fleet`, processes, HTTP, and what `k2 bench serve` makes of them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from bench.serve import memory, pd
from bench.serve.fleet import fleet
from bench.serve.part import Options
from bench.serve.talks import talks
from tests.integration.families import descendants, remaining

ASKED: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Say something of some length about nothing in particular."}
]


def streamed(client: OpenAI, model: str, tokens: int, when=lambda told: None):
    """Text and usage of a greedy chat; `when` is called with the text so far."""
    told, usage = "", None
    stream = client.chat.completions.create(
        model=model,
        messages=ASKED,
        max_tokens=tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        if chunk.choices:
            told += chunk.choices[0].delta.content or ""
            when(told)
        usage = chunk.usage or usage
    return told, usage


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_client_talks_to_a_fleet_whose_worker_is_killed() -> None:
    """OpenAI's library streams a chat from the router; the same prompt is found computed the second time; the worker
    that answers is killed in the middle of the third answer, which comes whole from the other one."""
    options = ["--lease", "2", "--prefill-rate", "1"]
    with fleet("toy", [("a", options), ("b", options)], policy="cost") as running:
        client = OpenAI(base_url=f"http://{running.router}/v1", api_key="none", timeout=120)
        assert [model.id for model in client.models.list()] == ["toy"]
        first, usage = streamed(client, "toy", 40)
        assert (len(first), usage.prompt_tokens_details.cached_tokens) == (40, 0)
        again, usage = streamed(client, "toy", 40)
        cached = usage.prompt_tokens_details.cached_tokens
        assert (again, cached) == (first, usage.prompt_tokens // 16 * 16)
        requests = "k2_worker_requests_total"
        (busy,) = [name for name in running.workers if running.counted(requests, only=name)]
        killed = []

        def kill_in_the_middle(told: str) -> None:
            if len(told) > 10 and not killed:
                running.processes[busy].kill()
                killed.append(busy)

        long, usage = streamed(client, "toy", 1500, kill_in_the_middle)
        assert killed
        assert (len(long), usage.completion_tokens) == (1500, 1500)
        assert long.startswith(first)
        whole, _ = streamed(client, "toy", 1500)
        assert whole == long
        rest = running.processes[({*running.processes} - {busy}).pop()]
    assert rest.returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_conversation_over_prefill_and_decode_processes() -> None:
    """Two turns through two prefill and two decode processes, each keeping and returning its pages: the second turn
    computes less than a page again, and one call moves each block."""
    found = pd.measured("toy", "pd-caching-3", talks(1, 2, seed=1), 40)
    assert [turn.turn for turn in found.turns] == [0, 1]
    assert found.turns[1].recomputed < 16
    assert found.turns[1].told.cached_tokens > found.turns[0].told.prompt_tokens
    assert found.calls == found.blocks > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_memory_is_looked_at_while_a_worker_answers() -> None:
    """A hundred short chats, whose pages turn over: looks after every ten of them, at which what is the worker's own
    has not grown by more than noise, and what it maps is there, too."""
    found = memory.measure(Options(quick=True, seed=1, begin=lambda *_: None))
    told = found.document["memory"]
    assert isinstance(told, dict)
    assert [one["requests"] for one in told["looks"]] == list(range(10, 101, 10))
    assert told["pages_evicted"] > 0
    assert told["own_growth_bytes"] < 8 * memory.MEGABYTE
    assert told["looks"][-1]["resident_bytes"] > told["looks"][-1]["own_bytes"] > 0


FLEET = """
import sys, time
from bench.serve.fleet import fleet
with fleet("toy", [("a", []), ("b", [])]) as running:
    print(*[each.pid for each in running.processes.values()], flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_fleet_does_not_outlive_who_is_killed() -> None:
    """Killed without a word, a bench leaves no worker behind."""
    with subprocess.Popen(
        [sys.executable, "-c", FLEET], stdout=subprocess.PIPE, text=True
    ) as bench:
        assert bench.stdout is not None
        workers = {int(word) for word in bench.stdout.readline().split()}
        assert len(workers & descendants(bench.pid)) == 2
        bench.kill()
    assert remaining(workers) == set()
