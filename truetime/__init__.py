"""Bounded time: stamps that respect real time, without agreeing on one clock.

No machine knows the true time ``UT``. A good clock knows an *interval* that contains it:

                 lo            UT             hi
    ─────────────┼──────────────┼──────────────┼────────────▶  time
                 └── never later than this     └── never earlier than this

Three rules turn such intervals into strict serializability. Each transaction has one
**stamp**, taken when it starts, and the store behaves as if transactions ran one by one in
the order of their stamps.

    T1  stamp >= UT        at the moment the stamp is handed to its transaction
    T2  stamp <= UT + D    at that same moment (D, ``ahead_max_ns``, is a setting)
    T3  UT > stamp         before anything the transaction saw or did is acknowledged

Let A be acknowledged before B begins. Then

    stamp(A)  <  UT(ack A)  <=  UT(begin B)  <=  stamp(B)
             T3             given             T1

so real-time order is contained in stamp order, whichever oracles gave the stamps and however
their intervals overlapped. T2 is not needed for the order; it bounds how long anybody can be
made to wait for T3 and how far a read may push later writers into the future.

Who keeps which rule:

* ``oracle.Oracle`` gives T1 by never emitting below the ``hi`` of its clock, T2 by never
  emitting above ``lo + D``, and uniqueness by counting up, also across restarts, inside a
  durable reservation.
* ``pool.Pool`` lets a client hand out a granted batch for ``ttl_ns``. The oracle has put the
  batch that far above its ``hi``, so T1 still holds when the last stamp leaves the pool.
* ``commit_wait`` is T3: a client without any synchronised clock knows that ``UT`` is at least
  the oracle's ``lo`` plus the monotonic time that has passed since the answer arrived, less
  the largest drift that clock can have.

Stamps are plain integers (``timestamp``), so comparing two of them is one machine operation.
The package does no I/O and reads no clock: every function is given the time it needs.
The idea of clocks that admit their uncertainty, and of waiting it out, is TrueTime's
(Corbett et al., "Spanner: Google's Globally-Distributed Database", OSDI 2012).
"""

from truetime.commit_wait import DRIFT_PPM_DEFAULT, Passed, wait_ns
from truetime.interval import Interval, combine
from truetime.oracle import (
    Batch,
    Oracle,
    OracleSettings,
    Reason,
    Refusal,
    SettingsRefusal,
    check_settings,
)
from truetime.pool import Pool
from truetime.timestamp import OFFSET_MAX_NS, Stamp

__all__ = [
    "DRIFT_PPM_DEFAULT",
    "OFFSET_MAX_NS",
    "Batch",
    "Interval",
    "Oracle",
    "OracleSettings",
    "Passed",
    "Pool",
    "Reason",
    "Refusal",
    "SettingsRefusal",
    "Stamp",
    "check_settings",
    "combine",
    "wait_ns",
]
