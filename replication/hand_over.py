"""Handing the lead to another voter, and letting leases go before their end.

::

    leader 1                               heir 2                         voter 3
      |  takes no more proposals             |                               |
      |-- append the rest ------------------>|------------------------------>|
      |<------------- appended, to the end --|                               |
      |  all of it committed, applied        |                               |
      |  ends its lead: serves never again   |                               |
      |-- released ------------------------->|------------------------------>| forgets its
      |-- campaign now --------------------->|                               | lease for 1
                                             |  wants an epoch               |
                                             |-- seal ---------------------->|
                                             |<------------- sealed, no lease|

A lease keeps candidates waiting because its holder may still serve. The holder itself knows when it
does not: an epoch belongs to one life of one replica, so once that life has ended its lead, nothing
is ever served in the epoch again. Whoever hears so from the leader of that epoch may report that it
promised that epoch nothing. Only that one: what it promised to earlier epochs, or may have promised
before a restart, it reports as always. If the message is lost, the lease is waited for.

Closed timestamps do not need the wait: the leader bounds them by H, not by its lease.
"""

from __future__ import annotations

from replication import leader, voter
from replication.messages import CampaignNow
from replication.state import HandOver, NoteKind, Refusal, Role, State


def hand_over(state: State, heir: int) -> Refusal | None:
    """Begin to hand the lead to ``heir``; None if that has begun, or had before."""
    lead = state.lead
    if lead is None or not leader.serves(state, state.now):
        return Refusal.NOT_LEADER
    if heir == state.identity or heir not in state.log.membership.voters:
        return Refusal.NO_HEIR
    if lead.handing is None:
        lead.handing = HandOver(heir, state.now.lo_ns)
    return None if lead.handing.heir == heir else Refusal.HANDING_OVER


def step(state: State) -> None:
    """End the lead when the heir has everything and everything has been applied.

    To be asked before entries are handed out for applying: those of an earlier turn have had the
    answers that a serving leader gives, those of this turn would not get them.
    """
    lead = state.lead
    if lead is None or lead.handing is None:
        return
    last_lsn = state.log.last.lsn
    heir = lead.handing.heir
    if lead.progress[heir].matched_lsn == last_lsn == state.applied_lsn:
        state.counters.hand_overs_done += 1
        leader.resign(state, heir)


def tick(state: State) -> None:
    """Go on leading if the heir does not follow in time."""
    lead = state.lead
    if lead is None or lead.handing is None:
        return
    if state.now.lo_ns - lead.handing.began_ns > state.settings.hand_over_ns:
        lead.handing = None
        state.counters.hand_overs_given_up += 1
        state.note(NoteKind.STAYED, lead.epoch)


def campaign_now(state: State, message: CampaignNow) -> None:
    """The leader has ended its lead in this replica's favour: want an epoch at once."""
    voter.release(state, message.epoch)
    votes = state.identity in state.log.membership.voters
    if message.epoch != state.promise or state.urged_epoch == message.epoch or not votes:
        return
    if state.role is Role.FOLLOWER:
        state.urged_epoch = message.epoch
        state.want_epoch()
