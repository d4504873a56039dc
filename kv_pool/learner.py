"""The learner: a replica of the directory in this process, for questions that take microseconds.

It is fed from the store, one *feed* for each partition: a snapshot at some stamp, then every commit
behind it::

    begin ──load──▶ load ──▶ finish(at)     rows that the snapshot does not have go at the end
                                 │
                                 ▼
                        apply(at, changes) ──▶ resolved(at) ──▶ apply ...        begin again any time

`Learner.as_of` is the stamp up to which all feeds are complete. What the learner answers is how things
stood then: a **hint**. Whoever wants to count on blocks claims them in the store
(`kv_pool.directory`), with the rows that `Learner.cover` names; a claim on something that has
changed since is refused there.

Each holder, a worker's tier, is a bit in the runs of the prompt trees (`kv_pool.tree`). Only rows that
are *valid* are in a tree: ready, of the incarnation and epoch that the worker's row ``id`` names, of
a worker that is not fenced. When that row changes, everything that it makes invalid goes with one
bit of `active`, before any row is looked at; the runs are cleaned behind that, some with each
commit, and the bit is used again when none of them carries it.

Rows that are not what they should be are counted and otherwise not there. One thread feeds and asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol, TypeAlias

from msgspec import Struct

from kv_pool import keys
from kv_pool.blocks import NAME_BYTES, Names
from kv_pool.fragments import Fragment, Fragments
from kv_pool.keys import RUN_BYTES, Worker
from kv_pool.namespace import DIGEST_BYTES, Namespace
from kv_pool.records import TIERS, Id, Phase, Run, State, decode, decode_run
from kv_pool.tree import PromptTree, common
from kv_pool.windows import Group, Interval, deepest, merged, suitable
from truetime import Interval as TimeInterval
from truetime import timestamp

_SWEEP_STRETCHES: Final = 16
"""How many stretches of retired holders are cleaned with each commit."""
_MASKS_MAX: Final = 65_536
"""How many sets of holders are remembered as tuples."""
_EVERY_TIER: Final = tuple(range(TIERS))
_EACH_TIER: Final = tuple([(tier,) for tier in _EVERY_TIER])
_RUN_AT: Final = len(keys.RUN)


class Holder:
    """One tier of one worker: who may have blocks. Compared by identity; a learner makes one each."""

    __slots__ = ("tier", "worker")

    def __init__(self, worker: Worker, tier: int) -> None:
        self.worker = worker
        self.tier = tier

    def __repr__(self) -> str:
        return f"<Holder {self.worker} tier {self.tier}>"


class Change(Protocol):
    """One key of a commit: its new value, None if it was deleted. As the store's watches give it."""

    @property
    def key(self) -> bytes: ...

    @property
    def value(self) -> bytes | None: ...


class Match(Struct, frozen=True, gc=False):
    """How much of a prompt is held, and by whom: a hint, as things stood at `as_of`.

    blocks   the longest prefix that one holder has
    holders  who has it
    depths   blocks of the prompt's beginning, for each holder that has any
    as_of    stamp of the state that was asked
    """

    blocks: int
    holders: tuple[Holder, ...]
    depths: dict[Holder, int]
    as_of: int


class Longest(Struct, frozen=True, gc=False):
    """The longest prefix that one holder has, and who has it, as things stood at `as_of`."""

    blocks: int
    holders: tuple[Holder, ...]
    as_of: int


class Piece(Struct, frozen=True):
    """A stretch of a prompt in one row: its first `blocks` blocks, from the prompt's `start` on."""

    namespace: bytes
    tier: int
    first: bytes
    start: int
    blocks: int
    run: Run


class Cover(Struct, frozen=True):
    """The rows in which a worker has the beginning of a prompt, and who the worker then was."""

    worker: Worker
    identity: Id
    blocks: int
    pieces: tuple[Piece, ...]


class Counts(Struct):
    """What a learner holds, and what it met.

    blocks      live blocks of valid runs, each holder's counted
    stretches   runs of the prompt trees
    retired     stretches that are still to be cleaned
    malformed   rows that were not what their key says, since the start
    """

    workers: int = 0
    rows: int = 0
    blocks: int = 0
    stretches: int = 0
    retired: int = 0
    malformed: int = 0


class _Member:
    """A worker with its rows: all that the store has, valid or not."""

    __slots__ = ("bits", "holders", "identity", "rows", "worker")

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.identity: Id | None = None
        self.holders = tuple([Holder(worker, tier) for tier in range(TIERS)])
        self.bits = [0] * TIERS
        self.rows: dict[bytes, Run] = {}


_Entering: TypeAlias = tuple[_Member, bytes, Run, Names, int]
"""A run to show: whose, its part of the key, the row, what is shown of it already, under which bit."""


class _Feed:
    """Where a feed stands; `loaded` is there while a snapshot is coming in."""

    __slots__ = ("as_of", "end", "loaded", "start")

    def __init__(self, start: bytes, end: bytes) -> None:
        self.start = start
        self.end = end
        self.as_of = 0
        self.loaded: dict[bytes, bytes] | None = None

    def covers(self, key: bytes) -> bool:
        return self.start <= key and (not self.end or key < self.end)


class Learner:
    """See the module. `fragments` also indexes blocks by content, at the price of memory."""

    def __init__(self, *, fragments: bool = False) -> None:
        self._members: dict[bytes, _Member] = {}
        self._feeds: dict[str, _Feed] = {}
        self._trees: dict[bytes, PromptTree] = {}
        self._namespaces: dict[bytes, Namespace] = {}
        self._active = 0
        self._meaning: list[Holder | None] = []
        self._free: list[int] = []
        self._retired: deque[tuple[int, list[tuple[PromptTree, Names]]]] = deque()
        self._sets: dict[int, tuple[Holder, ...]] = {}
        self._reserved: dict[bytes, list[Holder]] = {}
        self._fragments = Fragments() if fragments else None
        self._malformed = 0
        self._as_of = 0

    # ------------------------------------------------------------------------------ feeding

    def begin(self, feed: str, start: bytes = b"", end: bytes = b"") -> None:
        """A snapshot of the keys from `start` up to `end` (empty: to the last) follows.

        What the learner has stays until `finish`: questions are answered all the while.
        """
        known = self._feeds.get(feed)
        if known is None:
            known = self._feeds[feed] = _Feed(start, end)
            self._as_of = 0
        known.start, known.end = start, end
        known.loaded = {}

    def load(self, feed: str, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Rows of the snapshot; as many calls as it takes."""
        loaded = self._feeds[feed].loaded
        assert loaded is not None, "rows are loaded between begin and finish"
        loaded.update(rows)

    def finish(self, feed: str, at: int) -> None:
        """The snapshot at stamp `at` is loaded: from now on the answers are those of its rows.

        Raises ``ValueError`` for a snapshot that is older than what the feed has reached.
        """
        known = self._feeds[feed]
        if at < known.as_of:
            raise ValueError(f"a snapshot at {at} for a feed that has reached {known.as_of}")
        loaded = known.loaded
        assert loaded is not None, "a snapshot is finished after it has begun"
        known.loaded = None
        gone = [key for key in self._keys() if known.covers(key) and key not in loaded]
        self._take([*[(key, None) for key in gone], *loaded.items()])
        self._reach(known, at)

    def apply(self, feed: str, at: int, changes: Iterable[Change]) -> None:
        """One commit, whole. Commits of a feed come in the order of their stamps; a repeated one
        changes nothing."""
        known = self._feeds[feed]
        if at <= known.as_of:
            return
        self._take([(change.key, change.value) for change in changes])
        self._reach(known, at)

    def resolved(self, feed: str, at: int) -> None:
        """No commit at or below `at` will come on this feed any more."""
        known = self._feeds[feed]
        self._reach(known, at)

    def drop(self, feed: str) -> None:
        """A feed is gone, with everything that came by it."""
        known = self._feeds.pop(feed)
        self._take([(key, None) for key in self._keys() if known.covers(key)])
        self._as_of = min([feed.as_of for feed in self._feeds.values()], default=0)

    @property
    def as_of(self) -> int:
        """The stamp up to which every feed is complete; 0 before the first snapshot."""
        return self._as_of

    def cursor(self, feed: str) -> int:
        """The stamp behind which a feed goes on after an interruption; 0 for a new snapshot."""
        known = self._feeds.get(feed)
        return 0 if known is None else known.as_of

    def staleness_ns(self, now: TimeInterval) -> int:
        """By how much the answers may lag behind, at most, at a moment inside `now`."""
        return max(0, now.hi_ns - timestamp.time_ns(self.as_of))

    # ------------------------------------------------------------------------------- asking

    def match(self, namespace: bytes, names: Names) -> Match:
        """How much of a prompt each holder has."""
        tree = self._trees.get(namespace)
        depths: dict[Holder, int] = {}
        if tree is None:
            return Match(0, (), depths, self._as_of)
        stops = tree.walk(names, self._active)
        sets = self._sets
        blocks = 0
        holders: tuple[Holder, ...] = ()
        for blocks, mask in stops:
            holders = sets.get(mask) or self._holders(mask)
            if len(holders) == 1:
                depths[holders[0]] = blocks
            else:
                depths.update(dict.fromkeys(holders, blocks))
        return Match(blocks, holders, depths, self._as_of)

    def longest(self, namespace: bytes, names: Names) -> Longest:
        """The longest prefix of a prompt that one holder has."""
        tree = self._trees.get(namespace)
        if tree is None:
            return Longest(0, (), self._as_of)
        # As `PromptTree.depth`, in place: a call and its pair cost a tenth of all this takes.
        find = tree.runs.get
        mask = self._active
        size = len(names)
        at = 0
        while at < size:
            run = find(names[at : at + NAME_BYTES])
            if run is None:
                break
            stretch, holders = run
            holders &= mask
            if not holders:
                break
            mask = holders
            width = len(stretch)
            # Most runs are of one block, which has been compared already.
            if width == NAME_BYTES or names.startswith(stretch, at):
                at += width
            else:
                at += common(names, at, stretch)
        if not at:
            return Longest(0, (), self._as_of)
        return Longest(at // NAME_BYTES, self._sets.get(mask) or self._holders(mask), self._as_of)

    def match_across(self, parts: Sequence[tuple[bytes, Names]]) -> Match:
        """Like `match`, for a prompt that begins in one namespace and goes on in others.

        Raises ``ValueError`` where a namespace does not name the one before it as its parent: no
        match crosses a barrier that was not put up for it.
        """
        mask = self._active
        done = 0
        depths: dict[Holder, int] = {}
        before = b""
        for namespace, names in parts:
            known = self._namespaces.get(namespace)
            if before and (known is None or not known.follows(before)):
                raise ValueError(f"no prompt goes on from {before.hex()} in {namespace.hex()}")
            before = namespace
            tree = self._trees.get(namespace)
            stops = [] if tree is None else tree.walk(names, mask)
            blocks = len(names) // NAME_BYTES
            whole = 0
            for stop, who in stops:
                for holder in self._holders(who):
                    depths[holder] = done + stop
                if stop == blocks:
                    whole = who
            done += blocks
            if blocks:
                mask = whole
            if not mask:
                break
        longest = max(depths.values(), default=0)
        holders = tuple([one for one, depth in depths.items() if depth == longest])
        return Match(longest, holders, depths, self.as_of)

    def workers(self, namespace: bytes, names: Names) -> dict[Worker, int]:
        """How much of a prompt each worker has, counting all its tiers together.

        Looks at every block: tiers of a worker hold whatever they hold, and may overlap.
        """
        return self.match_groups([Group(namespace, names)])

    def match_groups(self, groups: Sequence[Group]) -> dict[Worker, int]:
        """How deep each worker can go on with a prompt, for a model with several attention groups.

        Counts all tiers of a worker together; see `kv_pool.windows`.
        """
        found: dict[Worker, list[list[Interval]]] = {}
        for number, group in enumerate(groups):
            for worker, held in self._held(group).items():
                before = found.setdefault(worker, [])
                if len(before) == number:
                    before.append(suitable(merged(held), group.window))
        deep = {worker: deepest(each) for worker, each in found.items() if len(each) == len(groups)}
        return {worker: depth for worker, depth in deep.items() if depth}

    def _held(self, group: Group) -> dict[Worker, list[Interval]]:
        """Blocks that workers have, in any tier, in order of their beginnings."""
        tree = self._trees.get(group.namespace)
        held: dict[Worker, list[Interval]] = {}
        if tree is None:
            return held
        names = group.names
        for at in range(0, len(names), NAME_BYTES):
            run = tree.runs.get(names[at : at + NAME_BYTES])
            if run is None:
                continue
            start = at // NAME_BYTES
            end = start + common(names, at, run[0]) // NAME_BYTES
            for holder in self._holders(run[1] & self._active):
                held.setdefault(holder.worker, []).append((start, end))
        return held

    def cover(self, worker: Worker, namespace: bytes, names: Names) -> Cover | None:
        """The rows to claim when a worker is to serve the beginning of a prompt.

        Each row is the longest that goes on, of the fastest tier. None when the worker serves nothing:
        unknown, fenced, suspect, or without the first block.
        """
        member = self._members.get(worker.prefix)
        if member is None or member.identity is None:
            return None
        identity = member.identity
        if identity.suspect or identity.state == State.FENCED:
            return None
        best = _pieces(member, identity, namespace, names, _EVERY_TIER)
        for tiers in _EACH_TIER:
            # Rows of two tiers may not meet where one of them ends: then one tier alone goes further.
            pieces = _pieces(member, identity, namespace, names, tiers)
            if _length(pieces) > _length(best):
                best = pieces
        if not best:
            return None
        return Cover(worker, identity, _length(best), tuple(best))

    def identity(self, worker: Worker) -> Id | None:
        """Who a worker is, as far as the learner knows."""
        member = self._members.get(worker.prefix)
        return None if member is None else member.identity

    def run(self, worker: Worker, part: bytes) -> Run | None:
        """The row of a run, valid or not, by what its key has behind ``run/``."""
        member = self._members.get(worker.prefix)
        return None if member is None else member.rows.get(part)

    def valid_runs(
        self, workers: Iterable[Worker] | None = None
    ) -> Iterator[tuple[Worker, int, bytes, Run]]:
        """Every run that counts: whose, in which tier and namespace, and the row; worker by worker.

        workers  only theirs
        """
        prefixes = self._members if workers is None else [worker.prefix for worker in workers]
        for prefix in sorted(prefixes):
            member = self._members.get(prefix)
            if member is None:
                continue
            for part, run in sorted(member.rows.items()):
                if _tree_bit(member, part, run):
                    yield member.worker, part[DIGEST_BYTES], part[:DIGEST_BYTES], run

    def known_workers(self) -> list[Worker]:
        """All workers that have registered, fenced ones included, in key order."""
        members = sorted(self._members.items())
        return [member.worker for _, member in members if member.identity is not None]

    def holder(self, worker: Worker, tier: int) -> Holder | None:
        """The holder that stands for a worker's tier in every answer."""
        member = self._members.get(worker.prefix)
        return None if member is None else member.holders[tier]

    def namespace(self, digest: bytes) -> Namespace | None:
        """The description of a namespace."""
        return self._namespaces.get(digest)

    def known_namespaces(self) -> dict[bytes, Namespace]:
        """The namespaces that were declared, by digest."""
        return dict(self._namespaces)

    def in_flight(self, namespace: bytes, name: bytes) -> tuple[Holder, ...]:
        """Who has announced a run that begins with this block, and has not got it yet: a hint."""
        return tuple(self._reserved.get(namespace + name, ()))

    def fragments(self, content: bytes) -> tuple[Fragment, ...]:
        """Where blocks with these tokens lie, whatever is before them; needs ``fragments=True``."""
        if self._fragments is None:
            raise ValueError("this learner has no index of fragments")
        return self._fragments.find(content)

    def counts(self) -> Counts:
        """What is held; takes a walk over all rows."""
        counts = Counts(malformed=self._malformed)
        for member in self._members.values():
            counts.workers += member.identity is not None
            counts.rows += len(member.rows)
            counts.blocks += sum(
                [run.live for part, run in member.rows.items() if _tree_bit(member, part, run)]
            )
        counts.stretches = sum([len(tree.runs) for tree in self._trees.values()])
        counts.retired = sum([len(stretches) for _, stretches in self._retired])
        return counts

    # ------------------------------------------------------------------------------- inside

    def _reach(self, feed: _Feed, at: int) -> None:
        """A feed is complete up to `at`."""
        if at > feed.as_of:
            feed.as_of = at
            self._as_of = min([each.as_of for each in self._feeds.values()])
        if self._retired:
            self._sweep(_SWEEP_STRETCHES)

    def _take(self, changes: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Rows that change together: their values, None where there is none.

        What goes, goes before anything comes: the blocks of a row that is shortened may come back in
        another one.
        """
        entering: list[_Entering] = []
        becoming: list[tuple[_Member, Id | None]] = []
        for key, value in changes:
            if not key.startswith(keys.WORKERS):
                if key.startswith(keys.NAMESPACES):
                    self._take_namespace(key, value)
                continue
            try:
                prefix, rest = keys.split_worker(key)
                member = self._members.get(prefix)
                if member is None:
                    if value is None:
                        continue
                    member = self._members[prefix] = _Member(keys.worker_of(prefix))
            except ValueError:
                self._malformed += 1
                continue
            if rest.startswith(keys.RUN):
                one = self._take_run(member, rest[_RUN_AT:], value)
                if one is not None:
                    entering.append(one)
            elif rest == keys.ID:
                becoming.append((member, self._identity_in(value)))
            if not member.rows and member.identity is None and not becoming:
                del self._members[prefix]
        for member, identity in becoming:
            self._become(member, identity)
            if identity is None and not member.rows:
                del self._members[member.worker.prefix]
        for member, part, run, shown, bit in entering:
            self._enter(member, part, run, shown, bit)

    def _identity_in(self, value: bytes | None) -> Id | None:
        if value is None:
            return None
        try:
            return decode(Id, value)
        except ValueError:
            self._malformed += 1
            return None

    def _take_run(self, member: _Member, part: bytes, value: bytes | None) -> _Entering | None:
        """A row of a run: take what was shown of it away, and say what is to be shown."""
        run = None
        if value is not None:
            try:
                if len(part) != RUN_BYTES or part[DIGEST_BYTES] >= TIERS:
                    raise ValueError(f"{part!r} names no run")
                run = decode_run(value)
                if not run.names.startswith(part[DIGEST_BYTES + 1 :]):
                    raise ValueError("a run lies under the name of its first block")
            except ValueError:
                self._malformed += 1
        before = member.rows.get(part)
        shown, bit = b"", 0
        if before is not None:
            shown, bit = self._leave(member, part, before, run)
        if run is None:
            member.rows.pop(part, None)
            return None
        member.rows[part] = run
        return member, part, run, shown, bit

    def _enter(
        self, member: _Member, part: bytes, run: Run, shown: Names = b"", shown_bit: int = 0
    ) -> None:
        """Show a run in the tree, as far as it counts; `shown` of it is there under that bit."""
        if run.phase == Phase.RESERVED:
            reserved = self._reserved.setdefault(part[:DIGEST_BYTES] + run.names[:NAME_BYTES], [])
            reserved.append(member.holders[part[DIGEST_BYTES]])
        identity = member.identity
        tier = part[DIGEST_BYTES]
        if identity is None or not run.live or not run.is_valid(identity, tier):
            return
        bit = member.bits[tier] or self._new_bit(member, tier)
        namespace = part[:DIGEST_BYTES]
        tree = self._trees.get(namespace)
        if tree is None:
            tree = self._trees[namespace] = PromptTree()
        names = run.live_names()
        if bit == shown_bit:
            names = names.removeprefix(shown)
        tree.add(names, bit)
        if self._fragments is not None:
            self._fragments.add(member.holders[tier], part, run)

    def _leave(
        self, member: _Member, part: bytes, run: Run, after: Run | None
    ) -> tuple[Names, int]:
        """Take a run out of the tree, unless it only grows; gives what stays shown, and its bit."""
        if run.phase == Phase.RESERVED:
            name = part[:DIGEST_BYTES] + run.names[:NAME_BYTES]
            self._reserved[name].remove(member.holders[part[DIGEST_BYTES]])
            if not self._reserved[name]:
                del self._reserved[name]
        bit = _tree_bit(member, part, run)
        if not bit:
            return b"", 0
        if self._fragments is not None:
            self._fragments.discard(member.holders[part[DIGEST_BYTES]], part, run)
        shown = run.live_names()
        if (
            after is not None
            and _tree_bit(member, part, after)
            and after.live_names().startswith(shown)
        ):
            return shown, bit
        self._trees[part[:DIGEST_BYTES]].discard(shown, bit)
        return b"", 0

    def _become(self, member: _Member, identity: Id | None) -> None:
        """A worker's row has changed: what it makes invalid is gone at once."""
        before = member.identity
        changed = [
            tier
            for tier in range(TIERS)
            if _generation(before, tier) != _generation(identity, tier)
        ]
        if not changed:
            member.identity = identity
            return
        left: dict[int, list[tuple[PromptTree, Names]]] = {tier: [] for tier in changed}
        for part, run in member.rows.items():
            tier = part[DIGEST_BYTES]
            if tier in left and _tree_bit(member, part, run):
                left[tier].append((self._trees[part[:DIGEST_BYTES]], run.live_names()))
                if self._fragments is not None:
                    self._fragments.discard(member.holders[tier], part, run)
        for tier, stretches in left.items():
            bit = member.bits[tier]
            if bit:
                self._active &= ~bit
                self._retired.append((bit, stretches))
                member.bits[tier] = 0
        member.identity = identity
        for part, run in member.rows.items():
            if part[DIGEST_BYTES] in left and run.phase == Phase.READY:
                self._enter(member, part, run)

    def _new_bit(self, member: _Member, tier: int) -> int:
        """A bit for a holder that has none: the first that nobody uses."""
        if self._free:
            number = self._free.pop()
            # The number meant somebody else: sets with it were remembered with another meaning.
            self._sets.clear()
        else:
            number = len(self._meaning)
            self._meaning.append(None)
        self._meaning[number] = member.holders[tier]
        bit = 1 << number
        member.bits[tier] = bit
        self._active |= bit
        return bit

    def _sweep(self, limit: int) -> None:
        """Clean some stretches of holders that are no more; their bits become free."""
        while self._retired:
            bit, stretches = self._retired[0]
            while stretches:
                if limit == 0:
                    return
                limit -= 1
                tree, names = stretches.pop()
                tree.discard(names, bit)
            self._retired.popleft()
            self._meaning[bit.bit_length() - 1] = None
            self._free.append(bit.bit_length() - 1)

    def _holders(self, mask: int) -> tuple[Holder, ...]:
        """Who the bits of a mask are, the lowest first."""
        known = self._sets.get(mask)
        if known is not None:
            return known
        holders = []
        rest = mask
        while rest:
            low = rest & -rest
            holder = self._meaning[low.bit_length() - 1]
            assert holder is not None, "an active bit means somebody"
            holders.append(holder)
            rest ^= low
        if len(self._sets) >= _MASKS_MAX:
            self._sets.clear()
        found = self._sets[mask] = tuple(holders)
        return found

    def _keys(self) -> Iterable[bytes]:
        """Keys of all rows that are held."""
        for prefix, member in self._members.items():
            # Runs first: as long as the worker is known, its rows leave the tree one by one.
            for part in member.rows:
                yield prefix + keys.RUN + part
            if member.identity is not None:
                yield prefix + keys.ID
        for digest in self._namespaces:
            yield keys.namespace(digest)

    def _take_namespace(self, key: bytes, value: bytes | None) -> None:
        digest = key[len(keys.NAMESPACES) :]
        if value is None:
            self._namespaces.pop(digest, None)
            return
        try:
            namespace = Namespace.decode(value)
        except ValueError:
            self._malformed += 1
            return
        if namespace.digest() != digest:
            self._malformed += 1
            return
        self._namespaces[digest] = namespace


def _pieces(
    member: _Member, identity: Id, namespace: bytes, names: Names, tiers: Sequence[int]
) -> list[Piece]:
    """Rows of these tiers that follow on each other along a prompt."""
    pieces: list[Piece] = []
    at = 0
    while at < len(names):
        first = names[at : at + NAME_BYTES]
        best, shared = None, 0
        for tier in tiers:
            run = member.rows.get(namespace + tier.to_bytes(1, "big") + first)
            if run is not None and run.is_valid(identity, tier):
                length = common(names, at, run.live_names())
                if length > shared:
                    best, shared = (tier, run), length
        if best is None:
            break
        start, blocks = at // NAME_BYTES, shared // NAME_BYTES
        pieces.append(Piece(namespace, best[0], first, start, blocks, best[1]))
        at += shared
    return pieces


def _length(pieces: Sequence[Piece]) -> int:
    return pieces[-1].start + pieces[-1].blocks if pieces else 0


def _generation(identity: Id | None, tier: int) -> tuple[int, int] | None:
    """What a valid row of a tier carries; None when nothing is valid."""
    if identity is None or identity.state == State.FENCED:
        return None
    return identity.incarnation, identity.epoch(tier)


def _tree_bit(member: _Member, part: bytes, run: Run) -> int:
    """The bit under which a run stands in its tree; 0 when it does not count."""
    tier = part[DIGEST_BYTES]
    bit = member.bits[tier]
    identity = member.identity
    if not bit or identity is None or not run.live or not run.is_valid(identity, tier):
        return 0
    return bit
