from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PoolFreshness(_message.Message):
    __slots__ = ("max_staleness_ms", "since")
    MAX_STALENESS_MS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    max_staleness_ms: int
    since: int
    def __init__(self, max_staleness_ms: _Optional[int] = ..., since: _Optional[int] = ...) -> None: ...

class PoolPart(_message.Message):
    __slots__ = ("namespace", "names")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    namespace: bytes
    names: bytes
    def __init__(self, namespace: _Optional[bytes] = ..., names: _Optional[bytes] = ...) -> None: ...

class MatchRequest(_message.Message):
    __slots__ = ("parts", "freshness", "longest_only")
    PARTS_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    LONGEST_ONLY_FIELD_NUMBER: _ClassVar[int]
    parts: _containers.RepeatedCompositeFieldContainer[PoolPart]
    freshness: PoolFreshness
    longest_only: bool
    def __init__(self, parts: _Optional[_Iterable[_Union[PoolPart, _Mapping]]] = ..., freshness: _Optional[_Union[PoolFreshness, _Mapping]] = ..., longest_only: _Optional[bool] = ...) -> None: ...

class MatchResponse(_message.Message):
    __slots__ = ("blocks", "holders", "as_of", "staleness_us")
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    STALENESS_US_FIELD_NUMBER: _ClassVar[int]
    blocks: int
    holders: _containers.RepeatedCompositeFieldContainer[PoolHolder]
    as_of: int
    staleness_us: int
    def __init__(self, blocks: _Optional[int] = ..., holders: _Optional[_Iterable[_Union[PoolHolder, _Mapping]]] = ..., as_of: _Optional[int] = ..., staleness_us: _Optional[int] = ...) -> None: ...

class PoolHolder(_message.Message):
    __slots__ = ("region", "worker", "tier", "blocks")
    REGION_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    region: str
    worker: str
    tier: int
    blocks: int
    def __init__(self, region: _Optional[str] = ..., worker: _Optional[str] = ..., tier: _Optional[int] = ..., blocks: _Optional[int] = ...) -> None: ...

class CoverRequest(_message.Message):
    __slots__ = ("region", "worker", "part", "freshness")
    REGION_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    region: str
    worker: str
    part: PoolPart
    freshness: PoolFreshness
    def __init__(self, region: _Optional[str] = ..., worker: _Optional[str] = ..., part: _Optional[_Union[PoolPart, _Mapping]] = ..., freshness: _Optional[_Union[PoolFreshness, _Mapping]] = ...) -> None: ...

class CoverResponse(_message.Message):
    __slots__ = ("identity", "pieces", "as_of", "staleness_us")
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    STALENESS_US_FIELD_NUMBER: _ClassVar[int]
    identity: bytes
    pieces: _containers.RepeatedCompositeFieldContainer[PoolPiece]
    as_of: int
    staleness_us: int
    def __init__(self, identity: _Optional[bytes] = ..., pieces: _Optional[_Iterable[_Union[PoolPiece, _Mapping]]] = ..., as_of: _Optional[int] = ..., staleness_us: _Optional[int] = ...) -> None: ...

class PoolPiece(_message.Message):
    __slots__ = ("tier", "start", "blocks", "run")
    TIER_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    tier: int
    start: int
    blocks: int
    run: bytes
    def __init__(self, tier: _Optional[int] = ..., start: _Optional[int] = ..., blocks: _Optional[int] = ..., run: _Optional[bytes] = ...) -> None: ...

class FindRequest(_message.Message):
    __slots__ = ("content", "freshness")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    freshness: PoolFreshness
    def __init__(self, content: _Optional[bytes] = ..., freshness: _Optional[_Union[PoolFreshness, _Mapping]] = ...) -> None: ...

class FindResponse(_message.Message):
    __slots__ = ("fragments", "as_of", "staleness_us")
    FRAGMENTS_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    STALENESS_US_FIELD_NUMBER: _ClassVar[int]
    fragments: _containers.RepeatedCompositeFieldContainer[PoolFragments]
    as_of: int
    staleness_us: int
    def __init__(self, fragments: _Optional[_Iterable[_Union[PoolFragments, _Mapping]]] = ..., as_of: _Optional[int] = ..., staleness_us: _Optional[int] = ...) -> None: ...

class PoolFragments(_message.Message):
    __slots__ = ("blocks",)
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    blocks: _containers.RepeatedCompositeFieldContainer[PoolFragment]
    def __init__(self, blocks: _Optional[_Iterable[_Union[PoolFragment, _Mapping]]] = ...) -> None: ...

class PoolFragment(_message.Message):
    __slots__ = ("region", "worker", "tier", "namespace", "first", "offset", "depth")
    REGION_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    region: str
    worker: str
    tier: int
    namespace: bytes
    first: bytes
    offset: int
    depth: int
    def __init__(self, region: _Optional[str] = ..., worker: _Optional[str] = ..., tier: _Optional[int] = ..., namespace: _Optional[bytes] = ..., first: _Optional[bytes] = ..., offset: _Optional[int] = ..., depth: _Optional[int] = ...) -> None: ...
