"""What a failure says of an operation of which two copies may be under way."""

from __future__ import annotations

from typing import Any, cast

from k2store.client.outbox import KIND, ONE_SHOT, Entry, OneShot
from k2store.errors import ConditionFailed, K2Error, OutcomeUnknown, Rejected


def doubtful(entry: Entry, error: K2Error) -> K2Error:
    """The failure of an operation that an earlier connection has carried as well.

    A refusal speaks of the copy that it answers. The other copy of a one-shot may still be on its
    way to the leader, through the node that was asked first.
    """
    if entry[KIND] != ONE_SHOT or isinstance(error, ConditionFailed | Rejected):
        return error
    one_shot = cast(OneShot, cast(Any, entry))
    txn, keys = one_shot[4], one_shot[8]
    return OutcomeUnknown(error.message, transaction=txn.hex()) if keys else error
