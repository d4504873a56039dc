from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("node", "region", "incarnation", "state", "version", "uptime_s", "partitions", "durable_turn", "log_bytes", "settled_bytes", "sessions", "transactions", "clock", "limits")
    NODE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    DURABLE_TURN_FIELD_NUMBER: _ClassVar[int]
    LOG_BYTES_FIELD_NUMBER: _ClassVar[int]
    SETTLED_BYTES_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    TRANSACTIONS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    node: str
    region: str
    incarnation: bytes
    state: str
    version: str
    uptime_s: float
    partitions: _containers.RepeatedCompositeFieldContainer[PartitionStatus]
    durable_turn: int
    log_bytes: int
    settled_bytes: int
    sessions: int
    transactions: int
    clock: GetClockResponse
    limits: _containers.RepeatedCompositeFieldContainer[LimitStatus]
    def __init__(self, node: _Optional[str] = ..., region: _Optional[str] = ..., incarnation: _Optional[bytes] = ..., state: _Optional[str] = ..., version: _Optional[str] = ..., uptime_s: _Optional[float] = ..., partitions: _Optional[_Iterable[_Union[PartitionStatus, _Mapping]]] = ..., durable_turn: _Optional[int] = ..., log_bytes: _Optional[int] = ..., settled_bytes: _Optional[int] = ..., sessions: _Optional[int] = ..., transactions: _Optional[int] = ..., clock: _Optional[_Union[GetClockResponse, _Mapping]] = ..., limits: _Optional[_Iterable[_Union[LimitStatus, _Mapping]]] = ...) -> None: ...

class PartitionStatus(_message.Message):
    __slots__ = ("partition", "start", "end", "safe", "pinned_by", "closed", "horizon", "keys_in_memory", "transactions", "intents")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    SAFE_FIELD_NUMBER: _ClassVar[int]
    PINNED_BY_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    KEYS_IN_MEMORY_FIELD_NUMBER: _ClassVar[int]
    TRANSACTIONS_FIELD_NUMBER: _ClassVar[int]
    INTENTS_FIELD_NUMBER: _ClassVar[int]
    partition: int
    start: bytes
    end: bytes
    safe: int
    pinned_by: bytes
    closed: int
    horizon: int
    keys_in_memory: int
    transactions: int
    intents: int
    def __init__(self, partition: _Optional[int] = ..., start: _Optional[bytes] = ..., end: _Optional[bytes] = ..., safe: _Optional[int] = ..., pinned_by: _Optional[bytes] = ..., closed: _Optional[int] = ..., horizon: _Optional[int] = ..., keys_in_memory: _Optional[int] = ..., transactions: _Optional[int] = ..., intents: _Optional[int] = ...) -> None: ...

class LimitStatus(_message.Message):
    __slots__ = ("name", "value", "limit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: int
    limit: int
    def __init__(self, name: _Optional[str] = ..., value: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class GetClockRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetClockResponse(_message.Message):
    __slots__ = ("source", "assumed", "lo_ns", "hi_ns", "ahead_ns_max", "refusal", "commits", "commit_wait_ns_total", "commit_wait_ns_max")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ASSUMED_FIELD_NUMBER: _ClassVar[int]
    LO_NS_FIELD_NUMBER: _ClassVar[int]
    HI_NS_FIELD_NUMBER: _ClassVar[int]
    AHEAD_NS_MAX_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_WAIT_NS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    COMMIT_WAIT_NS_MAX_FIELD_NUMBER: _ClassVar[int]
    source: str
    assumed: bool
    lo_ns: int
    hi_ns: int
    ahead_ns_max: int
    refusal: str
    commits: int
    commit_wait_ns_total: int
    commit_wait_ns_max: int
    def __init__(self, source: _Optional[str] = ..., assumed: _Optional[bool] = ..., lo_ns: _Optional[int] = ..., hi_ns: _Optional[int] = ..., ahead_ns_max: _Optional[int] = ..., refusal: _Optional[str] = ..., commits: _Optional[int] = ..., commit_wait_ns_total: _Optional[int] = ..., commit_wait_ns_max: _Optional[int] = ...) -> None: ...

class GrantStampsRequest(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class GrantStampsResponse(_message.Message):
    __slots__ = ("base", "step", "count", "ttl_ns", "lo_ns")
    BASE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    TTL_NS_FIELD_NUMBER: _ClassVar[int]
    LO_NS_FIELD_NUMBER: _ClassVar[int]
    base: int
    step: int
    count: int
    ttl_ns: int
    lo_ns: int
    def __init__(self, base: _Optional[int] = ..., step: _Optional[int] = ..., count: _Optional[int] = ..., ttl_ns: _Optional[int] = ..., lo_ns: _Optional[int] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("grace_ms",)
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    grace_ms: int
    def __init__(self, grace_ms: _Optional[int] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
