"""Addresses of a store: `k2://host:port,host2:port`."""

from __future__ import annotations

from typing import Final

from k2store.errors import Rejected

SCHEME: Final = "k2://"
PORT_DEFAULT: Final = 7400


def parse(address: str) -> tuple[str, ...]:
    """The `host:port` entries of an address, in the order they are tried."""
    rest = address.removeprefix(SCHEME)
    if "://" in rest:
        raise Rejected(f"{address!r} is not an address of a store: use {SCHEME}", field="address")
    found = tuple(_entry(address, part.strip()) for part in rest.rstrip("/").split(","))
    return tuple(dict.fromkeys(found))


def _entry(address: str, part: str) -> str:
    host, colon, port = part.rpartition(":")
    bracketed = part.startswith("[")
    if not colon or (bracketed and part.endswith("]")):
        host, port = part, str(PORT_DEFAULT)
    if not host or (":" in host and not bracketed):
        raise Rejected(
            f"{address!r} has no host in {part!r}; expected {SCHEME}host:port", field="address"
        )
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise Rejected(f"{address!r}: {port!r} is not a port", field="address")
    return f"{host}:{port}"
