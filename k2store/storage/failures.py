"""What can be wrong with a store on disk, beside plain :class:`~k2store.errors.Corruption`."""

from __future__ import annotations

from k2store.errors import Corruption, K2Error, Rejected, Unavailable


class StorageFailed(K2Error):
    """The disk refused a write or a sync.  Fail-stop: the port that raised it is poisoned for good.

    Not a kind of Unavailable on purpose: what was being made durable may or may not survive, so
    the answers that waited for it are unknown, never "nothing was done".
    """

    exit_code = 3
    fields = ("operation", "file")

    def __init__(
        self, message: str, *, operation: str | None = None, file: str | None = None
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.file = file


class Damaged(Corruption):
    """A place in the stored data that is not what was written there."""

    def __init__(
        self,
        message: str,
        *,
        file: str | None = None,
        offset: int | None = None,
        lsn: int | None = None,
        acknowledged_lsn: int | None = None,
    ) -> None:
        super().__init__(message, what=file)
        self.file = file
        self.offset = offset
        self.lsn = lsn
        self.acknowledged_lsn = acknowledged_lsn


class Quarantined(Corruption):
    """An earlier start or run found damage; the store stays closed until an operator acts."""

    def __init__(self, message: str, *, what: str | None = None, reason: str) -> None:
        super().__init__(message, what=what)
        self.reason = reason


class FormatUnknown(Rejected):
    """The directory was written in a format this version does not know, or is no store at all."""


class StoreLocked(Unavailable):
    """Another process has the store open."""
