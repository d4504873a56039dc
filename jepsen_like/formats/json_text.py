"""Reads operation maps in JSON: one a line, or one array."""

from __future__ import annotations

import msgspec

from jepsen_like.history import HistoryError


def read_all(data: bytes) -> list[object]:
    """Every value in the text; an array of maps counts as one value."""
    stripped = data.strip()
    if stripped.startswith(b"["):
        try:
            return [msgspec.json.decode(stripped)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise HistoryError(f"not JSON: {error}") from error
    values: list[object] = []
    decoder = msgspec.json.Decoder()
    for number, line in enumerate(stripped.split(b"\n"), 1):
        text = line.strip().rstrip(b",")
        if text:
            try:
                values.append(decoder.decode(text))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise HistoryError(f"line {number}: not JSON: {error}") from error
    return values
