"""A schedule of faults: when, what, to whom, for how long, how much. JSON, one fault a line.

Owns the format and the names of all kinds of faults. It does not know how a fault is made: the
simulator has actions for them (`k2store.testing.simulation.faults`), real processes have others,
and each may lack some kinds; `unknown_to` says which.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import msgspec

from k2store.testing.simulation import Fault

__all__ = ["KINDS", "BadSchedule", "Fault", "Kind", "Pair", "Schedule", "Where", "read", "write"]

Where: TypeAlias = Literal["host", "links", "store"]
"""What a fault happens to: a host (`target`), directions of links (`pairs`), or the whole store."""

Pair: TypeAlias = tuple[str, str]
"""From and to; each is the name of a host or of a region, which stands for all hosts in it."""


class BadSchedule(ValueError):
    """Text that is no schedule, or names what is not there."""


class Kind(msgspec.Struct, frozen=True):
    """What a name of a fault stands for."""

    meaning: str
    where: Where
    amount: str = ""
    """What `Fault.amount` is, with its unit; empty where it means nothing."""


def _host(meaning: str, amount: str = "") -> Kind:
    return Kind(meaning, "host", amount)


def _links(meaning: str, amount: str = "") -> Kind:
    return Kind(meaning, "links", amount)


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        # Processes.
        "kill": _host("ends at once (SIGKILL), and is started again"),
        "stop": _host("is asked to end (SIGTERM), and is started again"),
        "pause": _host("stands still (SIGSTOP), and goes on"),
        "power-cut": _host("loses its power: what no sync had brought to the disk may be lost"),
        "starve-cpu": _host("gets a share of the processor only", "share that is left, 0 to 1"),
        "starve-memory": _host("gets little memory", "bytes that are left"),
        "lose-disk": _host("comes back with an empty disk"),
        "stale-disk": _host("comes back with the disk as it was at the beginning of the fault"),
        # Disks.
        "fail-sync": _host("syncs fail", "how many"),
        "fail-flush": _host("a flush of settled rows fails"),
        "fail-read": _host("reads fail", "how many"),
        "disk-full": _host("no room for another file"),
        "slow-disk": _host("syncs take long", "ns each"),
        "flip-bit": _host("a stored bit changes"),
        "misdirect": _host("writes go elsewhere in their file", "how many"),
        "corrupt": _host("stored bits change; a node that notices gets an empty disk", "bits"),
        # Clocks.
        "clock-step": _host("is set ahead of true time, or behind", "ns"),
        "clock-drift": _host("runs too fast, or slow", "parts in 10^9"),
        "clock-freeze": _host("stands still"),
        "clock-doubt": _host("says that it knows less", "times the ordinary bound"),
        "clock-strobe": _host("jumps forth and back", "ns"),
        "clock-violation": _host("is wrong by more than it says", "ns"),
        # Links.
        "isolate": _links("one host hears and is heard by nobody"),
        "halves": _links("two groups that do not hear each other"),
        "majority": _links("a minority of the nodes, a leader in it, is cut off from the others"),
        "one-way": _links("the first group is not heard by the second, which is heard by it"),
        "bridge": _links("two groups and one host that hears both"),
        "ring": _links("each host hears its neighbours only"),
        "flap": _links("cut and healed again and again", "ns of each"),
        "slow-link": _links("what arrives comes late", "ns"),
        "lossy-link": _links("packets are lost, doubled and overtaken", "share of each, 0 to 1"),
        "duplicate": _links(
            "what was sent arrives, its sender is told that it did not, and asks twice"
        ),
        "clog": _links("what is sent waits until the end"),
        "reset": _links("streams are broken"),
        "cut-region": _links("a region hears and is heard by no other one"),
        "cut-region-one-way": _links("a region is not heard by the others, or does not hear them"),
        "slow-region": _links("what comes from other regions comes late", "ns"),
        # The store.
        "control-away": Kind("the control plane does not answer, the target or everybody", "store"),
        "move": Kind("another leader is wanted", "store", "a number that chooses it"),
        "split": Kind("a partition begins at the key that is the target", "store"),
    }
)
"""All names, and what they stand for."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong in one run."""

    duration_ns: int
    """How long clients are at work while faults begin."""
    hosts: dict[str, str]
    """Every name that faults may speak of, nodes and clients, with its region."""
    faults: tuple[Fault, ...]

    def group(self, name: str) -> tuple[str, ...]:
        """The hosts that a name stands for: itself, or those of a region; BadSchedule for neither."""
        if name in self.hosts:
            return (name,)
        found = tuple(host for host, region in self.hosts.items() if region == name)
        if not found:
            raise BadSchedule(f"there is no host and no region {name!r}")
        return found

    def pairs(self, fault: Fault) -> tuple[Pair, ...]:
        """The directions between hosts that a fault happens to, regions spelled out."""
        return tuple(
            (source, target)
            for one, other in fault.pairs
            for source in self.group(one)
            for target in self.group(other)
            if source != target
        )

    def unknown_to(self, able: Collection[str]) -> tuple[str, ...]:
        """Kinds of this schedule that somebody who is able to do these cannot do."""
        return tuple(sorted({fault.name for fault in self.faults} - set(able)))


def write(schedule: Schedule) -> bytes:
    """The schedule as JSON, one fault a line."""
    faults = b",\n  ".join(msgspec.json.encode(fault) for fault in schedule.faults)
    hosts = msgspec.json.encode(schedule.hosts)
    return b'{"duration_ns": %d,\n "hosts": %s,\n "faults": [\n  %s]}\n' % (
        schedule.duration_ns,
        hosts,
        faults,
    )


def read(source: bytes | Path) -> Schedule:
    """Read a schedule, or the file that holds it; BadSchedule, OSError."""
    text = source.read_bytes() if isinstance(source, Path) else source
    try:
        schedule = msgspec.json.decode(text, type=Schedule)
    except msgspec.MsgspecError as error:
        raise BadSchedule(f"no schedule: {error}") from error
    if schedule.duration_ns <= 0:
        raise BadSchedule("a schedule takes some time")
    for fault in schedule.faults:
        _check(schedule, fault)
    return schedule


def _check(schedule: Schedule, fault: Fault) -> None:
    kind = KINDS.get(fault.name)
    if kind is None:
        raise BadSchedule(f"unknown fault {fault.name!r}; there are {', '.join(sorted(KINDS))}")
    if fault.at_ns < 0 or fault.for_ns < 0:
        raise BadSchedule(f"{fault.name} begins before the schedule, or ends before it begins")
    if kind.where == "host" and fault.target not in schedule.hosts:
        raise BadSchedule(f"{fault.name} happens to a host, and there is no {fault.target!r}")
    if kind.where == "links" and not schedule.pairs(fault):
        raise BadSchedule(f"{fault.name} happens to links, and names none")
