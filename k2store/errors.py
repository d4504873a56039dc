"""Every failure a caller of K2store can meet, as one tree.

::

    K2Error
    ├── Conflict          retry now       lost to another transaction (rule, key, who, their stamp)
    │   └── ConditionFailed   do not retry    a condition the caller stated does not hold
    ├── Expired           retry now       the transaction or lease outlived its time
    ├── Unavailable       retry later     no leader, draining, connection lost before anything was sent
    ├── Overloaded        retry later     a queue or quota is full; nothing was done
    ├── OutcomeUnknown    resolve first   the commit may or may not have taken (transaction id)
    ├── TooOld            do not retry    behind the history horizon (where to restart)
    ├── ClockUncertain    retry later     the clock bound is wider than allowed; the node refuses to guess
    ├── Rejected          do not retry    invalid argument, limit, permission (field)
    ├── Deadline          caller's choice the deadline passed; nothing was acknowledged
    └── Corruption        page someone    stored data is damaged or lost; the node refuses to serve

Nobody parses messages: each class has a :class:`Retry` class and structured fields.  The same tree crosses the wire as
``google.rpc.Status`` details (see :mod:`k2store.rpc.status`) and comes out as the same classes.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class Retry(enum.Enum):
    """What a caller may do after a failure."""

    NOW = "now"
    LATER = "later"
    RESOLVE = "resolve"
    NEVER = "never"
    CALLER = "caller"


class K2Error(Exception):
    """The root of the tree.

    ``message`` says what happened, why, and what to do.  Fields named in :attr:`fields` travel over the wire.
    """

    retry: ClassVar[Retry] = Retry.NEVER
    exit_code: ClassVar[int] = 1
    fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def details(self) -> dict[str, object]:
        """The structured fields that are set, by name."""
        return {name: value for name in self.fields if (value := getattr(self, name)) is not None}


class Conflict(K2Error):
    """Lost to another transaction; a new attempt at a later stamp may succeed at once."""

    retry = Retry.NOW
    exit_code = 4
    fields: ClassVar[tuple[str, ...]] = ("rule", "key", "other", "other_stamp", "retry_after_s")

    def __init__(
        self,
        message: str,
        *,
        rule: str | None = None,
        key: bytes | None = None,
        other: str | None = None,
        other_stamp: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.rule = rule
        self.key = key
        self.other = other
        self.other_stamp = other_stamp
        self.retry_after_s = retry_after_s


class ConditionFailed(Conflict):
    """A condition that the caller stated does not hold; trying the same again is pointless."""

    retry = Retry.NEVER
    fields = ("rule", "key", "condition", "at")

    def __init__(
        self,
        message: str,
        *,
        rule: str | None = None,
        key: bytes | None = None,
        condition: int | None = None,
        at: int | None = None,
    ) -> None:
        super().__init__(message, rule=rule, key=key)
        self.condition = condition
        self.at = at


class Expired(K2Error):
    """The transaction, lease or registration outlived its time."""

    retry = Retry.NOW
    exit_code = 4
    fields = ("what",)

    def __init__(self, message: str, *, what: str | None = None) -> None:
        super().__init__(message)
        self.what = what


class Unavailable(K2Error):
    """Nobody can serve this now: no leader, no quorum, draining or not reachable."""

    retry = Retry.LATER
    exit_code = 3
    fields = ("retry_after_s",)

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(K2Error):
    """A queue or quota is full.  Nothing was done; come back after ``retry_after_s``."""

    retry = Retry.LATER
    exit_code = 3
    fields = ("limit", "retry_after_s")

    def __init__(
        self, message: str, *, limit: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.retry_after_s = retry_after_s


class OutcomeUnknown(K2Error):
    """The commit may or may not have taken.  Ask ``db.outcome(transaction)`` before doing it again."""

    retry = Retry.RESOLVE
    exit_code = 6
    fields = ("transaction",)

    def __init__(self, message: str, *, transaction: str | None = None) -> None:
        super().__init__(message)
        self.transaction = transaction


class TooOld(K2Error):
    """A read, watch or cursor lies behind the history horizon; ``horizon`` is the oldest stamp still readable."""

    exit_code = 1
    fields = ("horizon",)

    def __init__(self, message: str, *, horizon: int | None = None) -> None:
        super().__init__(message)
        self.horizon = horizon


class ClockUncertain(K2Error):
    """The clock bound exceeds what is allowed, so no stamp may be given."""

    retry = Retry.LATER
    exit_code = 3
    fields = ("retry_after_s",)

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Rejected(K2Error):
    """The request itself is wrong: an invalid argument, a limit, a missing permission."""

    exit_code = 2
    fields = ("field",)

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class Deadline(K2Error):
    """The deadline passed before an answer.  Reads had no effect; a commit raises OutcomeUnknown instead."""

    retry = Retry.CALLER
    exit_code = 3


class Corruption(K2Error):
    """Stored data is damaged or acknowledged data is missing.  The node refuses to serve."""

    exit_code = 5
    fields = ("what",)

    def __init__(self, message: str, *, what: str | None = None) -> None:
        super().__init__(message)
        self.what = what


CLASSES: tuple[type[K2Error], ...] = (
    Conflict,
    ConditionFailed,
    Expired,
    Unavailable,
    Overloaded,
    OutcomeUnknown,
    TooOld,
    ClockUncertain,
    Rejected,
    Deadline,
    Corruption,
)
"""Every class that crosses the wire, in documentation order."""
