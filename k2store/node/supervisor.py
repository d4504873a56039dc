"""What the process that started a node is told: that it can be used, and that it ends.

systemd (`Type=notify`) waits for it, so that `systemctl start` returns when the node serves and not
when it begins to. The protocol is one datagram of text a state, to the socket that the environment
names in NOTIFY_SOCKET; see sd_notify(3). Without that variable nothing is told.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"
READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"


def tell(environment: Mapping[str, str], *states: str) -> str:
    """Tell the supervisor states, if there is one; returns what went wrong, or nothing.

    A supervisor that cannot be told is no reason not to serve.
    """
    address = environment.get(VARIABLE, "")
    if not address:
        return ""
    # A leading @ stands for the zero byte of an abstract address.
    place = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
            sender.sendto("\n".join(states).encode(), place)
    except OSError as error:
        return f"{VARIABLE} = {address}: {error}"
    return ""
