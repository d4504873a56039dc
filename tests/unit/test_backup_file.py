"""The file of a backup: whole, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2store.backup.file import FRAME_BYTES, HEADER_BLOCK_BYTES, Header, Row, Writer, verified
from k2store.errors import Corruption, Rejected

HEADER = Header(
    software="0", node="n", region="r", incarnation="00", stamp=1 << 40, time="then", start=b"a"
)


def write(path: Path, rows: list[Row]) -> Header:
    """A backup of these rows."""
    with Writer(path) as writer:
        for row in rows:
            writer.add(row)
        return writer.finish(HEADER)


ROWS = [Row(b"k%03d" % number, b"v" * number, number + 1) for number in range(100)]


def test_rows_come_back(tmp_path: Path) -> None:
    """Header and rows are read as they were written, over frames and repeatedly."""
    rows = [Row(b"%06d" % number, b"x" * 70_000, number + 1) for number in range(40)]
    header = write(tmp_path / "b", rows)
    assert header.data_bytes > 2 * FRAME_BYTES
    backup = verified(tmp_path / "b")
    assert backup.header == header
    assert (header.rows, header.stamp, header.start) == (40, 1 << 40, b"a")
    assert list(backup.rows()) == list(backup.rows()) == rows
    assert not list(tmp_path.glob("*.partial"))


def test_nothing_is_a_backup_too(tmp_path: Path) -> None:
    """A store without rows gives a file without frames."""
    assert write(tmp_path / "b", []).rows == 0
    assert list(verified(tmp_path / "b").rows()) == []


def test_an_interrupted_backup_leaves_nothing(tmp_path: Path) -> None:
    """A file that was not finished has no name, and one that was there before stays as it was."""
    write(tmp_path / "b", ROWS[:1])
    with pytest.raises(RuntimeError), Writer(tmp_path / "b") as writer:
        writer.add(ROWS[2])
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert list(verified(tmp_path / "b").rows()) == ROWS[:1]


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_every_flipped_bit_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    """One bit anywhere, and the file is refused."""
    path = tmp_path_factory.mktemp("flip") / "b"
    write(path, ROWS)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises((Corruption, Rejected)):
        verified(path)


@given(cut=st.floats(0, 1, exclude_max=True))
def test_every_lost_end_is_noticed(tmp_path_factory: pytest.TempPathFactory, cut: float) -> None:
    """A file that was cut anywhere is refused, and so is one with something after its end."""
    path = tmp_path_factory.mktemp("cut") / "b"
    write(path, ROWS)
    data = path.read_bytes()
    for wrong in (data[: int(cut * len(data))], data + b"\0"):
        path.write_bytes(wrong)
        with pytest.raises((Corruption, Rejected)):
            verified(path)


def test_other_formats_are_named(tmp_path: Path) -> None:
    """A file of a later format is refused by its number, not called damaged."""
    path = tmp_path / "b"
    write(path, ROWS)
    data = path.read_bytes()
    place = data.index(b"format") + len(b"format")
    assert place < HEADER_BLOCK_BYTES
    path.write_bytes(data[:place] + b"\x02" + data[place + 1 :])
    with pytest.raises(Rejected, match="format 2"):
        verified(path)


def test_what_is_no_backup(tmp_path: Path) -> None:
    """A missing file, a folder and a file of another kind are refused as such."""
    (tmp_path / "text").write_text("hello")
    for name in ("none", ".", "text"):
        with pytest.raises(Rejected):
            verified(tmp_path / name)
