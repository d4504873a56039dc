"""What a leader sends its followers: entries in windows, snapshots, and again what may be lost.

To each follower so much is under way that a round trip is filled, and no more: what is sent before
the follower has caught up waits in buffers, where it delays everything else.
"""

from __future__ import annotations

from replication.entries import Entry
from replication.messages import Append, Install
from replication.state import Lead, Progress, State
from replication.status import Counters, FollowerStatus


def followers(state: State, lead: Lead) -> list[int]:
    """Who is sent the log: everyone in the membership, and whoever is just leaving it."""
    everyone = {*state.log.membership.everyone, *lead.leaving}
    return sorted(everyone - {state.identity})


def replicate(state: State) -> None:
    """Send every follower what it has not been sent."""
    lead = state.lead
    if lead is None:
        return
    for replica in followers(state, lead):
        progress = lead.progress[replica]
        waits = progress.next_lsn <= state.log.last.lsn and not progress.installing_ns
        if waits and _window_open(state, progress):
            _send_log(state, lead, replica, progress)


def _window_open(state: State, progress: Progress) -> bool:
    """Whether less is under way than may be; the message that reaches the limit still goes."""
    log, settings = state.log, state.settings
    answered_lsn = max(progress.matched_lsn, progress.equal_lsn, log.start.lsn)
    sent_lsn = max(progress.next_lsn - 1, answered_lsn)
    if sent_lsn - answered_lsn >= settings.window_entries_max:
        return False
    return log.bytes_to(sent_lsn) - log.bytes_to(answered_lsn) < settings.window_bytes_max


def _send_log(state: State, lead: Lead, replica: int, progress: Progress) -> None:
    """Send what follows ``next_lsn``, as far as the window reaches; at least an empty append."""
    log = state.log
    progress.sent_ns = state.now.lo_ns
    if progress.next_lsn <= log.start.lsn:
        state.send(replica, Install(lead.epoch, state.identity, log.snapshot, state.commit_lsn))
        state.counters.installs_sent += 1
        state.counters.install_bytes_sent += len(log.snapshot.state)
        progress.next_lsn = log.base.lsn + 1
        progress.equal_lsn = log.base.lsn
        progress.installing_ns = state.now.lo_ns + state.settings.install_ns
        return
    settings = state.settings
    while True:
        previous = log.position(progress.next_lsn - 1)
        assert previous is not None, (progress.next_lsn, log.start)
        entries = log.batch(previous.lsn, settings.batch_entries_max, settings.batch_bytes_max)
        message = Append(
            lead.epoch,
            state.identity,
            progress.round,
            previous,
            entries,
            state.commit_lsn,
            progress.matched_lsn,
        )
        state.send(replica, message)
        if entries:
            _count_sent(state.counters, progress, entries)
        progress.next_lsn += len(entries)
        progress.commit_sent_lsn = state.commit_lsn
        if not progress.asked_ns:
            progress.asked_ns = state.now.lo_ns
            progress.asked_lsn = progress.next_lsn - 1
        if progress.next_lsn > log.last.lsn or not _window_open(state, progress):
            return


def heard(state: State, progress: Progress, lsn: int) -> None:
    """A follower has answered what reaches ``lsn``: learn how long its answers take.

    Repetitions do not begin the measurement anew, so a loss makes it too long, never too short. It
    falls at once and rises slowly.
    """
    progress.heard_ns = state.now.lo_ns
    if not progress.asked_ns or lsn < progress.asked_lsn:
        return
    took_ns = max(0, state.now.lo_ns - progress.asked_ns)
    progress.asked_ns = 0
    usual_ns = progress.round_trip_ns
    if took_ns > usual_ns > 0:
        took_ns = (3 * usual_ns + took_ns) // 4
    progress.round_trip_ns = took_ns


def _count_sent(counters: Counters, progress: Progress, entries: list[Entry]) -> None:
    first_lsn, last_lsn = entries[0].lsn, entries[-1].lsn
    counters.entries_sent += len(entries)
    counters.entries_resent += max(0, min(last_lsn, progress.sent_lsn) - first_lsn + 1)
    counters.entry_bytes_sent += sum(len(entry.payload) for entry in entries)
    progress.sent_lsn = max(progress.sent_lsn, last_lsn)


def send_again(state: State, lead: Lead, replica: int, progress: Progress) -> None:
    """Begin anew with a follower that should have answered; tell others the commit LSN."""
    now_ns, last_lsn = state.now.lo_ns, state.log.last.lsn
    due_ns = progress.installing_ns or progress.sent_ns + _wait_ns(state, progress)
    behind = progress.matched_lsn < last_lsn or not progress.known
    if behind and now_ns >= due_ns:
        # One whose log is not known yet is asked with an empty append, not flooded.
        progress.next_lsn = (progress.matched_lsn if progress.known else last_lsn) + 1
        progress.installing_ns = 0
        progress.round += 1
        _send_log(state, lead, replica, progress)
    elif progress.commit_sent_lsn < state.commit_lsn and not progress.installing_ns:
        _send_log(state, lead, replica, progress)


def _wait_ns(state: State, progress: Progress) -> int:
    """How long an answer may take: from far away longer than ``resend_ns``."""
    settings = state.settings
    usual_ns = min(progress.round_trip_ns * 3 // 2, settings.patience_ns)
    return max(settings.resend_ns, usual_ns)


def statuses(state: State) -> list[FollowerStatus]:
    """What is known of each follower, by identity; nothing where this replica does not lead."""
    lead = state.lead
    if lead is None:
        return []
    voters, last_lsn = state.log.membership.voters, state.log.last.lsn
    return [
        FollowerStatus(
            identity=replica,
            votes=replica in voters,
            known=progress.known,
            installing=bool(progress.installing_ns),
            matched_lsn=progress.matched_lsn,
            lag_entries=last_lsn - progress.matched_lsn,
            silent_ns=max(0, state.now.lo_ns - progress.heard_ns),
        )
        for replica in followers(state, lead)
        for progress in [lead.progress[replica]]
    ]
