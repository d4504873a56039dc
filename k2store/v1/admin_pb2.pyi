from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ReplicaRole(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPLICA_ROLE_UNSPECIFIED: _ClassVar[ReplicaRole]
    REPLICA_ROLE_FOLLOWER: _ClassVar[ReplicaRole]
    REPLICA_ROLE_CANDIDATE: _ClassVar[ReplicaRole]
    REPLICA_ROLE_LEADER: _ClassVar[ReplicaRole]
REPLICA_ROLE_UNSPECIFIED: ReplicaRole
REPLICA_ROLE_FOLLOWER: ReplicaRole
REPLICA_ROLE_CANDIDATE: ReplicaRole
REPLICA_ROLE_LEADER: ReplicaRole

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("node", "region", "incarnation", "state", "version", "uptime_s", "partitions", "durable_turn", "log_bytes", "settled_bytes", "sessions", "transactions", "clock", "limits", "cluster")
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
    CLUSTER_FIELD_NUMBER: _ClassVar[int]
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
    cluster: ClusterStatus
    def __init__(self, node: _Optional[str] = ..., region: _Optional[str] = ..., incarnation: _Optional[bytes] = ..., state: _Optional[str] = ..., version: _Optional[str] = ..., uptime_s: _Optional[float] = ..., partitions: _Optional[_Iterable[_Union[PartitionStatus, _Mapping]]] = ..., durable_turn: _Optional[int] = ..., log_bytes: _Optional[int] = ..., settled_bytes: _Optional[int] = ..., sessions: _Optional[int] = ..., transactions: _Optional[int] = ..., clock: _Optional[_Union[GetClockResponse, _Mapping]] = ..., limits: _Optional[_Iterable[_Union[LimitStatus, _Mapping]]] = ..., cluster: _Optional[_Union[ClusterStatus, _Mapping]] = ...) -> None: ...

class ClusterStatus(_message.Message):
    __slots__ = ("node", "map_version", "safe", "peers", "forwarded", "forwarded_lost", "copying", "unfounded")
    NODE_FIELD_NUMBER: _ClassVar[int]
    MAP_VERSION_FIELD_NUMBER: _ClassVar[int]
    SAFE_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    FORWARDED_FIELD_NUMBER: _ClassVar[int]
    FORWARDED_LOST_FIELD_NUMBER: _ClassVar[int]
    COPYING_FIELD_NUMBER: _ClassVar[int]
    UNFOUNDED_FIELD_NUMBER: _ClassVar[int]
    node: int
    map_version: int
    safe: int
    peers: _containers.RepeatedCompositeFieldContainer[PeerStatus]
    forwarded: int
    forwarded_lost: int
    copying: int
    unfounded: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, node: _Optional[int] = ..., map_version: _Optional[int] = ..., safe: _Optional[int] = ..., peers: _Optional[_Iterable[_Union[PeerStatus, _Mapping]]] = ..., forwarded: _Optional[int] = ..., forwarded_lost: _Optional[int] = ..., copying: _Optional[int] = ..., unfounded: _Optional[_Iterable[int]] = ...) -> None: ...

class PeerStatus(_message.Message):
    __slots__ = ("node", "name", "region", "connected", "queued_bytes")
    NODE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    QUEUED_BYTES_FIELD_NUMBER: _ClassVar[int]
    node: int
    name: str
    region: str
    connected: bool
    queued_bytes: int
    def __init__(self, node: _Optional[int] = ..., name: _Optional[str] = ..., region: _Optional[str] = ..., connected: _Optional[bool] = ..., queued_bytes: _Optional[int] = ...) -> None: ...

class ReplicaStatus(_message.Message):
    __slots__ = ("role", "leader", "epoch", "applied", "committed", "applied_hash", "voters", "learners", "lease_left_ns", "lag", "elections_won", "epochs_lost", "installs_taken")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    LEADER_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    APPLIED_HASH_FIELD_NUMBER: _ClassVar[int]
    VOTERS_FIELD_NUMBER: _ClassVar[int]
    LEARNERS_FIELD_NUMBER: _ClassVar[int]
    LEASE_LEFT_NS_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    ELECTIONS_WON_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_LOST_FIELD_NUMBER: _ClassVar[int]
    INSTALLS_TAKEN_FIELD_NUMBER: _ClassVar[int]
    role: ReplicaRole
    leader: int
    epoch: int
    applied: int
    committed: int
    applied_hash: bytes
    voters: _containers.RepeatedScalarFieldContainer[int]
    learners: _containers.RepeatedScalarFieldContainer[int]
    lease_left_ns: int
    lag: int
    elections_won: int
    epochs_lost: int
    installs_taken: int
    def __init__(self, role: _Optional[_Union[ReplicaRole, str]] = ..., leader: _Optional[int] = ..., epoch: _Optional[int] = ..., applied: _Optional[int] = ..., committed: _Optional[int] = ..., applied_hash: _Optional[bytes] = ..., voters: _Optional[_Iterable[int]] = ..., learners: _Optional[_Iterable[int]] = ..., lease_left_ns: _Optional[int] = ..., lag: _Optional[int] = ..., elections_won: _Optional[int] = ..., epochs_lost: _Optional[int] = ..., installs_taken: _Optional[int] = ...) -> None: ...

class PartitionStatus(_message.Message):
    __slots__ = ("partition", "start", "end", "safe", "pinned_by", "closed", "horizon", "keys_in_memory", "transactions", "intents", "replica")
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
    REPLICA_FIELD_NUMBER: _ClassVar[int]
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
    replica: ReplicaStatus
    def __init__(self, partition: _Optional[int] = ..., start: _Optional[bytes] = ..., end: _Optional[bytes] = ..., safe: _Optional[int] = ..., pinned_by: _Optional[bytes] = ..., closed: _Optional[int] = ..., horizon: _Optional[int] = ..., keys_in_memory: _Optional[int] = ..., transactions: _Optional[int] = ..., intents: _Optional[int] = ..., replica: _Optional[_Union[ReplicaStatus, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("source", "assumed", "lo_ns", "hi_ns", "ahead_ns_max", "refusal", "commits", "commit_wait_ns_total", "commit_wait_ns_max", "detail")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    ASSUMED_FIELD_NUMBER: _ClassVar[int]
    LO_NS_FIELD_NUMBER: _ClassVar[int]
    HI_NS_FIELD_NUMBER: _ClassVar[int]
    AHEAD_NS_MAX_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    COMMIT_WAIT_NS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    COMMIT_WAIT_NS_MAX_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    source: str
    assumed: bool
    lo_ns: int
    hi_ns: int
    ahead_ns_max: int
    refusal: str
    commits: int
    commit_wait_ns_total: int
    commit_wait_ns_max: int
    detail: str
    def __init__(self, source: _Optional[str] = ..., assumed: _Optional[bool] = ..., lo_ns: _Optional[int] = ..., hi_ns: _Optional[int] = ..., ahead_ns_max: _Optional[int] = ..., refusal: _Optional[str] = ..., commits: _Optional[int] = ..., commit_wait_ns_total: _Optional[int] = ..., commit_wait_ns_max: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

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
