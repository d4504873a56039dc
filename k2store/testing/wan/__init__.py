"""A network between regions, on one machine: delays, jitter, loss, and cuts in one direction.

::

    with open_wan(("fra", "iad", "sin")) as wan:
        node = subprocess.Popen(wan.command("iad", ["my-server", "--listen", wan.host("iad")]))
        ...
        wan.cut("fra", "iad")  # fra's packets no longer reach iad; iad's still reach fra
        wan.loss("sin", "fra", 0.02)
        wan.heal()
        assert wan.statistics()["fra", "iad"].cut > 0  # the fault did something

Two engines stand behind one interface. Either is a process of its own, so that a busy owner does
not delay anybody's packets, and takes everything down when its owner ends, by whatever death.

``namespaces`` (root)
    Each region is a network namespace of its own, and its way out is a TUN device::

        ┌─ fra ────┐   ┌─ iad ────┐   ┌─ sin ────┐
        │ nodes    │   │ nodes    │   │ nodes    │
        │   TUN    │   │   TUN    │   │   TUN    │
        └────┬─────┘   └────┬─────┘   └────┬─────┘
             └────────── router ───────────┘
                           │ TUN
                    outside: the shell, tests (no delay, or "as from fra")

    Real packets of real TCP: a cut is silence, a loss makes TCP retransmit, a slow start is slow.

``proxy`` (anybody)
    A TCP proxy for each pair of viewer and address. Peers must dial through it, see `Wan.address`.

Within a region there is no delay. The table of distances is :mod:`k2store.testing.wan.matrix`.
"""

from __future__ import annotations

from k2store.testing.wan.link import LinkCounts, LinkRule
from k2store.testing.wan.matrix import DEFAULT_REGIONS, PLACES, round_trip_ms
from k2store.testing.wan.wan import Kind, Wan, leftovers, open_wan

__all__ = [
    "DEFAULT_REGIONS",
    "Kind",
    "LinkCounts",
    "LinkRule",
    "PLACES",
    "Wan",
    "leftovers",
    "open_wan",
    "round_trip_ms",
]
