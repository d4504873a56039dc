from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConditionKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONDITION_KIND_UNSPECIFIED: _ClassVar[ConditionKind]
    CONDITION_KIND_ABSENT: _ClassVar[ConditionKind]
    CONDITION_KIND_PRESENT: _ClassVar[ConditionKind]
    CONDITION_KIND_VERSION: _ClassVar[ConditionKind]
    CONDITION_KIND_VALUE: _ClassVar[ConditionKind]
    CONDITION_KIND_FIELD: _ClassVar[ConditionKind]
    CONDITION_KIND_NO_ROW: _ClassVar[ConditionKind]

class Comparison(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPARISON_UNSPECIFIED: _ClassVar[Comparison]
    COMPARISON_EQUAL: _ClassVar[Comparison]
    COMPARISON_NOT_EQUAL: _ClassVar[Comparison]
    COMPARISON_LESS: _ClassVar[Comparison]
    COMPARISON_LESS_OR_EQUAL: _ClassVar[Comparison]
    COMPARISON_GREATER: _ClassVar[Comparison]
    COMPARISON_GREATER_OR_EQUAL: _ClassVar[Comparison]

class OwnOperand(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OWN_OPERAND_UNSPECIFIED: _ClassVar[OwnOperand]
    OWN_OPERAND_STAMP: _ClassVar[OwnOperand]
    OWN_OPERAND_TIME_NS: _ClassVar[OwnOperand]

class OutcomeState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_STATE_UNSPECIFIED: _ClassVar[OutcomeState]
    OUTCOME_STATE_COMMITTED: _ClassVar[OutcomeState]
    OUTCOME_STATE_ABORTED: _ClassVar[OutcomeState]
    OUTCOME_STATE_UNKNOWN: _ClassVar[OutcomeState]
CONDITION_KIND_UNSPECIFIED: ConditionKind
CONDITION_KIND_ABSENT: ConditionKind
CONDITION_KIND_PRESENT: ConditionKind
CONDITION_KIND_VERSION: ConditionKind
CONDITION_KIND_VALUE: ConditionKind
CONDITION_KIND_FIELD: ConditionKind
CONDITION_KIND_NO_ROW: ConditionKind
COMPARISON_UNSPECIFIED: Comparison
COMPARISON_EQUAL: Comparison
COMPARISON_NOT_EQUAL: Comparison
COMPARISON_LESS: Comparison
COMPARISON_LESS_OR_EQUAL: Comparison
COMPARISON_GREATER: Comparison
COMPARISON_GREATER_OR_EQUAL: Comparison
OWN_OPERAND_UNSPECIFIED: OwnOperand
OWN_OPERAND_STAMP: OwnOperand
OWN_OPERAND_TIME_NS: OwnOperand
OUTCOME_STATE_UNSPECIFIED: OutcomeState
OUTCOME_STATE_COMMITTED: OutcomeState
OUTCOME_STATE_ABORTED: OutcomeState
OUTCOME_STATE_UNKNOWN: OutcomeState

class SessionRequest(_message.Message):
    __slots__ = ("hello", "seen", "finished", "reads", "commits", "one_shots", "writes", "scans", "rollbacks", "outcomes", "watches", "watch_progress", "histories", "safe_calls", "sent_ns")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    READS_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    ONE_SHOTS_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    SCANS_FIELD_NUMBER: _ClassVar[int]
    ROLLBACKS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    WATCHES_FIELD_NUMBER: _ClassVar[int]
    WATCH_PROGRESS_FIELD_NUMBER: _ClassVar[int]
    HISTORIES_FIELD_NUMBER: _ClassVar[int]
    SAFE_CALLS_FIELD_NUMBER: _ClassVar[int]
    SENT_NS_FIELD_NUMBER: _ClassVar[int]
    hello: SessionHello
    seen: int
    finished: _containers.RepeatedScalarFieldContainer[bytes]
    reads: ReadColumns
    commits: CommitColumns
    one_shots: OneShotColumns
    writes: _containers.RepeatedCompositeFieldContainer[WriteCall]
    scans: _containers.RepeatedCompositeFieldContainer[ScanCall]
    rollbacks: _containers.RepeatedCompositeFieldContainer[RollbackCall]
    outcomes: _containers.RepeatedCompositeFieldContainer[OutcomeCall]
    watches: _containers.RepeatedCompositeFieldContainer[WatchCall]
    watch_progress: _containers.RepeatedCompositeFieldContainer[WatchProgress]
    histories: _containers.RepeatedCompositeFieldContainer[HistoryCall]
    safe_calls: _containers.RepeatedCompositeFieldContainer[SafeCall]
    sent_ns: int
    def __init__(self, hello: _Optional[_Union[SessionHello, _Mapping]] = ..., seen: _Optional[int] = ..., finished: _Optional[_Iterable[bytes]] = ..., reads: _Optional[_Union[ReadColumns, _Mapping]] = ..., commits: _Optional[_Union[CommitColumns, _Mapping]] = ..., one_shots: _Optional[_Union[OneShotColumns, _Mapping]] = ..., writes: _Optional[_Iterable[_Union[WriteCall, _Mapping]]] = ..., scans: _Optional[_Iterable[_Union[ScanCall, _Mapping]]] = ..., rollbacks: _Optional[_Iterable[_Union[RollbackCall, _Mapping]]] = ..., outcomes: _Optional[_Iterable[_Union[OutcomeCall, _Mapping]]] = ..., watches: _Optional[_Iterable[_Union[WatchCall, _Mapping]]] = ..., watch_progress: _Optional[_Iterable[_Union[WatchProgress, _Mapping]]] = ..., histories: _Optional[_Iterable[_Union[HistoryCall, _Mapping]]] = ..., safe_calls: _Optional[_Iterable[_Union[SafeCall, _Mapping]]] = ..., sent_ns: _Optional[int] = ...) -> None: ...

class SessionHello(_message.Message):
    __slots__ = ("client", "protocol", "name", "timeout_ms")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    client: bytes
    protocol: int
    name: str
    timeout_ms: int
    def __init__(self, client: _Optional[bytes] = ..., protocol: _Optional[int] = ..., name: _Optional[str] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class ReadColumns(_message.Message):
    __slots__ = ("request", "txn", "at", "key", "timeout_ms")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TXN_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    request: _containers.RepeatedScalarFieldContainer[int]
    txn: _containers.RepeatedScalarFieldContainer[bytes]
    at: _containers.RepeatedScalarFieldContainer[int]
    key: _containers.RepeatedScalarFieldContainer[bytes]
    timeout_ms: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, request: _Optional[_Iterable[int]] = ..., txn: _Optional[_Iterable[bytes]] = ..., at: _Optional[_Iterable[int]] = ..., key: _Optional[_Iterable[bytes]] = ..., timeout_ms: _Optional[_Iterable[int]] = ...) -> None: ...

class CommitColumns(_message.Message):
    __slots__ = ("request", "txn", "at", "write_count", "key", "value", "deleted", "timeout_ms", "early_count")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TXN_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    WRITE_COUNT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    EARLY_COUNT_FIELD_NUMBER: _ClassVar[int]
    request: _containers.RepeatedScalarFieldContainer[int]
    txn: _containers.RepeatedScalarFieldContainer[bytes]
    at: _containers.RepeatedScalarFieldContainer[int]
    write_count: _containers.RepeatedScalarFieldContainer[int]
    key: _containers.RepeatedScalarFieldContainer[bytes]
    value: _containers.RepeatedScalarFieldContainer[bytes]
    deleted: _containers.RepeatedScalarFieldContainer[bool]
    timeout_ms: _containers.RepeatedScalarFieldContainer[int]
    early_count: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, request: _Optional[_Iterable[int]] = ..., txn: _Optional[_Iterable[bytes]] = ..., at: _Optional[_Iterable[int]] = ..., write_count: _Optional[_Iterable[int]] = ..., key: _Optional[_Iterable[bytes]] = ..., value: _Optional[_Iterable[bytes]] = ..., deleted: _Optional[_Iterable[bool]] = ..., timeout_ms: _Optional[_Iterable[int]] = ..., early_count: _Optional[_Iterable[int]] = ...) -> None: ...

class OneShotColumns(_message.Message):
    __slots__ = ("request", "txn", "timeout_ms", "condition_count", "read_count", "write_count", "condition_kind", "condition_key", "condition_version", "condition_value", "predicates", "read_key", "write_key", "write_value", "write_deleted", "condition_index", "predicate_index")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TXN_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    CONDITION_COUNT_FIELD_NUMBER: _ClassVar[int]
    READ_COUNT_FIELD_NUMBER: _ClassVar[int]
    WRITE_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONDITION_KIND_FIELD_NUMBER: _ClassVar[int]
    CONDITION_KEY_FIELD_NUMBER: _ClassVar[int]
    CONDITION_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONDITION_VALUE_FIELD_NUMBER: _ClassVar[int]
    PREDICATES_FIELD_NUMBER: _ClassVar[int]
    READ_KEY_FIELD_NUMBER: _ClassVar[int]
    WRITE_KEY_FIELD_NUMBER: _ClassVar[int]
    WRITE_VALUE_FIELD_NUMBER: _ClassVar[int]
    WRITE_DELETED_FIELD_NUMBER: _ClassVar[int]
    CONDITION_INDEX_FIELD_NUMBER: _ClassVar[int]
    PREDICATE_INDEX_FIELD_NUMBER: _ClassVar[int]
    request: _containers.RepeatedScalarFieldContainer[int]
    txn: _containers.RepeatedScalarFieldContainer[bytes]
    timeout_ms: _containers.RepeatedScalarFieldContainer[int]
    condition_count: _containers.RepeatedScalarFieldContainer[int]
    read_count: _containers.RepeatedScalarFieldContainer[int]
    write_count: _containers.RepeatedScalarFieldContainer[int]
    condition_kind: _containers.RepeatedScalarFieldContainer[ConditionKind]
    condition_key: _containers.RepeatedScalarFieldContainer[bytes]
    condition_version: _containers.RepeatedScalarFieldContainer[int]
    condition_value: _containers.RepeatedScalarFieldContainer[bytes]
    predicates: _containers.RepeatedCompositeFieldContainer[FieldPredicate]
    read_key: _containers.RepeatedScalarFieldContainer[bytes]
    write_key: _containers.RepeatedScalarFieldContainer[bytes]
    write_value: _containers.RepeatedScalarFieldContainer[bytes]
    write_deleted: _containers.RepeatedScalarFieldContainer[bool]
    condition_index: _containers.RepeatedScalarFieldContainer[int]
    predicate_index: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, request: _Optional[_Iterable[int]] = ..., txn: _Optional[_Iterable[bytes]] = ..., timeout_ms: _Optional[_Iterable[int]] = ..., condition_count: _Optional[_Iterable[int]] = ..., read_count: _Optional[_Iterable[int]] = ..., write_count: _Optional[_Iterable[int]] = ..., condition_kind: _Optional[_Iterable[_Union[ConditionKind, str]]] = ..., condition_key: _Optional[_Iterable[bytes]] = ..., condition_version: _Optional[_Iterable[int]] = ..., condition_value: _Optional[_Iterable[bytes]] = ..., predicates: _Optional[_Iterable[_Union[FieldPredicate, _Mapping]]] = ..., read_key: _Optional[_Iterable[bytes]] = ..., write_key: _Optional[_Iterable[bytes]] = ..., write_value: _Optional[_Iterable[bytes]] = ..., write_deleted: _Optional[_Iterable[bool]] = ..., condition_index: _Optional[_Iterable[int]] = ..., predicate_index: _Optional[_Iterable[int]] = ...) -> None: ...

class FieldPredicate(_message.Message):
    __slots__ = ("name", "index", "comparison", "own", "integer", "number", "text", "binary", "boolean", "end")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    OWN_FIELD_NUMBER: _ClassVar[int]
    INTEGER_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    BINARY_FIELD_NUMBER: _ClassVar[int]
    BOOLEAN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    name: str
    index: int
    comparison: Comparison
    own: OwnOperand
    integer: int
    number: float
    text: str
    binary: bytes
    boolean: bool
    end: bytes
    def __init__(self, name: _Optional[str] = ..., index: _Optional[int] = ..., comparison: _Optional[_Union[Comparison, str]] = ..., own: _Optional[_Union[OwnOperand, str]] = ..., integer: _Optional[int] = ..., number: _Optional[float] = ..., text: _Optional[str] = ..., binary: _Optional[bytes] = ..., boolean: _Optional[bool] = ..., end: _Optional[bytes] = ...) -> None: ...

class WriteCall(_message.Message):
    __slots__ = ("request", "txn", "at", "key", "value", "deleted", "timeout_ms")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TXN_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    request: int
    txn: bytes
    at: int
    key: _containers.RepeatedScalarFieldContainer[bytes]
    value: _containers.RepeatedScalarFieldContainer[bytes]
    deleted: _containers.RepeatedScalarFieldContainer[bool]
    timeout_ms: int
    def __init__(self, request: _Optional[int] = ..., txn: _Optional[bytes] = ..., at: _Optional[int] = ..., key: _Optional[_Iterable[bytes]] = ..., value: _Optional[_Iterable[bytes]] = ..., deleted: _Optional[_Iterable[bool]] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class ScanCall(_message.Message):
    __slots__ = ("request", "txn", "at", "start", "end", "limit", "reverse", "timeout_ms")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TXN_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    REVERSE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    request: int
    txn: bytes
    at: int
    start: bytes
    end: bytes
    limit: int
    reverse: bool
    timeout_ms: int
    def __init__(self, request: _Optional[int] = ..., txn: _Optional[bytes] = ..., at: _Optional[int] = ..., start: _Optional[bytes] = ..., end: _Optional[bytes] = ..., limit: _Optional[int] = ..., reverse: _Optional[bool] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class SafeCall(_message.Message):
    __slots__ = ("request", "at", "timeout_ms")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    request: int
    at: int
    timeout_ms: int
    def __init__(self, request: _Optional[int] = ..., at: _Optional[int] = ..., timeout_ms: _Optional[int] = ...) -> None: ...

class SafeAnswer(_message.Message):
    __slots__ = ("request", "at")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    request: int
    at: int
    def __init__(self, request: _Optional[int] = ..., at: _Optional[int] = ...) -> None: ...

class RollbackCall(_message.Message):
    __slots__ = ("request", "txn")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TXN_FIELD_NUMBER: _ClassVar[int]
    request: int
    txn: bytes
    def __init__(self, request: _Optional[int] = ..., txn: _Optional[bytes] = ...) -> None: ...

class OutcomeCall(_message.Message):
    __slots__ = ("request", "txn", "at", "anchor", "decide", "timeout_ms", "not_before")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    TXN_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    ANCHOR_FIELD_NUMBER: _ClassVar[int]
    DECIDE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    request: int
    txn: bytes
    at: int
    anchor: bytes
    decide: bool
    timeout_ms: int
    not_before: int
    def __init__(self, request: _Optional[int] = ..., txn: _Optional[bytes] = ..., at: _Optional[int] = ..., anchor: _Optional[bytes] = ..., decide: _Optional[bool] = ..., timeout_ms: _Optional[int] = ..., not_before: _Optional[int] = ...) -> None: ...

class WatchCall(_message.Message):
    __slots__ = ("request", "start", "end", "since")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    request: int
    start: bytes
    end: bytes
    since: int
    def __init__(self, request: _Optional[int] = ..., start: _Optional[bytes] = ..., end: _Optional[bytes] = ..., since: _Optional[int] = ...) -> None: ...

class WatchProgress(_message.Message):
    __slots__ = ("request", "consumed", "cancel")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    CONSUMED_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    request: int
    consumed: int
    cancel: bool
    def __init__(self, request: _Optional[int] = ..., consumed: _Optional[int] = ..., cancel: _Optional[bool] = ...) -> None: ...

class HistoryCall(_message.Message):
    __slots__ = ("request", "key", "at", "limit")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    request: int
    key: bytes
    at: int
    limit: int
    def __init__(self, request: _Optional[int] = ..., key: _Optional[bytes] = ..., at: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("welcome", "lo_ns", "values", "committed", "failures", "written", "rows", "outcomes", "watch_events", "histories", "safe", "draining", "safe_answers")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    LO_NS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    WATCH_EVENTS_FIELD_NUMBER: _ClassVar[int]
    HISTORIES_FIELD_NUMBER: _ClassVar[int]
    SAFE_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    SAFE_ANSWERS_FIELD_NUMBER: _ClassVar[int]
    welcome: SessionWelcome
    lo_ns: int
    values: ValueColumns
    committed: CommittedColumns
    failures: _containers.RepeatedCompositeFieldContainer[Failure]
    written: _containers.RepeatedScalarFieldContainer[int]
    rows: _containers.RepeatedCompositeFieldContainer[RowsPage]
    outcomes: _containers.RepeatedCompositeFieldContainer[OutcomeAnswer]
    watch_events: _containers.RepeatedCompositeFieldContainer[WatchEvents]
    histories: _containers.RepeatedCompositeFieldContainer[HistoryAnswer]
    safe: int
    draining: bool
    safe_answers: _containers.RepeatedCompositeFieldContainer[SafeAnswer]
    def __init__(self, welcome: _Optional[_Union[SessionWelcome, _Mapping]] = ..., lo_ns: _Optional[int] = ..., values: _Optional[_Union[ValueColumns, _Mapping]] = ..., committed: _Optional[_Union[CommittedColumns, _Mapping]] = ..., failures: _Optional[_Iterable[_Union[Failure, _Mapping]]] = ..., written: _Optional[_Iterable[int]] = ..., rows: _Optional[_Iterable[_Union[RowsPage, _Mapping]]] = ..., outcomes: _Optional[_Iterable[_Union[OutcomeAnswer, _Mapping]]] = ..., watch_events: _Optional[_Iterable[_Union[WatchEvents, _Mapping]]] = ..., histories: _Optional[_Iterable[_Union[HistoryAnswer, _Mapping]]] = ..., safe: _Optional[int] = ..., draining: _Optional[bool] = ..., safe_answers: _Optional[_Iterable[_Union[SafeAnswer, _Mapping]]] = ...) -> None: ...

class SessionWelcome(_message.Message):
    __slots__ = ("incarnation", "node", "region", "key_bytes_max", "value_bytes_max", "operations_max", "lifetime_ms_max", "ahead_ns_max", "clock_source", "clock_assumed", "shares_conditions")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    KEY_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    VALUE_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_MAX_FIELD_NUMBER: _ClassVar[int]
    LIFETIME_MS_MAX_FIELD_NUMBER: _ClassVar[int]
    AHEAD_NS_MAX_FIELD_NUMBER: _ClassVar[int]
    CLOCK_SOURCE_FIELD_NUMBER: _ClassVar[int]
    CLOCK_ASSUMED_FIELD_NUMBER: _ClassVar[int]
    SHARES_CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    incarnation: bytes
    node: str
    region: str
    key_bytes_max: int
    value_bytes_max: int
    operations_max: int
    lifetime_ms_max: int
    ahead_ns_max: int
    clock_source: str
    clock_assumed: bool
    shares_conditions: bool
    def __init__(self, incarnation: _Optional[bytes] = ..., node: _Optional[str] = ..., region: _Optional[str] = ..., key_bytes_max: _Optional[int] = ..., value_bytes_max: _Optional[int] = ..., operations_max: _Optional[int] = ..., lifetime_ms_max: _Optional[int] = ..., ahead_ns_max: _Optional[int] = ..., clock_source: _Optional[str] = ..., clock_assumed: _Optional[bool] = ..., shares_conditions: _Optional[bool] = ...) -> None: ...

class ValueColumns(_message.Message):
    __slots__ = ("request", "at", "version", "value")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    request: _containers.RepeatedScalarFieldContainer[int]
    at: _containers.RepeatedScalarFieldContainer[int]
    version: _containers.RepeatedScalarFieldContainer[int]
    value: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, request: _Optional[_Iterable[int]] = ..., at: _Optional[_Iterable[int]] = ..., version: _Optional[_Iterable[int]] = ..., value: _Optional[_Iterable[bytes]] = ...) -> None: ...

class CommittedColumns(_message.Message):
    __slots__ = ("request", "at", "waited_ns", "read_count", "version", "value")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    WAITED_NS_FIELD_NUMBER: _ClassVar[int]
    READ_COUNT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    request: _containers.RepeatedScalarFieldContainer[int]
    at: _containers.RepeatedScalarFieldContainer[int]
    waited_ns: _containers.RepeatedScalarFieldContainer[int]
    read_count: _containers.RepeatedScalarFieldContainer[int]
    version: _containers.RepeatedScalarFieldContainer[int]
    value: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, request: _Optional[_Iterable[int]] = ..., at: _Optional[_Iterable[int]] = ..., waited_ns: _Optional[_Iterable[int]] = ..., read_count: _Optional[_Iterable[int]] = ..., version: _Optional[_Iterable[int]] = ..., value: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("request", "reason", "message", "rule", "key", "other", "stamp", "condition", "retry_after_ms", "field")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    OTHER_FIELD_NUMBER: _ClassVar[int]
    STAMP_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    request: int
    reason: str
    message: str
    rule: str
    key: bytes
    other: bytes
    stamp: int
    condition: int
    retry_after_ms: int
    field: str
    def __init__(self, request: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., rule: _Optional[str] = ..., key: _Optional[bytes] = ..., other: _Optional[bytes] = ..., stamp: _Optional[int] = ..., condition: _Optional[int] = ..., retry_after_ms: _Optional[int] = ..., field: _Optional[str] = ...) -> None: ...

class RowsPage(_message.Message):
    __slots__ = ("request", "at", "key", "version", "value", "resume")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    request: int
    at: int
    key: _containers.RepeatedScalarFieldContainer[bytes]
    version: _containers.RepeatedScalarFieldContainer[int]
    value: _containers.RepeatedScalarFieldContainer[bytes]
    resume: bytes
    def __init__(self, request: _Optional[int] = ..., at: _Optional[int] = ..., key: _Optional[_Iterable[bytes]] = ..., version: _Optional[_Iterable[int]] = ..., value: _Optional[_Iterable[bytes]] = ..., resume: _Optional[bytes] = ...) -> None: ...

class OutcomeAnswer(_message.Message):
    __slots__ = ("request", "state", "at")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    request: int
    state: OutcomeState
    at: int
    def __init__(self, request: _Optional[int] = ..., state: _Optional[_Union[OutcomeState, str]] = ..., at: _Optional[int] = ...) -> None: ...

class WatchEvents(_message.Message):
    __slots__ = ("request", "at", "change_count", "key", "value", "deleted", "resolved", "failure")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    CHANGE_COUNT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    request: int
    at: _containers.RepeatedScalarFieldContainer[int]
    change_count: _containers.RepeatedScalarFieldContainer[int]
    key: _containers.RepeatedScalarFieldContainer[bytes]
    value: _containers.RepeatedScalarFieldContainer[bytes]
    deleted: _containers.RepeatedScalarFieldContainer[bool]
    resolved: int
    failure: Failure
    def __init__(self, request: _Optional[int] = ..., at: _Optional[_Iterable[int]] = ..., change_count: _Optional[_Iterable[int]] = ..., key: _Optional[_Iterable[bytes]] = ..., value: _Optional[_Iterable[bytes]] = ..., deleted: _Optional[_Iterable[bool]] = ..., resolved: _Optional[int] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class HistoryAnswer(_message.Message):
    __slots__ = ("request", "at", "value", "deleted", "more")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    request: int
    at: _containers.RepeatedScalarFieldContainer[int]
    value: _containers.RepeatedScalarFieldContainer[bytes]
    deleted: _containers.RepeatedScalarFieldContainer[bool]
    more: bool
    def __init__(self, request: _Optional[int] = ..., at: _Optional[_Iterable[int]] = ..., value: _Optional[_Iterable[bytes]] = ..., deleted: _Optional[_Iterable[bool]] = ..., more: _Optional[bool] = ...) -> None: ...
