"""Any history of requests, steps, cancellations and swaps gives each request its own greedy answer, also where prompts
are linked of chunks, and where answers are decoded under a retention policy."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.engine.assembly import retention_of
from serving.engine.request import Outcome, Request
from serving.engine.settings import EngineSettings
from serving.linking import Linker
from tests.unit.serving_chunks import CHUNKS, DOCUMENTS, EXACT, reference, told
from tests.unit.serving_engines import (
    answer_of,
    engine_of,
    lively,
    pool_of,
    prompt_of,
    tokens_of,
)
from tests.unit.serving_retained import plain, policy_of

ANSWER = 20
LINKED = 4
BUDGET = 16


class Engines(RuleBasedStateMachine):
    """Prompts share beginnings (two seeds, four lengths), pages are scarce, chunks small."""

    @initialize(
        device=st.integers(6, 14),
        host=st.sampled_from([0, 2, 12]),
        step_tokens=st.sampled_from([3, 17, 64]),
        keeps=st.sampled_from([True, True, True, False]),
        retains=st.sampled_from([False, False, True]),
    )
    def begin(self, device: int, host: int, step_tokens: int, keeps: bool, retains: bool) -> None:
        """An engine with a pool that holds one or two of the sequences at a time."""
        pool = pool_of(device, host)
        settings = EngineSettings(
            step_tokens_max=step_tokens, sequences_max=3, waiting_max=100, keeps_prefixes=keeps
        )
        policy = policy_of("raas", BUDGET) if retains else None
        self.retains = retains
        self.engine = engine_of(
            pool,
            settings,
            linker=Linker(lively(), pool, CHUNKS, LINKED),
            retention=retention_of(lively(), pool, EXACT, policy, settings),
        )
        self.expected: dict[int, list[int]] = {}
        self.outcomes: dict[int, list[Outcome]] = {}
        self.cancelled: set[int] = set()

    @rule(seed=st.integers(0, 1), length=st.sampled_from([1, 16, 33, 70]))
    def submit(self, seed: int, length: int) -> None:
        """A request comes."""
        prompt = prompt_of(length, seed)
        answer = (
            plain("raas", prompt, ANSWER, BUDGET) if self.retains else answer_of(prompt, ANSWER)
        )
        self._expect(Request(tokens=prompt, max_tokens=ANSWER), answer)

    @precondition(lambda self: not getattr(self, "retains", True))
    @rule(numbers=st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True))
    def ask_about(self, numbers: list[int]) -> None:
        """A request comes about some documents, which others may ask about in another order."""
        documents = tuple(DOCUMENTS[number] for number in numbers)
        tokens, chunks = told(*documents)
        request = Request(tokens=tokens, chunks=chunks, max_tokens=ANSWER)
        self._expect(request, reference(documents, LINKED, ANSWER))

    def _expect(self, request: Request, answer: list[int]) -> None:
        number = self.engine.submit(request)
        self.expected[number] = answer
        self.outcomes[number] = []

    @rule(count=st.integers(1, 12))
    def step(self, count: int) -> None:
        """The engine works."""
        for _ in range(count):
            for outcome in self.engine.step():
                assert outcome.number not in self.cancelled
                self.outcomes[outcome.number].append(outcome)
            self.engine.check_integrity()

    @rule(which=st.integers(0, 50))
    def cancel(self, which: int) -> None:
        """A caller goes away."""
        if self.expected:
            number = sorted(self.expected)[which % len(self.expected)]
            if self.engine.cancel(number):
                self.cancelled.add(number)

    @rule(count=st.integers(1, 6))
    def swap_out(self, count: int) -> None:
        """Cached pages leave the device."""
        self.engine.pool.swap_out(count)

    @invariant()
    def answers_are_right_so_far(self) -> None:
        """What was generated is the beginning of the answer."""
        if hasattr(self, "engine"):
            self.engine.check_integrity()
            for number, outcomes in self.outcomes.items():
                said = tokens_of(outcomes)
                assert said == self.expected[number][: len(said)]

    def teardown(self) -> None:
        """In the end everybody who stayed has all of it, and no page is left active."""
        if not hasattr(self, "engine"):
            return
        while self.engine.has_work:
            before = self.engine.counts.steps
            for outcome in self.engine.step():
                self.outcomes[outcome.number].append(outcome)
            assert self.engine.counts.steps > before, "somebody can always go on"
        for number, answer in self.expected.items():
            if number not in self.cancelled:
                assert tokens_of(self.outcomes[number]) == answer
        census = self.engine.pool.census()
        assert census.held + census.taken == 0


Engines.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
TestEngines = Engines.TestCase
