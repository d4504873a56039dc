"""What a transaction can contradict all by itself."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from jepsen_like.values import freeze, show

Mop = tuple[str, Hashable, object]
Found = tuple[str, Hashable]


def internal(mops: Sequence[Mop]) -> Found | None:
    """A read that disagrees with what the transaction itself read and appended before: why, and the key.

    What stood before the first append is not known; then only the end of the read can disagree.
    """
    whole: dict[Hashable, list[object]] = {}
    ends: dict[Hashable, list[object]] = {}
    for f, key, value in mops:
        if f == "append":
            (whole if key in whole else ends).setdefault(key, []).append(value)
            continue
        if value is None:
            continue
        assert isinstance(value, list)
        read = list(value)
        if key in whole and whole[key] != read:
            return f"read key {show(key)} as {show(read)} where it knew {show(whole[key])}.", key
        end = ends.pop(key, [])
        if end and read[-len(end) :] != end:
            return f"read key {show(key)} as {show(read)} after appending {show(end)}.", key
        whole[key] = read
    return None


def future_read(mops: Sequence[Mop]) -> Found | None:
    """A read of an element that the transaction appends only later: why, and the key."""
    seen: dict[Hashable, set[Hashable]] = {}
    for f, key, value in mops:
        if f == "append":
            if freeze(value) in seen.get(key, ()):
                return f"read {show(value)} in key {show(key)} before appending it itself.", key
        elif isinstance(value, list):
            seen.setdefault(key, set()).update(freeze(v) for v in value)
    return None
