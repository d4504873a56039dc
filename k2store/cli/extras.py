"""Which extra brings a module, for installs that are light on purpose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from k2store.errors import Rejected

EXTRA_OF: Final[Mapping[str, str]] = {
    "aetcd": "etcd",
    "cryptography": "server",
    "google.rpc": "server",
    "grpc_health": "server",
    "grpc_reflection": "server",
    "grpc_status": "server",
    "h11": "pool",
    "numpy": "check",
    "prometheus_client": "server",
    "rocksdict": "server",
    "scipy": "check",
    "sortedcontainers": "server",
    "structlog": "server",
    "torch": "serving",
    "uvloop": "server",
    "xxhash": "pool",
    "zmq": "pool",
}
"""Name of a module, or of its first part, to the extra that installs it."""


def missing_extra(error: ModuleNotFoundError) -> Rejected | None:
    """A missing module as advice on what to install; None when no extra brings it."""
    name = error.name or ""
    extra = EXTRA_OF.get(name) or EXTRA_OF.get(name.partition(".")[0])
    if extra is None:
        return None
    return Rejected(
        f"this verb needs the package {name}, which a light install leaves out: "
        f"pip install 'k2store[{extra}]'"
    )
