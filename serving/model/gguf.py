"""Reads GGUF files: metadata, and tensors in F32, F16, Q8_0 and Q4_1, dequantised to float32.

::

    magic "GGUF" | version u32 | tensors u64 | pairs u64
    pairs        key string, type u32, value           (strings: length u64, bytes; arrays: type u32, length u64)
    tensors      name string, dimensions u32, extents u64 (innermost first), type u32, offset u64
    padding      up to `general.alignment` (32 unless stated)
    data         each tensor at its offset from here

Blocks of 32 weights: Q8_0 is a scale (f16) and 32 bytes; Q4_1 is a scale and a minimum (f16 each) and
16 bytes whose low halves are weights 0..15 and whose high halves are weights 16..31. Source: the
specification that stands in the ggml repository (docs/gguf.md).

The file is mapped, never read as a whole. It may come from anywhere: every length is checked against
what is left of the file before anything is made from it, and a file that is damaged, or that uses what is
not read here, raises `k2store.errors.Corruption`.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from k2store.errors import Corruption

Value = int | float | bool | str | list["Value"]

_VERSIONS: Final = (2, 3)
_DIMENSIONS_MAX: Final = 4
_ALIGNMENT_MAX: Final = 1 << 16
_NESTING_MAX: Final = 4
_STRING: Final = 8
_ARRAY: Final = 9
_SCALARS: Final = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}


class Layout(NamedTuple):
    """How weights of one type lie in the file: so many of them in so many bytes."""

    name: str
    block_weights: int
    block_bytes: int
    decode: Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Entry(NamedTuple):
    """One tensor of the file; the shape is outermost first, the offset from the file's beginning."""

    shape: tuple[int, ...]
    layout: Layout
    offset: int


def _float32(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    return blocks.view("<f4").astype(np.float32)


def _float16(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    return blocks.view("<f2").astype(np.float32)


def _q8_0(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    return scale * blocks[:, 2:].view(np.int8).astype(np.float32)


def _q4_1(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    least = blocks[:, 2:4].copy().view("<f2").astype(np.float32)
    halves = np.concatenate((blocks[:, 4:] & 0x0F, blocks[:, 4:] >> 4), axis=1)
    return scale * halves.astype(np.float32) + least


LAYOUTS: Final = {
    0: Layout("F32", 1, 4, _float32),
    1: Layout("F16", 1, 2, _float16),
    3: Layout("Q4_1", 32, 20, _q4_1),
    8: Layout("Q8_0", 32, 34, _q8_0),
}
"""Types of weights by their number in the file."""


class GgufFile:
    """An open GGUF file: `metadata` by key, and tensors by name."""

    def __init__(self, path: Path) -> None:
        """Map the file and read everything but the weights."""
        with path.open("rb") as file:
            try:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:
                raise Corruption(f"{path} is empty", what="gguf") from None
        self._path = path
        self._at = 0
        self.metadata: dict[str, Value] = {}
        self.entries: dict[str, Entry] = {}
        self._read_header()

    def tensor(self, name: str) -> Tensor:
        """The weights of a tensor, float32, a copy; ``Corruption`` where there is none of that name."""
        entry = self.entries.get(name)
        if entry is None:
            raise self._damaged(f"has no tensor {name!r}")
        count = math.prod(entry.shape)
        layout = entry.layout
        raw = np.frombuffer(
            self._bytes,
            dtype=np.uint8,
            count=count // layout.block_weights * layout.block_bytes,
            offset=entry.offset,
        )
        weights = layout.decode(raw.reshape(-1, layout.block_bytes))
        return torch.from_numpy(weights.reshape(entry.shape))

    def integer(self, key: str) -> int:
        """A whole number of the metadata; ``Corruption`` where it is missing or something else."""
        value = self.metadata.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._damaged(f"states no integer {key}")
        return value

    def number(self, key: str) -> float:
        """A number of the metadata."""
        value = self.metadata.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self._damaged(f"states no number {key}")
        return float(value)

    def text(self, key: str) -> str:
        """A text of the metadata."""
        value = self.metadata.get(key)
        if not isinstance(value, str):
            raise self._damaged(f"states no text {key}")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts of the metadata."""
        value = self.metadata.get(key)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self._damaged(f"states no list of texts {key}")
        return [str(each) for each in value]

    def integers(self, key: str) -> list[int]:
        """A list of whole numbers of the metadata."""
        value = self.metadata.get(key)
        if not isinstance(value, list) or not all(type(each) is int for each in value):
            raise self._damaged(f"states no list of integers {key}")
        return [each for each in value if isinstance(each, int)]

    # -------------------------------------------------------------------------------- parsing

    def _read_header(self) -> None:
        if self._take(4) != b"GGUF":
            raise self._damaged("is no GGUF file")
        version = self._number("<I")
        if version not in _VERSIONS:
            raise self._damaged(f"has version {version}; versions {_VERSIONS} are read")
        tensors = self._count(least_bytes=24)
        pairs = self._count(least_bytes=13)
        for _ in range(pairs):
            key = self._string()
            self.metadata[key] = self._value(int(self._number("<I")), nesting=0)
        found = [self._entry() for _ in range(tensors)]
        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= _ALIGNMENT_MAX:
            raise self._damaged(f"has an alignment of {alignment!r}")
        data = self._at + -self._at % alignment
        for name, entry in found:
            size = math.prod(entry.shape) // entry.layout.block_weights * entry.layout.block_bytes
            if name in self.entries or data + entry.offset + size > len(self._bytes):
                raise self._damaged(f"is cut off, or its tensor {name!r} is not where it should be")
            self.entries[name] = entry._replace(offset=data + entry.offset)

    def _entry(self) -> tuple[str, Entry]:
        name = self._string()
        dimensions = int(self._number("<I"))
        if not 1 <= dimensions <= _DIMENSIONS_MAX:
            raise self._damaged(f"has a tensor {name!r} of {dimensions} dimensions")
        extents = [int(self._number("<Q")) for _ in range(dimensions)]
        kind = int(self._number("<I"))
        layout = LAYOUTS.get(kind)
        if layout is None:
            known = ", ".join(each.name for each in LAYOUTS.values())
            raise self._damaged(f"has tensor {name!r} of type {kind}; read are {known}")
        if min(extents) < 1 or extents[0] % layout.block_weights:
            raise self._damaged(f"has tensor {name!r} of a shape that {layout.name} cannot have")
        return name, Entry(tuple(reversed(extents)), layout, int(self._number("<Q")))

    def _value(self, kind: int, nesting: int) -> Value:
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY or nesting == _NESTING_MAX:
            raise self._damaged(f"has a value of type {kind}, {nesting} lists deep")
        inner = int(self._number("<I"))
        if inner in _SCALARS:
            count = self._count(least_bytes=struct.calcsize(_SCALARS[inner]))
            form = f"<{count}{_SCALARS[inner][1]}"
            return list(struct.unpack(form, self._take(struct.calcsize(form))))
        count = self._count(least_bytes=8)
        return [self._value(inner, nesting + 1) for _ in range(count)]

    def _count(self, least_bytes: int) -> int:
        """How many things follow; each takes at least so many bytes, so more cannot be true."""
        count = int(self._number("<Q"))
        if count * least_bytes > len(self._bytes) - self._at:
            raise self._damaged(f"announces {count} things where there is no room for them")
        return count

    def _number(self, form: str) -> int | float | bool:
        number: int | float | bool = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return number

    def _string(self) -> str:
        length = int(self._number("<Q"))
        try:
            return self._take(length).decode()
        except UnicodeDecodeError:
            raise self._damaged("has a text that is not UTF-8") from None

    def _take(self, count: int) -> bytes:
        if count > len(self._bytes) - self._at:
            raise self._damaged("is cut off")
        taken = self._bytes[self._at : self._at + count]
        self._at += count
        return taken

    def _damaged(self, what: str) -> Corruption:
        return Corruption(f"{self._path} {what}", what="gguf")
