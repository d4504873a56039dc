"""List-append files as arrays of bytes: every step works on all lines of a block at once.

Reads the plain form of EDN or JSON in which big histories come: one operation a line, integer keys and values,
integer processes, nothing else that is bracketed or quoted. Whatever else is met raises `NotPlain`, and the file
is read the slow way; nothing is ever guessed.

    :type :ok ... :value [[:append 5 1] [:r 3 [1 2]]]      "type": "ok", ... "value": [["append", 5, 1], ...]
    depth                1 2            2    3                                         brackets, running sum

1. *Lines.* The word after every colon (EDN) or opening quote (JSON) tells what it is by its first letters; from
   there type, process, index and the place of the value follow.
2. *Pairs.* Sorting by process brings every completion behind its invocation.
3. *Micro-operations* of completions (and of invocations nobody answered): brackets at depth 2 open one, digits at
   depth 3 are elements of reads.
4. *Branches.* The longest read of each key; all others are compared with it, element by element.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jepsen_like.history import UNSEEN, HistoryError
from jepsen_like.transactions.columns import (
    APPEND,
    FAIL,
    FAR,
    INFO,
    OK,
    READ,
    Branches,
    Transactions,
)

Raw = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

BLOCK_BYTES = 1 << 20
DIGITS_MAX = 18
INVOKE = 3
_PAD = 64


_ANYWHERE = (b"type", b"value", b"process", b"in", b"time", b"ok", b"fail")
_SHORT = 255


class NotPlain(Exception):
    """The text needs the slow reader."""


class Shape(Enum):
    """What a file holds: the words that may stand in it."""

    TRANSACTIONS = (b"txn", b"append")
    REGISTER = (b"read", b"write")


class Lines(NamedTuple):
    """One entry a line: what it says outside its value, and where the value begins and the line ends."""

    kind: Ints
    process: Ints
    number: Ints
    value_at: Ints
    end: Ints
    write: Flags


class _Mops(NamedTuple):
    """One entry a micro-operation; `line` is the line's number, `size` -1 for nil and for appends."""

    line: Ints
    kind: Ints
    key: Ints
    value: Ints
    size: Ints
    elements: Ints


def transactions_in(data: bytes, kind: str) -> Transactions:
    """The columns of a plain file in `edn` or `json`; raises `NotPlain` for any other."""
    text, shift = plain_text(data, kind)
    blocks = blocks_of(text)
    parts = [lines_of(block, kind, shift, Shape.TRANSACTIONS) for block in blocks]
    lines = Lines(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    partner = pairs_of(lines.kind, lines.process)
    completed = lines.kind != INVOKE
    answered = np.zeros(len(lines.kind), dtype=np.bool_)
    answered[partner[completed & (partner >= 0)]] = True
    wanted = completed | ~answered
    mops: list[_Mops] = []
    first = 0
    for block, part in zip(blocks, parts, strict=True):
        mops.append(_micro(block, part, wanted[first : first + len(part.kind)], first, shift))
        first += len(part.kind)
    whole = _Mops(*(np.concatenate(columns) for columns in zip(*mops, strict=True)))
    return _columns(lines, partner, wanted, whole)


def plain_text(data: bytes, kind: str) -> tuple[bytes, int]:
    """The text without enclosing brackets and needless space, and how much longer words are in JSON."""
    text = data.strip()
    if text[:1] in (b"[", b"("):
        text = text[1:-1].strip()
        if b"\n" not in text:
            text = text.replace(b"}, {", b"}\n{").replace(b"} {", b"}\n{").replace(b"},{", b"}\n{")
    if b"\\" in text or b";" in text or b"#" in text or not text.startswith(b"{"):
        raise NotPlain
    if kind == "json":
        return text.translate(None, b" \t\r"), 1
    if b'"' in text or b"\t" in text or b"  " in text:
        raise NotPlain
    return (text.translate(None, b"\r") if b"\r" in text else text), 0


def blocks_of(text: bytes) -> list[Raw]:
    """The text in blocks of whole lines, padded so that every look ahead stays inside."""
    blocks: list[Raw] = []
    at = 0
    while at < len(text):
        end = text.find(b"\n", at + BLOCK_BYTES)
        end = len(text) if end < 0 else end + 1
        blocks.append(np.frombuffer(text[at:end] + b"\n" + bytes(_PAD), dtype=np.uint8))
        at = end
    return blocks


def require(*, plain: object) -> None:
    """Raises `NotPlain` unless the condition holds."""
    if not plain:
        raise NotPlain


def lines_of(block: Raw, kind: str, shift: int, shape: Shape) -> Lines:
    """Reads what stands outside of the values."""
    ends = np.flatnonzero(block == ord("\n"))
    if len(ends) > 1 and ends[-1] == ends[-2] + 1:
        ends = ends[:-1]
    marks = np.flatnonzero(block == (ord(":") if kind == "edn" else ord('"')))
    if kind == "json":
        require(plain=len(marks) % 2 == 0)
        marks = marks[::2]
    one, two = block[marks + 1], block[marks + 2]
    stop = ord(" ") if kind == "edn" else ord('"')
    table = np.zeros(1 << 16, dtype=np.uint8)
    words = (*_ANYWHERE, *shape.value)
    for code, name in enumerate(words, 1):
        table[name[0] << 8 | name[1]] = code
    for initial in b"fr" if shape is Shape.TRANSACTIONS else b"f":
        table[initial << 8 | stop] = _SHORT
    found = table[one.astype(np.uint16) << 8 | two]
    require(plain=found.all())

    def word(name: bytes) -> Ints:
        places: Ints = marks[found == words.index(name) + 1]
        after = block[places + 1 + len(name)]
        ended = after == stop
        if kind == "edn":
            ended |= (after == ord(",")) | (after == ord("}"))
        require(plain=ended.all())
        return places

    # `index`, `info` and `invoke` begin alike; the third letter tells.
    inner = marks[found == words.index(b"in") + 1]
    places = {name: word(name) for name in (b"type", b"value", b"process")}
    places[b"index"] = inner[block[inner + 3] == ord("d")]
    require(plain=(block[places[b"index"] + 6] == stop).all())
    require(plain=np.isin(block[inner + 3], (ord("d"), ord("v"), ord("f"))).all())
    for name, where in places.items():
        if name != b"index" or len(where):
            require(plain=len(where) == len(ends) and _one_each(where, ends))
    letter = block[places[b"type"] + 7 + shift]
    third = block[places[b"type"] + 9 + shift]
    kinds = np.full(len(ends), -1, dtype=np.int64)
    kinds[letter == ord("o")] = OK
    kinds[letter == ord("f")] = FAIL
    kinds[(letter == ord("i")) & (third == ord("f"))] = INFO
    kinds[(letter == ord("i")) & (third == ord("v"))] = INVOKE
    require(plain=(kinds >= 0).all())
    process, _ = numbers_at(block, places[b"process"] + 9 + shift)
    index = np.full(len(ends), -1, dtype=np.int64)
    if len(places[b"index"]):
        index, _ = numbers_at(block, places[b"index"] + 7 + shift)
    write = np.zeros(len(ends), dtype=np.bool_)
    if shape is Shape.REGISTER:
        verbs = np.sort(np.concatenate((word(b"read"), word(b"write"))))
        require(plain=len(verbs) == len(ends) and _one_each(verbs, ends))
        write = block[verbs + 1] == ord("w")
    return Lines(kinds, process, index, places[b"value"] + 7 + shift, ends, write)


def _one_each(places: Ints, ends: Ints) -> bool:
    inside = places[1:] > ends[:-1] if len(ends) > 1 else np.ones(0, dtype=np.bool_)
    return bool(inside.all() and (places < ends).all())


def numbers_at(block: Raw, at: Ints) -> tuple[Ints, Ints]:
    """The numbers that begin at the given places, and the places behind them."""
    values = np.zeros(len(at), dtype=np.int64)
    ends = at.copy()
    live = np.arange(len(at))
    for digit in range(DIGITS_MAX + 1):
        figures = block[at[live] + digit] - np.uint8(48)
        more = figures < 10
        if not more.all():
            require(plain=digit > 0)
            live, figures = live[more], figures[more]
        if not len(live):
            return values, ends
        require(plain=digit < DIGITS_MAX)
        values[live] = values[live] * 10 + figures
        ends[live] += 1
    raise NotPlain


def pairs_of(kinds: Ints, processes: Ints) -> Ints:
    """For every completion the line of its invocation, -1 for none."""
    order = np.argsort(processes, kind="stable")
    kind, process = kinds[order], processes[order]
    same = np.concatenate((np.zeros(1, dtype=np.bool_), process[1:] == process[:-1]))[: len(order)]
    after_invoke = (
        same & np.concatenate((np.zeros(1, dtype=np.bool_), kind[:-1] == INVOKE))[: len(order)]
    )
    twice = after_invoke & (kind == INVOKE)
    if twice.any():
        where = order[np.flatnonzero(twice)[0]]
        raise HistoryError(
            f"line {where + 1}: process {processes[where]} invokes while its operation is still open"
        )
    partner = np.full(len(order), -1, dtype=np.int64)
    hits = np.flatnonzero(after_invoke)
    partner[order[hits]] = order[hits - 1]
    return partner


def _micro(block: Raw, lines: Lines, wanted: Flags, first: int, shift: int) -> _Mops:
    opening, closing = block == ord("["), block == ord("]")
    depth = np.cumsum(opening.view(np.int8) - closing.view(np.int8), dtype=np.int8)
    opens = np.flatnonzero(opening)
    deep = depth[opens]
    require(plain=not len(deep) or (deep.min() > 0 and deep.max() <= 3))
    require(plain=(depth[lines.end] == 0).all())
    roots = opens[deep == 1]
    null = block[lines.value_at] == ord("n")
    require(plain=np.array_equal(roots, lines.value_at[~null]))
    # Who has no value of his own would need his invocation's.
    require(plain=not (null & (lines.kind != INVOKE)).any())
    mops = opens[deep == 2]
    line = np.searchsorted(lines.end, mops)
    keep = wanted[line]
    mops, line = mops[keep], line[keep]
    letter = block[mops + 2]
    append = letter == ord("a")
    require(plain=(append | (letter == ord("r"))).all())
    key, after = numbers_at(block, mops + 1 + np.where(append, 8, 3) + shift)
    gap = ord(",") if shift else ord(" ")
    require(plain=(block[after] == gap).all())
    start = after + 1
    look = block[start]
    written = look[append]
    require(plain=((written - np.uint8(48)) < 10).all())
    value = np.full(len(mops), -1, dtype=np.int64)
    value[append], value_end = numbers_at(block, start[append])
    require(plain=(block[value_end] == ord("]")).all())
    listed = ~append & (look == ord("["))
    require(plain=(append | listed | (look == ord("n"))).all())
    figure = (block - np.uint8(48)) < 10
    begins = np.flatnonzero(figure[1:] & ~figure[:-1] & (depth[1:] == 3)) + 1
    lists = opens[deep == 3]
    every_list_end = np.searchsorted(begins, np.append(lists[1:], len(block)))
    every_list_start = np.searchsorted(begins, lists)
    place = np.searchsorted(lists, start[listed])
    require(plain=np.array_equal(lists[place], start[listed]) if len(lists) else not listed.any())
    sizes = (every_list_end - every_list_start)[place]
    # Only integers may stand in a list: as many gaps as there are elements less one.
    chosen = _spans(every_list_start[place], sizes)
    elements, element_end = numbers_at(block, begins[chosen])
    require(
        plain=(
            (block[element_end] == gap)
            | (block[element_end] == ord("]"))
            | (block[element_end] == ord(","))
        ).all()
    )
    size = np.full(len(mops), -1, dtype=np.int64)
    size[listed] = sizes
    return _Mops(first + line, np.where(append, APPEND, READ), key, value, size, elements)


def _spans(starts: Ints, sizes: Ints) -> Ints:
    """The numbers `start, start + 1, ...` of every span, one after the other."""
    total = int(sizes.sum())
    shift = starts - (np.cumsum(sizes) - sizes)
    spans: Ints = np.repeat(shift, sizes) + np.arange(total)
    return spans


def _columns(lines: Lines, partner: Ints, wanted: Flags, mops: _Mops) -> Transactions:
    txn_of_line = np.cumsum(wanted) - 1
    chosen = np.flatnonzero(wanted)
    kind = lines.kind[chosen]
    started = np.where(
        kind == INVOKE, chosen, np.where(partner[chosen] < 0, UNSEEN, partner[chosen])
    )
    outcome = np.where(kind == INVOKE, INFO, kind)
    end = np.where(outcome == INFO, FAR, chosen)
    index = np.where(lines.number[chosen] < 0, chosen, lines.number[chosen])
    txn = txn_of_line[mops.line]
    names, key = np.unique(mops.key, return_inverse=True)
    processes, process = np.unique(lines.process[chosen], return_inverse=True)
    size = mops.size.copy()
    reads = mops.kind == READ
    known = reads & (outcome[txn] == OK)
    elements = mops.elements
    if not known[reads].all():
        inside = np.repeat(known[reads & (size >= 0)], size[reads & (size >= 0)])
        elements = elements[inside]
    size[known & (size < 0)] = 0
    size[~known] = -1
    branches, branch = _branches(key[known], size[known], elements)
    value = mops.value.copy()
    value[known] = branch
    return Transactions(
        process=process.astype(np.int64),
        processes=[int(p) for p in processes],
        start=started,
        end=end,
        outcome=outcome.astype(np.int8),
        index=index,
        mops=np.bincount(txn, minlength=len(chosen)).astype(np.int64),
        kind=mops.kind.astype(np.int8),
        key=key.astype(np.int64),
        keys=[int(n) for n in names],
        value=value,
        size=size,
        branches=branches,
        names=None,
    )


def _branches(key: Ints, size: Ints, elements: Ints) -> tuple[Branches, Ints]:
    """The branches that the reads form, and the branch of every read (-1 for empty lists)."""
    first = np.cumsum(size) - size
    order = np.lexsort((size, key))
    last = np.flatnonzero(
        np.append(key[order][1:] != key[order][:-1], np.ones(min(1, len(order)), dtype=np.bool_))
    )
    longest = order[last]
    longest = longest[size[longest] > 0]
    branch_of_key = np.full(int(key.max()) + 1 if len(key) else 0, -1, dtype=np.int64)
    branch_of_key[key[longest]] = np.arange(len(longest))
    flat = elements[_spans(first[longest], size[longest])]
    flat_first = np.cumsum(size[longest]) - size[longest]
    branch = np.where(size > 0, branch_of_key[key], -1)
    # Element by element: is it what stands at its place in the longest read of its key?
    full = np.flatnonzero(size > 0)
    expected = flat[_spans(flat_first[branch[full]], size[full])]
    wrong = np.flatnonzero(expected != elements)
    branch_key, sizes, lists = key[longest], size[longest], [flat]
    if len(wrong):
        odd = np.unique(np.searchsorted(np.cumsum(size[full]), wrong, side="right"))
        more: list[tuple[int, Ints]] = []
        for read in full[odd][np.argsort(-size[full[odd]], kind="stable")]:
            mine = elements[first[read] : first[read] + size[read]]
            for number, (its_key, theirs) in enumerate(more):
                if its_key == key[read] and np.array_equal(theirs[: len(mine)], mine):
                    branch[read] = len(longest) + number
                    break
            else:
                branch[read] = len(longest) + len(more)
                more.append((int(key[read]), mine))
        branch_key = np.append(branch_key, [k for k, _ in more])
        sizes = np.append(sizes, [len(m) for _, m in more])
        lists += [m for _, m in more]
    return Branches(branch_key, sizes, np.concatenate(lists)), branch
