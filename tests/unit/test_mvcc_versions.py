"""Chains against a naive twin that keeps every version in one dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mvcc.versions import Chain, Intent
from tests.model.mvcc_driver import Driver

KEY = b"k"

steps = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.integers(1, 12)),
        st.tuples(st.just("settle"), st.just(0)),
        st.tuples(st.just("evict"), st.just(0)),
    ),
    max_size=14,
)


@given(steps=steps)
def test_versions_are_found_wherever_they_are_kept(steps: list[tuple[str, int]]) -> None:
    """Commits in any order, settled or not, evicted or not: each stamp sees the newest below it."""
    state = Driver([b""]).nodes[0].partition.state
    twin: dict[int, bytes] = {}
    for step, stamp in steps:
        chain = state.chains.get(KEY) or state.load(KEY)
        if step == "commit":
            value = b"v%d" % stamp
            if chain.commit(stamp, value, state.round):
                state.with_old.append(chain)
            state.unsettled.append((KEY, stamp, value))
            twin[stamp] = value
        else:
            state.settle()
            if step == "evict":
                del state.chains[KEY]
        chain = state.chains.get(KEY) or state.load(KEY)
        for at in range(14):
            below = [version for version in twin if version <= at]
            expected = (max(below), twin[max(below)]) if below else (0, None)
            assert state.version_at(KEY, chain, at) == expected


@given(
    intents=st.lists(st.integers(1, 9), unique=True, max_size=6),
    lifted=st.sets(st.integers(1, 9)),
    stamp=st.integers(0, 10),
    above=st.integers(0, 10),
    own=st.integers(1, 9),
)
def test_intents_stand_in_order_and_block_whom_they_must(
    intents: list[int], lifted: set[int], stamp: int, above: int, own: int
) -> None:
    """The blocker is the oldest foreign intent between the version found and the reader."""
    chain = Chain(0, None)
    for each in intents:
        chain.plant(Intent(each, b"", b"txn-%d" % each, 1, 1))
    for each in sorted(lifted):
        found = chain.lift(b"txn-%d" % each)
        assert (found is not None) == (each in intents)
    left = sorted(set(intents) - lifted)
    assert [intent.stamp for intent in chain.intents or ()] == left
    blocking = [each for each in left if above < each <= stamp and each != own]
    blocker = chain.blocker(stamp, above, b"txn-%d" % own)
    assert (blocker.stamp if blocker else None) == (blocking[0] if blocking else None)
    mine = chain.intent_of(b"txn-%d" % own)
    assert (mine is not None) == (own in left)
    assert left or chain.intents is None
