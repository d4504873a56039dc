"""How soon somebody follows a leader that was killed, in virtual time."""

from __future__ import annotations

import pytest

from jepsen_like.sim.cluster.failover import distribution, measure

KILLS = 10
LIMIT_S = 2.0


@pytest.mark.timeout(300)
def test_writes_go_on_within_two_seconds():
    """Ten leaders in a row are killed; clients at home and far away write again in time."""
    found = measure(1, KILLS)
    assert len(found) == KILLS
    assert len({one.node for one in found}) > 1
    for seconds in ([one.home_s for one in found], [one.far_s for one in found]):
        assert min(seconds) > 0.5, "a lease cannot have ended so soon"
        assert distribution(seconds).max_s <= LIMIT_S


def test_percentiles_are_those_of_the_nearest_rank():
    """Of a hundred figures the ninety-ninth is the second largest; of ten it is the largest."""
    hundred = distribution([float(number) for number in range(100, 0, -1)])
    assert (hundred.p50_s, hundred.p99_s, hundred.max_s) == (50.0, 99.0, 100.0)
    ten = distribution([float(number) for number in range(1, 11)])
    assert (ten.p50_s, ten.p99_s, ten.max_s) == (5.0, 10.0, 10.0)
