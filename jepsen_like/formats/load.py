"""Opens a file, finds out what it is, and reads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jepsen_like.formats import edn, etcd_log, json_text, native
from jepsen_like.formats.maps import events_of, flatten
from jepsen_like.history import Event, History, HistoryError

if TYPE_CHECKING:
    from jepsen_like.transactions.columns import Transactions


def sniff(data: bytes) -> str:
    """`native`, `etcd`, `json` or `edn`, by the first bytes. Raises `HistoryError` for an empty file."""
    if data.startswith(native.MAGIC):
        return "native"
    start = data[:65536].lstrip(b" \t\r\n,\xef\xbb\xbf")
    if not start:
        raise HistoryError("the file is empty")
    if start.startswith((b"INFO", b"WARN")) or b"jepsen.util - " in start:
        return "etcd"
    compact = start[:256].translate(None, b" \t\r\n,")
    if compact.startswith((b'{"', b'[{"', b"[]", b"{}")):
        return "json"
    if start.startswith((b"{", b"[", b"(", b"#", b";")):
        return "edn"
    raise HistoryError("this is no history in EDN, JSON, msgpack or an etcd log")


def load(path: Path) -> History:
    """Reads a history. Raises `HistoryError` for what cannot be read, OSError when the file cannot be opened."""
    data = path.read_bytes()
    kind = sniff(data)
    if kind == "native":
        return native.read(data)
    try:
        if kind == "etcd":
            return History(etcd_log.read_all(data.decode()))
        if kind == "json":
            return _foreign(events_of(flatten(json_text.read_all(data))))
        return _foreign(events_of(flatten(edn.read_all(data.decode("utf-8-sig")))))
    except UnicodeDecodeError as error:
        raise HistoryError(f"byte {error.start}: not UTF-8") from error


def _foreign(events: list[Event]) -> History:
    return History(events, nil_is_a_value=False)


def load_transactions(path: Path) -> Transactions:
    """Reads a list-append history into columns, the fast way where there is one."""
    from jepsen_like.formats import quick

    data = path.read_bytes()
    kind = sniff(data)
    if kind == "native":
        return quick.transactions_of(native.read(data))
    if kind == "etcd":
        raise HistoryError("a log of etcd is no list-append history")
    try:
        return quick.transactions_in(data, kind)
    except UnicodeDecodeError as error:
        raise HistoryError(f"byte {error.start}: not UTF-8") from error
