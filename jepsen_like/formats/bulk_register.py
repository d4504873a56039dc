"""Register files as arrays of bytes, like `bulk`: plain reads and writes of integers, with or without keys.

:f :write, :value 5        :f :read, :value nil        :f :write, :value [3 5]        "value": [3, null]
"""

from __future__ import annotations

import numpy as np

from jepsen_like.formats.bulk import (
    INVOKE,
    Flags,
    Ints,
    NotPlain,
    Raw,
    Shape,
    blocks_of,
    lines_of,
    numbers_at,
    pairs_of,
    plain_text,
    require,
)
from jepsen_like.linearizability.zones import FAR, Calls
from jepsen_like.transactions.columns import INFO, OK

NIL = -1


def calls_in(data: bytes, kind: str) -> tuple[Calls, int]:
    """The calls of a plain file and the number of its operations; nil is the number `NIL`.

    Raises `NotPlain` for any other file, also for one with compare-and-set.
    """
    text, shift = plain_text(data, kind)
    parts = []
    keys: list[Ints] = []
    values: list[Ints] = []
    writes: list[Flags] = []
    for block in blocks_of(text):
        lines = lines_of(block, kind, shift, Shape.REGISTER)
        key, value = _values(block, lines.value_at, shift)
        parts.append(lines)
        keys.append(key)
        values.append(value)
        writes.append(lines.write)
    key, value, write = np.concatenate(keys), np.concatenate(values), np.concatenate(writes)
    require(plain=(key >= 0).all() or (key < 0).all())
    kinds = np.concatenate([p.kind for p in parts])
    process = np.concatenate([p.process for p in parts])
    partner = pairs_of(kinds, process)
    completed = np.flatnonzero(kinds != INVOKE)
    require(plain=(partner[completed] >= 0).all())
    asked = partner[completed]
    require(plain=(write[completed] == write[asked]).all())
    # A crashed write is what was asked; who asked and was never told crashed too.
    open_writes = np.ones(len(kinds), dtype=np.bool_)
    open_writes[completed] = False
    open_writes[asked] = False
    crashed_write = np.append(
        asked[(kinds[completed] == INFO) & write[asked]], np.flatnonzero(open_writes & write)
    )
    fine = kinds[completed] == OK
    number = np.cumsum(kinds == INVOKE) - 1
    done, began = completed[fine], asked[fine]
    told = ~write[done] & (value[done] == NIL)
    source = np.where(write[done], began, done)
    calls = Calls(
        number=np.append(number[began][~told], number[crashed_write]),
        key=np.maximum(np.append(key[source][~told], key[crashed_write]), 0),
        value=np.append(value[source][~told], value[crashed_write]),
        write=np.append(write[done][~told], np.ones(len(crashed_write), dtype=np.bool_)),
        start=np.append(began[~told], crashed_write),
        end=np.append(done[~told], np.full(len(crashed_write), FAR)),
    )
    require(plain=not (calls.value[calls.write] == NIL).any())
    return calls, int((kinds == INVOKE).sum())


def _values(block: Raw, at: Ints, shift: int) -> tuple[Ints, Ints]:
    """Keys (-1 for none) and values (`NIL` for nil) at the given places."""
    key = np.full(len(at), -1, dtype=np.int64)
    paired = block[at] == ord("[")
    place = at.copy()
    if paired.any():
        key[paired], after = numbers_at(block, at[paired] + 1)
        require(plain=(block[after] == (ord(",") if shift else ord(" "))).all())
        place[paired] = after + 1
    value = np.full(len(at), NIL, dtype=np.int64)
    nil = block[place] == ord("n")
    value[~nil], after = numbers_at(block, place[~nil])
    stops = np.array([ord(c) for c in ",}] "], dtype=np.uint8)
    require(plain=np.isin(block[after], stops).all())
    return key, value


__all__ = ["NotPlain", "calls_in"]
