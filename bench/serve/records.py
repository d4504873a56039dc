"""What a long measurement has found so far, on the disk: who is interrupted can be asked, and goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from bench.processes import BenchError

Found = TypeVar("Found")


class Records(Generic[Found]):
    """Lines of JSON: the first says what is measured, each other one is a finding, in order.

    A line without its end was being written when the process was killed, and does not count.
    """

    def __init__(self, file: Path | None, about: Mapping[str, object], kind: type[Found]) -> None:
        """Read what is there; `BenchError` if that is of another measurement, or no record at all.

        file   None: nothing is kept
        about  all that findings depend on
        """
        self._file = file
        self.found: list[Found] = []
        if file is not None:
            self._read(file, msgspec.json.encode(about, order="sorted") + b"\n", kind)

    def add(self, found: Found) -> None:
        """One more; a process that is killed when this has returned has left it."""
        self.found.append(found)
        if self._file is not None:
            with self._file.open("ab") as written:
                written.write(msgspec.json.encode(found) + b"\n")

    def _read(self, file: Path, head: bytes, kind: type[Found]) -> None:
        if not file.exists() or not file.stat().st_size:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(head)
        first, *lines = file.read_bytes().splitlines(keepends=True)
        if first != head:
            raise BenchError(f"{file} holds another measurement, or the same by another program")
        whole = [line for line in lines if line.endswith(b"\n")]
        try:
            self.found = [msgspec.json.decode(line, type=kind) for line in whole]
        except msgspec.DecodeError as error:
            raise BenchError(f"{file} is damaged: {error}") from None
        if whole != lines:
            file.write_bytes(b"".join([first, *whole]))
