"""The chunks that a worker has compiled, up to a number of bytes; the least used one goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from serving.linking.chunk import Chunk, chunk_name, compile_chunk
from serving.model import Llama


class ChunkStore:
    """Compiles what it does not have.

    capacity_bytes  keys and values that are kept, at most
    dummies         tokens that every chunk is compiled behind; none for LegoLink-k
    """

    def __init__(self, model: Llama, capacity_bytes: int, dummies: Sequence[int] = ()) -> None:
        assert capacity_bytes > 0
        self._model = model
        self._capacity_bytes = capacity_bytes
        self._dummies = tuple(dummies)
        self._chunks: OrderedDict[bytes, Chunk] = OrderedDict()
        self.size_bytes = 0
        self.hits = 0
        self.compiled = 0

    def __len__(self) -> int:
        return len(self._chunks)

    def __contains__(self, token_ids: Sequence[int]) -> bool:
        return chunk_name(token_ids, len(self._dummies)) in self._chunks

    def get(self, token_ids: Sequence[int]) -> Chunk:
        """The chunk with these tokens, compiled now if it is not there."""
        name = chunk_name(token_ids, len(self._dummies))
        chunk = self._chunks.get(name)
        if chunk is not None:
            self._chunks.move_to_end(name)
            self.hits += 1
            return chunk
        chunk = compile_chunk(self._model, token_ids, dummies=self._dummies)
        self.compiled += 1
        self.put(chunk)
        return chunk

    def put(self, chunk: Chunk) -> None:
        """Keep a chunk, one that another worker has compiled for instance."""
        assert chunk.lead == len(self._dummies)
        before = self._chunks.pop(chunk.name, None)
        if before is not None:
            self.size_bytes -= before.size_bytes
        self._chunks[chunk.name] = chunk
        self.size_bytes += chunk.size_bytes
        while self.size_bytes > self._capacity_bytes and len(self._chunks) > 1:
            _, gone = self._chunks.popitem(last=False)
            self.size_bytes -= gone.size_bytes
        assert self.size_bytes == sum([each.size_bytes for each in self._chunks.values()])
