"""A worker's own book: which of its blocks lie in which row of the directory.

Engines speak of single blocks, the directory of runs. The ledger is between them: told that blocks
were stored or are gone, it says which stretches to publish and which places of which runs to report,
and from then on assumes that it was done. Who uses it alone publishes for the worker, so the book
and the rows agree without reading any.

A block is known by its *mark*: its name, or the name behind a group's number where an engine keeps
several groups of one name apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from kv_pool.blocks import NAME_BYTES, ROOT_NAME, Names, split_names
from kv_pool.directory.membership import Registration
from kv_pool.directory.publishing import RUN_BLOCKS_MAX, Parent, Stretch
from kv_pool.records import TIERS

Mark: TypeAlias = bytes

EXTENDED_BLOCKS_MAX: Final = 64
"""Runs up to this length are made longer: a row is written anew each time."""


class Place(Struct, frozen=True):
    """Where a new stretch goes on: tier, first name and number of the run before it, and how many
    of its blocks are before the stretch."""

    tier: int
    first: bytes
    number: int
    blocks: int


class Publish(Struct, frozen=True):
    """A stretch to publish, as one row.

    number   makes its generation
    extends  how many of the blocks the row has already: it becomes longer; 0 for a new row
    content  content names of the blocks, where they are to be found by what they hold; else empty
    """

    namespace: bytes
    tier: int
    names: Names
    depth: int
    parent: Place | None
    parent_name: bytes
    number: int
    engine: bytes = b""
    extends: int = 0
    content: Names = b""

    @property
    def added(self) -> Names:
        """The blocks that are new."""
        return self.names[self.extends * NAME_BYTES :]

    def stretch(self, registration: Registration) -> Stretch:
        """For `kv_pool.directory.publishing.publish`, or `extend`."""
        parent = None
        if self.parent is not None:
            generation = registration.generation(self.parent.number)
            parent = Parent(self.parent.tier, self.parent.first, generation, self.parent.blocks)
        return Stretch(
            namespace=self.namespace,
            tier=self.tier,
            names=self.names,
            depth=self.depth,
            number=self.number,
            parent=parent,
            parent_name=self.parent_name,
            engine=self.engine,
            content=self.content,
        )


class Report(Struct, frozen=True):
    """Places of a run whose blocks are gone, for `kv_pool.directory.evicting.report`.

    run_number  the number of the run
    number      that of the runs that are left behind the first block that is gone
    """

    namespace: bytes
    tier: int
    first: bytes
    run_number: int
    gone: frozenset[int]
    number: int


class Where(Struct, frozen=True):
    """Where a block is: its run, its place in it, and how many blocks the run has."""

    namespace: bytes
    first: bytes
    place: int
    blocks: int


class _Book:
    """A run as the ledger has it: `names` are those that live."""

    __slots__ = ("depth", "first", "names", "namespace", "number", "published", "tier")

    def __init__(self, namespace: bytes, tier: int, names: Names, depth: int, number: int) -> None:
        self.namespace = namespace
        self.tier = tier
        self.first = names[:NAME_BYTES]
        self.names = names
        self.depth = depth
        self.number = number
        self.published: Publish | None = None

    def place(self, name: bytes) -> int:
        """Where a block stands in the run."""
        at = self.names.find(name)
        while at >= 0 and at % NAME_BYTES:
            at = self.names.find(name, at + 1)
        assert at >= 0, "a book knows what it is kept for"
        return at // NAME_BYTES


class Ledger:
    """The blocks of one worker, in all its namespaces and tiers.

    extends  a short run that ends where new blocks begin is made longer, instead of a new one: for
             engines that tell block by block
    """

    def __init__(self, *, extends: bool = False) -> None:
        self._extends = extends
        self._books: tuple[dict[Mark, _Book], ...] = tuple([{} for _ in range(TIERS)])
        self._number = 0

    def __len__(self) -> int:
        return sum([len(books) for books in self._books])

    def has(self, tier: int, mark: Mark) -> bool:
        """Whether a block is in a tier."""
        return mark in self._books[tier]

    def where(self, tier: int, mark: Mark) -> Where | None:
        """Where a block of a tier is; None when it is not there."""
        book = self._books[tier].get(mark)
        if book is None:
            return None
        place = book.place(mark[-NAME_BYTES:])
        return Where(book.namespace, book.first, place, len(book.names) // NAME_BYTES)

    def store(
        self,
        namespace: bytes,
        tier: int,
        names: Names,
        parent: bytes | None,
        *,
        group: bytes = b"",
        engine: bytes = b"",
        content: Names = b"",
    ) -> list[Publish] | None:
        """Consecutive blocks are there, behind `parent` (None: at the beginning of a prompt).

        content  their content names, or empty: then nobody finds them by what they hold

        What was there already is skipped. None when the parent is in no tier: nothing is noted then.
        """
        before: _Book | None = None
        if parent is not None:
            before = self._find(group + parent, tier)
            if before is None:
                return None
        marks = split_names(names)
        if group:
            marks = [group + mark for mark in marks]
        books = self._books[tier]
        width = len(engine) // len(marks) if marks else 0
        found: list[Publish] = []
        previous = parent
        at = 0
        for start, end in _stretches(marks, books):
            if start > at or (start and before is None):
                # Behind blocks that were there already.
                before = books[marks[start - 1]]
            if start:
                previous = names[(start - 1) * NAME_BYTES : start * NAME_BYTES]
            stretch = names[start * NAME_BYTES : end * NAME_BYTES]
            digests = engine[start * width : end * width]
            contents = content[start * NAME_BYTES : end * NAME_BYTES]
            if before is not None and self._grows(before, namespace, tier, previous, stretch):
                found.append(self._extend(before, stretch, digests, contents))
            else:
                publish, before = self._open(namespace, tier, stretch, before, previous)
                publish = before.published = msgspec.structs.replace(
                    publish, engine=digests, content=contents
                )
                found.append(publish)
            books.update(dict.fromkeys(marks[start:end], before))
            at = end
        return found

    def remove(self, tier: int, names: Iterable[bytes], *, group: bytes = b"") -> list[Report]:
        """Blocks are gone from a tier; what was not there is passed over."""
        gone: dict[int, tuple[_Book, set[int]]] = {}
        books = self._books[tier]
        for name in names:
            book = books.pop(group + name, None)
            if book is not None:
                gone.setdefault(id(book), (book, set()))[1].add(book.place(name))
        reports = []
        for book, places in gone.values():
            self._number += 1
            reports.append(
                Report(
                    book.namespace,
                    book.tier,
                    book.first,
                    book.number,
                    frozenset(places),
                    self._number,
                )
            )
            self._cut(book, places, group)
        return reports

    def clear(self) -> None:
        """Nothing is there any more; numbers go on."""
        for books in self._books:
            books.clear()

    def _find(self, mark: Mark, tier: int) -> _Book | None:
        """The run with a block: in the same tier, else in the fastest that has it."""
        book = self._books[tier].get(mark)
        if book is not None:
            return book
        for books in self._books:
            if mark in books:
                return books[mark]
        return None

    def _open(
        self,
        namespace: bytes,
        tier: int,
        names: Names,
        before: _Book | None,
        previous: bytes | None,
    ) -> tuple[Publish, _Book]:
        """A new run behind a block of an earlier one."""
        self._number += 1
        place, depth = None, 0
        if before is not None and previous is not None:
            offset = before.place(previous)
            place = Place(before.tier, before.first, before.number, offset + 1)
            depth = before.depth + offset + 1
        book = _Book(namespace, tier, names, depth, self._number)
        publish = Publish(namespace, tier, names, depth, place, previous or ROOT_NAME, self._number)
        return publish, book

    def _grows(
        self, book: _Book, namespace: bytes, tier: int, previous: bytes | None, names: Names
    ) -> bool:
        """Whether blocks behind `previous` may be put at the end of a run."""
        return (
            self._extends
            and book.published is not None
            and (book.namespace, book.tier) == (namespace, tier)
            and book.names[-NAME_BYTES:] == previous
            and len(book.names) + len(names) <= EXTENDED_BLOCKS_MAX * NAME_BYTES
        )

    def _extend(self, book: _Book, names: Names, engine: bytes, content: Names) -> Publish:
        published = book.published
        assert published is not None, "only what was published whole grows"
        before = len(book.names) // NAME_BYTES
        book.names += names
        book.published = msgspec.structs.replace(
            published,
            names=book.names,
            engine=published.engine + engine,
            content=published.content + content,
            extends=before,
        )
        return book.published

    def _cut(self, book: _Book, places: set[int], group: bytes) -> None:
        """What is left of a run: its head under its key, the stretches behind on their own."""
        whole = book.names
        # Its row has another shape than it was published with.
        book.published = None
        stretches = list(_left(len(whole) // NAME_BYTES, places))
        book.names = b""
        for start, end in stretches:
            names = whole[start * NAME_BYTES : end * NAME_BYTES]
            if start == 0:
                book.names = names
                continue
            piece = _Book(book.namespace, book.tier, names, book.depth + start, self._number)
            for at in range(0, len(names), NAME_BYTES):
                self._books[book.tier][group + names[at : at + NAME_BYTES]] = piece


def _stretches(marks: list[Mark], books: dict[Mark, _Book]) -> Iterator[tuple[int, int]]:
    """Half-open intervals of the blocks that are not there yet, none longer than a row."""
    known = 0
    for mark in marks:
        if mark not in books:
            break
        known += 1
    # What goes on from known blocks is new as a rule.
    behind = marks[known:] if known else marks
    if books.keys().isdisjoint(behind):
        places = [(known, len(marks))] if behind else []
    else:
        places = list(_left(len(marks), {at for at, mark in enumerate(marks) if mark in books}))
    for start, end in places:
        for at in range(start, end, RUN_BLOCKS_MAX):
            yield at, min(end, at + RUN_BLOCKS_MAX)


def _left(count: int, gone: set[int]) -> Iterator[tuple[int, int]]:
    """Half-open intervals of the places that are not gone."""
    start = None
    for place in range(count + 1):
        if place < count and place not in gone:
            start = place if start is None else start
        elif start is not None:
            yield start, place
            start = None
