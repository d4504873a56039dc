from k2store.v1 import session_pb2 as _session_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Freshness(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FRESHNESS_UNSPECIFIED: _ClassVar[Freshness]
    FRESHNESS_LOCAL: _ClassVar[Freshness]
    FRESHNESS_BOUNDED: _ClassVar[Freshness]
FRESHNESS_UNSPECIFIED: Freshness
FRESHNESS_LOCAL: Freshness
FRESHNESS_BOUNDED: Freshness

class GetRequest(_message.Message):
    __slots__ = ("key", "at", "txn", "freshness", "max_staleness_ms", "since")
    KEY_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    TXN_FIELD_NUMBER: _ClassVar[int]
    FRESHNESS_FIELD_NUMBER: _ClassVar[int]
    MAX_STALENESS_MS_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    at: int
    txn: bytes
    freshness: Freshness
    max_staleness_ms: int
    since: int
    def __init__(self, key: _Optional[bytes] = ..., at: _Optional[int] = ..., txn: _Optional[bytes] = ..., freshness: _Optional[_Union[Freshness, str]] = ..., max_staleness_ms: _Optional[int] = ..., since: _Optional[int] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ("found", "value", "version", "at", "staleness_ms")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    STALENESS_MS_FIELD_NUMBER: _ClassVar[int]
    found: bool
    value: bytes
    version: int
    at: int
    staleness_ms: int
    def __init__(self, found: _Optional[bool] = ..., value: _Optional[bytes] = ..., version: _Optional[int] = ..., at: _Optional[int] = ..., staleness_ms: _Optional[int] = ...) -> None: ...

class PutRequest(_message.Message):
    __slots__ = ("key", "value", "conditions")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    conditions: _containers.RepeatedCompositeFieldContainer[Condition]
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., conditions: _Optional[_Iterable[_Union[Condition, _Mapping]]] = ...) -> None: ...

class PutResponse(_message.Message):
    __slots__ = ("at",)
    AT_FIELD_NUMBER: _ClassVar[int]
    at: int
    def __init__(self, at: _Optional[int] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("key", "conditions")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    conditions: _containers.RepeatedCompositeFieldContainer[Condition]
    def __init__(self, key: _Optional[bytes] = ..., conditions: _Optional[_Iterable[_Union[Condition, _Mapping]]] = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ("at",)
    AT_FIELD_NUMBER: _ClassVar[int]
    at: int
    def __init__(self, at: _Optional[int] = ...) -> None: ...

class ScanRequest(_message.Message):
    __slots__ = ("start", "end", "limit", "reverse", "at", "txn")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    REVERSE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    TXN_FIELD_NUMBER: _ClassVar[int]
    start: bytes
    end: bytes
    limit: int
    reverse: bool
    at: int
    txn: bytes
    def __init__(self, start: _Optional[bytes] = ..., end: _Optional[bytes] = ..., limit: _Optional[int] = ..., reverse: _Optional[bool] = ..., at: _Optional[int] = ..., txn: _Optional[bytes] = ...) -> None: ...

class Row(_message.Message):
    __slots__ = ("key", "value", "version")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    version: int
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., version: _Optional[int] = ...) -> None: ...

class ScanResponse(_message.Message):
    __slots__ = ("rows", "at", "resume")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    rows: _containers.RepeatedCompositeFieldContainer[Row]
    at: int
    resume: bytes
    def __init__(self, rows: _Optional[_Iterable[_Union[Row, _Mapping]]] = ..., at: _Optional[int] = ..., resume: _Optional[bytes] = ...) -> None: ...

class Condition(_message.Message):
    __slots__ = ("kind", "key", "version", "value", "predicate")
    KIND_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    PREDICATE_FIELD_NUMBER: _ClassVar[int]
    kind: _session_pb2.ConditionKind
    key: bytes
    version: int
    value: bytes
    predicate: _session_pb2.FieldPredicate
    def __init__(self, kind: _Optional[_Union[_session_pb2.ConditionKind, str]] = ..., key: _Optional[bytes] = ..., version: _Optional[int] = ..., value: _Optional[bytes] = ..., predicate: _Optional[_Union[_session_pb2.FieldPredicate, _Mapping]] = ...) -> None: ...

class Mutation(_message.Message):
    __slots__ = ("key", "value", "deleted")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    value: bytes
    deleted: bool
    def __init__(self, key: _Optional[bytes] = ..., value: _Optional[bytes] = ..., deleted: _Optional[bool] = ...) -> None: ...

class TransactRequest(_message.Message):
    __slots__ = ("conditions", "reads", "writes", "txn")
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    TXN_FIELD_NUMBER: _ClassVar[int]
    conditions: _containers.RepeatedCompositeFieldContainer[Condition]
    reads: _containers.RepeatedScalarFieldContainer[bytes]
    writes: _containers.RepeatedCompositeFieldContainer[Mutation]
    txn: bytes
    def __init__(self, conditions: _Optional[_Iterable[_Union[Condition, _Mapping]]] = ..., reads: _Optional[_Iterable[bytes]] = ..., writes: _Optional[_Iterable[_Union[Mutation, _Mapping]]] = ..., txn: _Optional[bytes] = ...) -> None: ...

class TransactResponse(_message.Message):
    __slots__ = ("at", "values")
    AT_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    at: int
    values: _containers.RepeatedCompositeFieldContainer[GetResponse]
    def __init__(self, at: _Optional[int] = ..., values: _Optional[_Iterable[_Union[GetResponse, _Mapping]]] = ...) -> None: ...

class BeginRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class BeginResponse(_message.Message):
    __slots__ = ("txn",)
    TXN_FIELD_NUMBER: _ClassVar[int]
    txn: bytes
    def __init__(self, txn: _Optional[bytes] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("txn", "writes")
    TXN_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    txn: bytes
    writes: _containers.RepeatedCompositeFieldContainer[Mutation]
    def __init__(self, txn: _Optional[bytes] = ..., writes: _Optional[_Iterable[_Union[Mutation, _Mapping]]] = ...) -> None: ...

class CommitResponse(_message.Message):
    __slots__ = ("at",)
    AT_FIELD_NUMBER: _ClassVar[int]
    at: int
    def __init__(self, at: _Optional[int] = ...) -> None: ...

class RollbackRequest(_message.Message):
    __slots__ = ("txn",)
    TXN_FIELD_NUMBER: _ClassVar[int]
    txn: bytes
    def __init__(self, txn: _Optional[bytes] = ...) -> None: ...

class RollbackResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OutcomeRequest(_message.Message):
    __slots__ = ("txn", "anchor", "at")
    TXN_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    txn: bytes
    anchor: bytes
    at: int
    def __init__(self, txn: _Optional[bytes] = ..., anchor: _Optional[bytes] = ..., at: _Optional[int] = ...) -> None: ...

class OutcomeResponse(_message.Message):
    __slots__ = ("state", "at")
    STATE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    state: _session_pb2.OutcomeState
    at: int
    def __init__(self, state: _Optional[_Union[_session_pb2.OutcomeState, str]] = ..., at: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("start", "end", "since")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    start: bytes
    end: bytes
    since: int
    def __init__(self, start: _Optional[bytes] = ..., end: _Optional[bytes] = ..., since: _Optional[int] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("at", "changes", "resolved")
    AT_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_FIELD_NUMBER: _ClassVar[int]
    at: int
    changes: _containers.RepeatedCompositeFieldContainer[Mutation]
    resolved: bool
    def __init__(self, at: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[Mutation, _Mapping]]] = ..., resolved: _Optional[bool] = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("key", "at", "limit")
    KEY_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    at: int
    limit: int
    def __init__(self, key: _Optional[bytes] = ..., at: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class HistoryResponse(_message.Message):
    __slots__ = ("versions", "more")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[Version]
    more: bool
    def __init__(self, versions: _Optional[_Iterable[_Union[Version, _Mapping]]] = ..., more: _Optional[bool] = ...) -> None: ...

class Version(_message.Message):
    __slots__ = ("at", "value", "deleted")
    AT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    at: int
    value: bytes
    deleted: bool
    def __init__(self, at: _Optional[int] = ..., value: _Optional[bytes] = ..., deleted: _Optional[bool] = ...) -> None: ...
