"""`docs/limits.md`: every limit there is, from the settings and from what cannot be set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from k2store.config.table import rows

_HEAD: Final = """\
# Limits

*Made from `k2store/config/limits_page.py` and the table of settings by `./k2 docs`; edit there.*

Everything that could grow without end has a limit, and every limit answers with a typed error before
anything was done. `k2 status` shows how near the node is to those that fill up, and so does the
metric `k2_limit_used`.

## Of a node

Settings in the section `[limits]` of `k2.toml`; [the page of settings](configuration.md) has their
bounds.

| limit | default | beyond it |
|---|---|---|
"""

_BEYOND: Final = {
    "limits.key": "`Rejected`, before anything is sent",
    "limits.value": "`Rejected`, before anything is sent",
    "limits.operations": "`Rejected`; a larger job is several transactions",
    "limits.transaction": "`Rejected`; a larger job is several transactions",
    "limits.scan_page": "the page ends there, and the client asks for the next",
    "limits.open_transactions": "`Overloaded`",
    "limits.connections": "`Overloaded`; the client tries another address, if it has one",
    "limits.in_flight": "`Overloaded`",
    "limits.watchers": "`Overloaded`",
    "limits.watch_queue": "that watch ends with `Overloaded` and goes on from its cursor",
    "limits.deadline_max": "the deadline is shortened to this",
    "transactions.lifetime_max": "the transaction is aborted: `Expired`",
    "transactions.expiry": "a silent transaction may be aborted by whoever it holds up",
    "transactions.retention": "reads, watches and backups of the time before: `TooOld`",
    "clock.bound_max": "`ClockUncertain`: no stamps are given",
}
"""What happens beyond a limit, by the setting's path."""

_TAIL: Final = """
## Of the client library

Fields of `k2store.ClientSettings`, given to `connect(settings=...)`. They are there so that a program
that does not keep up learns of it at once, instead of growing.

| limit | default | beyond it |
|---|---|---|
"""

_CLIENT: Final = {
    "timeout_s": "`Deadline`, or `OutcomeUnknown` for a write whose answer did not come",
    "attempts_max": "the failure of the last attempt",
    "operations_max": "`Overloaded`, at once",
    "queued_bytes_max": "`Overloaded`, at once",
    "watch_events_max": "that watch ends with `Overloaded` and goes on from its cursor",
    "watch_bytes_max": "the same",
}

_FIXED: Final = """
## That cannot be set

| limit | value | beyond it |
|---|---|---|
| keys and values | bytes; the empty key and the empty value are fine | |
| a one-shot | 2 MiB of keys, values and conditions | `Rejected`; use a transaction |
| a frame on the wire | 4 MiB | the connection ends |
| stamps | the years 2020 to 2056 | refused |
| oracles (nodes that give stamps), and node ids ever given in a cluster | 1,023 | refused |
| the map of a cluster, as a document | 1 MiB | `Rejected`; fewer partitions |
| a row of a backup | as a key and a value | |
| a frame of a backup | 64 MiB | the file is refused as damaged |

## What it does not do

- One node. Regions, replicas and moves of partitions are not there yet; a backup is the way out of
  a lost disk.
- Keys held in memory: versions that have been written recently, and the read cache. Settled rows are
  on disk and may be many times larger than memory.
- Transactions are short: they end within `transactions.lifetime_max`. A long job is many
  transactions, or a snapshot, which has no such end within `transactions.retention`.
- No secondary indexes, no queries, no triggers: write index rows in the same transaction.
- No users or roles: whoever has a token may do everything ([security](security.md)).
"""


def render() -> str:
    """The whole page."""
    return _HEAD + "\n".join([*_of_node(), _TAIL.rstrip("\n"), *_of_client()]) + "\n" + _FIXED


def _of_node() -> Iterator[str]:
    table = rows()
    limits = {path for path, row in table.items() if row.section == "limits"}
    assert limits <= _BEYOND.keys(), f"say what happens beyond {limits - _BEYOND.keys()}"
    for path, beyond in _BEYOND.items():
        row = table[path]
        meaning = row.about.text.split(". ")[0].rstrip(".")
        yield f"| `{path}`: {meaning[0].lower()}{meaning[1:]} | `{row.default}` | {beyond} |"


def _of_client() -> Iterator[str]:
    from k2store.client.settings import ClientSettings

    defaults = ClientSettings()
    meanings = _meanings(ClientSettings.__doc__ or "")
    for name, beyond in _CLIENT.items():
        yield f"| `{name}`: {meanings[name]} | `{getattr(defaults, name)}` | {beyond} |"


def _meanings(docstring: str) -> dict[str, str]:
    """What the docstring of a settings class says of each field, a line a field."""
    pairs = (line.strip().split(maxsplit=1) for line in docstring.splitlines())
    return {pair[0]: pair[1].split(";")[0] for pair in pairs if len(pair) == 2}
