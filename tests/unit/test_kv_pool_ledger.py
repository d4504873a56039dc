"""The ledger: engines speak of blocks, the directory of runs, and both mean the same."""

from __future__ import annotations

import random

from kv_pool.blocks import ROOT_NAME
from kv_pool.directory.publishing import RUN_BLOCKS_MAX
from kv_pool.ledger import Ledger

NAMESPACE = b"n" * 16


def names(*numbers: int) -> bytes:
    """Names of blocks, packed."""
    return b"".join(number.to_bytes(16, "big") for number in numbers)


def test_stretches_follow_on_runs() -> None:
    """A stretch behind a known block says in which run and where; one behind an unknown is none."""
    ledger = Ledger()
    [first] = ledger.store(NAMESPACE, 0, names(1, 2, 3), None) or []
    assert (first.depth, first.parent, first.parent_name) == (0, None, ROOT_NAME)
    [second] = ledger.store(NAMESPACE, 0, names(9), names(2)) or []
    assert second.parent is not None
    assert (second.depth, second.parent.blocks, second.parent.first) == (2, 2, names(1))
    assert second.parent.number == first.number != second.number
    found = ledger.where(0, names(2))
    assert found is not None
    assert (found.first, found.place, found.blocks) == (names(1), 1, 3)
    assert ledger.where(1, names(2)) is None
    assert ledger.store(NAMESPACE, 0, names(5), names(4)) is None
    assert not ledger.has(0, names(5))
    [host] = ledger.store(NAMESPACE, 1, names(2), names(1)) or []
    assert host.parent is not None
    assert (host.tier, host.parent.tier, host.parent.blocks) == (1, 0, 1)


def test_what_is_there_is_skipped() -> None:
    """Only new blocks are published; stretches around known ones follow on them."""
    ledger = Ledger()
    ledger.store(NAMESPACE, 0, names(1, 2), None)
    ledger.store(NAMESPACE, 0, names(4), names(2))
    found = ledger.store(NAMESPACE, 0, names(1, 2, 3, 4, 5, 6), None) or []
    assert [one.names for one in found] == [names(3), names(5, 6)]
    assert [one.parent_name for one in found] == [names(2), names(4)]
    assert [one.depth for one in found] == [2, 3]
    assert ledger.store(NAMESPACE, 0, names(1, 2, 3), None) == []
    assert ledger.store(NAMESPACE, 0, b"", None) == []


def test_content_names_go_with_their_blocks() -> None:
    """Each stretch has those of its own blocks, also where known ones lie between; a longer row has all of them."""
    contents = names(11, 12, 13, 14, 15, 16)
    ledger = Ledger()
    ledger.store(NAMESPACE, 0, names(4), None)
    found = ledger.store(NAMESPACE, 0, names(1, 2, 3, 4, 5, 6), None, content=contents) or []
    assert [one.content for one in found] == [names(11, 12, 13), names(15, 16)]
    [plain] = ledger.store(NAMESPACE, 0, names(7), names(6)) or []
    assert plain.content == b""
    growing = Ledger(extends=True)
    growing.store(NAMESPACE, 0, names(1), None, content=names(11))
    [longer] = growing.store(NAMESPACE, 0, names(2), names(1), content=names(12)) or []
    assert (longer.names, longer.content, longer.extends) == (names(1, 2), names(11, 12), 1)


def test_long_stretches_become_several_rows() -> None:
    """No row is longer than allowed, and each follows on the one before."""
    ledger = Ledger()
    count = 2 * RUN_BLOCKS_MAX + 3
    found = ledger.store(NAMESPACE, 0, names(*range(1, count + 1)), None) or []
    assert [len(one.names) // 16 for one in found] == [RUN_BLOCKS_MAX, RUN_BLOCKS_MAX, 3]
    assert [one.depth for one in found] == [0, RUN_BLOCKS_MAX, 2 * RUN_BLOCKS_MAX]
    assert found[1].parent is not None
    assert found[1].parent.number == found[0].number


def test_groups_do_not_meet() -> None:
    """Blocks of one name in two groups are two blocks."""
    ledger = Ledger()
    ledger.store(NAMESPACE, 0, names(1), None, group=b"1")
    assert len(ledger.store(NAMESPACE, 0, names(1), None, group=b"2") or []) == 1
    assert len(ledger) == 2
    ledger.remove(0, [names(1)], group=b"1")
    assert ledger.has(0, b"2" + names(1))
    assert not ledger.has(0, b"1" + names(1))


def test_reports_are_by_run() -> None:
    """Blocks that are gone are told run by run; what is left behind them is a run of its own."""
    ledger = Ledger()
    ledger.store(NAMESPACE, 0, names(1, 2, 3, 4), None, engine=b"x" * 128)
    ledger.store(NAMESPACE, 0, names(7, 8), names(4))
    reports = ledger.remove(0, [names(2), names(8), names(99)])
    assert [(one.first, sorted(one.gone)) for one in reports] == [
        (names(1), [1]),
        (names(7), [1]),
    ]
    [later] = ledger.remove(0, [names(4)])
    assert (later.first, sorted(later.gone)) == (names(3), [1])
    [after] = ledger.store(NAMESPACE, 0, names(5), names(3)) or []
    assert after.parent is not None
    assert (after.parent.first, after.parent.number, after.depth) == (
        names(3),
        reports[0].number,
        3,
    )
    ledger.clear()
    assert len(ledger) == 0
    assert ledger.store(NAMESPACE, 0, names(6), names(1)) is None


def test_short_runs_grow_where_that_is_wanted() -> None:
    """Blocks at the end of a run make it longer, up to a length; at another place, in another tier,
    or behind a run that was cut, they are a run of their own."""
    ledger = Ledger(extends=True)
    ledger.store(NAMESPACE, 0, names(1), None, engine=b"a" * 32)
    [grown] = ledger.store(NAMESPACE, 0, names(2, 3), names(1), engine=b"b" * 64) or []
    assert (grown.extends, grown.names, grown.added) == (1, names(1, 2, 3), names(2, 3))
    assert grown.engine == b"a" * 32 + b"b" * 64
    assert (grown.depth, grown.parent) == (0, None)
    [branch] = ledger.store(NAMESPACE, 0, names(9), names(2)) or []
    [host] = ledger.store(NAMESPACE, 1, names(4), names(3)) or []
    assert branch.extends == host.extends == 0
    ledger.remove(0, [names(3)])
    [after] = ledger.store(NAMESPACE, 0, names(3), names(2)) or []
    assert (after.extends, after.depth) == (0, 2)
    many = Ledger(extends=True)
    for number in range(1, 200):
        many.store(NAMESPACE, 0, names(number), names(number - 1) if number > 1 else None)
    runs = [many.where(0, names(number)) for number in range(1, 200)]
    lengths = {run.first: run.blocks for run in runs if run is not None}
    assert list(lengths.values()) == [64, 64, 64, 7]
    plain = Ledger()
    plain.store(NAMESPACE, 0, names(1), None)
    assert [one.extends for one in plain.store(NAMESPACE, 0, names(2), names(1)) or []] == [0]


def test_random_books_balance() -> None:
    """Whatever is stored and removed, the ledger has exactly the blocks that a set has."""
    for seed in range(20):
        rng = random.Random(seed)
        ledger = Ledger()
        have: set[int] = set()
        for _ in range(200):
            start = rng.randrange(1, 40)
            chain = list(range(start, rng.randrange(start + 1, 42)))
            if rng.random() < 0.6:
                parent = None if start == 1 else names(start - 1)
                done = ledger.store(NAMESPACE, 0, names(*chain), parent)
                assert (done is None) == (start > 1 and start - 1 not in have)
                if done is not None:
                    new = b"".join(one.names for one in done)
                    assert new == names(*(one for one in chain if one not in have))
                    have |= set(chain)
            else:
                gone = rng.sample(chain, rng.randrange(len(chain)))
                reports = ledger.remove(0, [names(one) for one in gone])
                assert sum(len(one.gone) for one in reports) == len(have & set(gone))
                have -= set(gone)
            assert len(ledger) == len(have)
            assert all(ledger.has(0, names(one)) for one in have)
