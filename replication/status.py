"""What a replica tells about itself, for metrics and for people. No rule looks at it."""

from __future__ import annotations

from msgspec import Struct


class Counters(Struct):
    """Events since this life of the replica began; every field only grows.

    ``elections_begun`` are campaigns, ``elections_won`` those after which it served.
    ``epochs_lost`` counts the ends of its leads, handed over or not. ``entries_resent`` are those
    among ``entries_sent`` that had been sent to the same follower in the same lead before.
    ``entry_bytes_sent`` and ``install_bytes_sent`` count payloads and states, not their envelopes.
    ``installs_taken`` are snapshots that replaced the own log.
    """

    elections_begun: int = 0
    elections_won: int = 0
    epochs_lost: int = 0
    entries_sent: int = 0
    entries_resent: int = 0
    entry_bytes_sent: int = 0
    installs_sent: int = 0
    install_bytes_sent: int = 0
    installs_taken: int = 0
    hand_overs_done: int = 0
    hand_overs_given_up: int = 0


class FollowerStatus(Struct, frozen=True):
    """What a leader knows of one follower.

    ``known``: it has acknowledged something in this epoch; until then ``matched_lsn`` is 0 and
    ``lag_entries`` counts the whole log. ``silent_ns``: how long ago it was last heard, or the lead
    began, by the leader's clock. ``installing``: it is busy with a snapshot.
    """

    identity: int
    votes: bool
    known: bool
    installing: bool
    matched_lsn: int
    lag_entries: int
    silent_ns: int
