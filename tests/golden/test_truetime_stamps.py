"""The layout of stamps is on disk and on the wire: it must never change."""

from pathlib import Path

import pytest

from truetime import timestamp

TABLE = Path(__file__).parent / "truetime" / "stamps.txt"
ROWS = [
    tuple(cell.strip() for cell in line.split("|"))
    for line in TABLE.read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize("human, number, ascending, descending", ROWS)
def test_every_form_of_a_stamp_is_as_recorded(
    human: str, number: str, ascending: str, descending: str
) -> None:
    """All four forms of each recorded stamp convert into each other exactly as recorded."""
    stamp = int(number)
    assert timestamp.describe(stamp) == human
    assert timestamp.parse(human) == stamp
    assert timestamp.parse(number) == stamp
    assert timestamp.encode(stamp).hex() == ascending
    assert timestamp.decode(bytes.fromhex(ascending)) == stamp
    assert timestamp.encode_descending(stamp).hex() == descending
    assert timestamp.decode_descending(bytes.fromhex(descending)) == stamp


def test_offsets_of_the_retry_levels_are_as_recorded() -> None:
    """The offsets are part of the format: uniqueness across restarts rests on them."""
    assert timestamp.OFFSET_TICKS == (0, 48_828, 97_656, 195_312)
    assert timestamp.OFFSET_MAX_NS == 49_999_872
