"""Home leases of the keyspaces that may get another home automatically.

A leader at home serves, and acknowledges, only while a majority of the keyspace's regions has
promised not to put another home in its place (:mod:`replication.home`). Each region has one voice,
a node that the map names; each node that leads a partition of the keyspace asks all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from k2store.node.cluster.turns import Home
from replication import HomeLease, HomeMessage, HomeNoteKind, HomePersist, HomeSettings
from truetime import Interval

if TYPE_CHECKING:
    from k2store.control.map import Map
    from k2store.node.cluster.group import Group
    from k2store.node.cluster.host import ClusterHost


class _Held(Struct):
    """One keyspace: its lease, and for which incarnation of the home this node asks."""

    lease: HomeLease
    incarnation: int
    asking: int = 0


class HomeLeases:
    """All home leases that concern one node."""

    def __init__(self, host: ClusterHost, settings: HomeSettings, durable: dict[str, int]) -> None:
        """`durable`: the incarnations that this node's voice is bound to."""
        self._host = host
        self._settings = settings
        self._durable = dict(durable)
        self._held: dict[str, _Held] = {}
        self._of_partition: dict[int, str] = {}
        self.refused = 0

    def __bool__(self) -> bool:
        return bool(self._held)

    # -- the map -----------------------------------------------------------------------------------

    def follow(self, present: Map) -> None:
        """Learn which keyspaces there are, where their homes are and who speaks for regions."""
        self._of_partition = {}
        for keyspace in present.keyspaces:
            partitions = [one for one in present.partitions if one.keyspace == keyspace.name]
            if not keyspace.voices or not partitions:
                continue
            incarnation = max(one.generation for one in partitions)
            held = self._held.get(keyspace.name)
            if held is None or held.lease.voices != keyspace.voices:
                lease = HomeLease(
                    self._host.node,
                    keyspace.voices,
                    self._durable.get(keyspace.name, 0),
                    self._settings,
                    self._host.engine.now,
                )
                held = self._held[keyspace.name] = _Held(lease, incarnation)
            held.incarnation = incarnation
            self._of_partition.update((one.id, keyspace.name) for one in partitions)

    # -- what leaders ask --------------------------------------------------------------------------

    def allows(self, group: Group, now: Interval) -> bool:
        """Whether the group's home is certainly not replaced at this moment."""
        name = self._of_partition.get(group.number)
        if name is None:
            return True
        held = self._held[name]
        return held.asking == held.incarnation and held.lease.holds(now)

    def end_ns(self, name: str) -> int:
        """When the lease of a keyspace's home ends, as this node knows; 0 without."""
        held = self._held.get(name)
        return 0 if held is None else held.lease.lease_end_ns

    # -- turns -------------------------------------------------------------------------------------

    def receive(self, name: str, message: HomeMessage, now: Interval) -> None:
        """What another node says of a home."""
        held = self._held.get(name)
        if held is not None:
            held.lease.receive(message, now)

    def tick(self, now: Interval) -> None:
        """Ask, answer, and want a promotion where a home is silent."""
        leading = {
            self._of_partition.get(group.number)
            for group in self._host.groups.values()
            if group.leading
        }
        for name, held in self._held.items():
            if name not in leading:
                if held.asking:
                    held.lease.let_go(now)
                held.asking = 0
            elif held.asking != held.incarnation and held.lease.hold(held.incarnation, now):
                held.asking = held.incarnation
            held.lease.tick(now)

    def advance(self) -> None:
        """Make durable what voices are bound to, send what they say, act on what they note."""
        while True:
            homes: list[Home] = []
            written: list[tuple[HomeLease, HomePersist]] = []
            for name, held in self._held.items():
                ready = held.lease.ready()
                for send in ready.sends:
                    link = self._host.links.to(send.to)
                    if link is not None:
                        link.home(name, send.message)
                if ready.persist is not None:
                    homes.append(Home(name, ready.persist.incarnation))
                    written.append((held.lease, ready.persist))
                for note in ready.notes:
                    if note.kind == HomeNoteKind.PROMOTION_WANTED:
                        if self._hears_most(held.lease.voices):
                            self._host.want_promotion(name, note.incarnation)
                    elif note.kind == HomeNoteKind.PROMOTED:
                        self._host.want_cut(name, note.incarnation)
            if not homes:
                return
            self._host.write_homes(homes)
            for lease, persist in written:
                lease.persisted(persist.token, self._host.engine.now)
            self._durable.update((home.keyspace, home.incarnation) for home in homes)

    def _hears_most(self, voices: tuple[int, ...]) -> bool:
        """Whether a promotion could come about now.

        Who is cut off itself would otherwise go on trying, and end the next home when it is back.
        """
        heard = sum(voice == self._host.node or self._host.heard(voice) for voice in voices)
        return 2 * heard > len(voices)

    def promote(self, name: str, incarnation: int) -> None:
        """The control plane has granted an incarnation: stop the old home."""
        held = self._held.get(name)
        if held is not None:
            held.lease.promote(incarnation, self._host.engine.now)

    def durable(self) -> list[Home]:
        """What a checkpoint must hold."""
        return [Home(name, incarnation) for name, incarnation in self._durable.items()]
