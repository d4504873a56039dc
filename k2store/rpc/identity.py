"""Who is at the other end of a connection, as its certificate says.

A certificate of :mod:`k2store.rpc.certificates` has one URI among its alternative names:
``k2://node/NAME`` for a node, ``k2://client/NAME`` for anybody else. What a certificate without
such a URI stands for is a client without a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

NODE_SCHEME: Final = "k2://node/"
CLIENT_SCHEME: Final = "k2://client/"
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_URIS: Final = "peer_uri"


def is_name(text: str) -> bool:
    """Whether a node or client may be called so: letters, digits, ``.``, ``_`` and ``-``, to 63."""
    return _NAME.fullmatch(text) is not None


def node_of(authentication: Mapping[str, Iterable[bytes]]) -> str | None:
    """Name of the node at the other end, from gRPC's ``auth_context()``; None for all others.

    Only URIs count: a host name or address that looks like one does not make a node. The
    authority that signed is checked by TLS itself, before anything gets here.
    """
    names = [
        name
        for uri in authentication.get(_URIS, ())
        if (text := uri.decode("utf-8", "replace")).startswith(NODE_SCHEME)
        and is_name(name := text.removeprefix(NODE_SCHEME))
    ]
    return names[0] if len(names) == 1 else None
