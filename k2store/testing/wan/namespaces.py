"""Network namespaces, one a region, each joined to the router by a TUN device.

Needs root, ``ip`` and ``/dev/net/tun``. A slot is held by a lock that ends with its holder, whoever
kills it: whoever gets the lock next removes what the last one left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from k2store.errors import Unavailable
from k2store.testing.wan import addresses
from k2store.testing.wan.network import OUTSIDE

MTU_BYTES: Final = 9000
"""Large packets: a router in Python pays by the packet."""

DEVICE_PACKETS_MAX: Final = 10_000
LOCKS: Final = Path("/run/k2wan")
TUN: Final = Path("/dev/net/tun")
_NAMED: Final = Path("/run/netns")
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_CAP_NET_ADMIN: Final = 12
_CAP_SYS_ADMIN: Final = 21
_CAPABILITIES: Final = 1 << _CAP_NET_ADMIN | 1 << _CAP_SYS_ADMIN


def refusal() -> str | None:
    """Why this process cannot make namespaces; None when it can."""
    if not _has_capabilities():
        return "network namespaces need root, with CAP_NET_ADMIN and CAP_SYS_ADMIN"
    if shutil.which("ip") is None:
        return "the command `ip` (iproute2) is not installed"
    if not TUN.exists():
        return f"{TUN} does not exist"
    return None


def _has_capabilities() -> bool:
    """Whether this process may change networks; root in a container often may not."""
    for line in (
        Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    ):
        if line.startswith("CapEff:"):
            held = int(line.split()[1], 16)
            return os.geteuid() == 0 and held & _CAPABILITIES == _CAPABILITIES
    return False


def name(slot: int, region: str) -> str:
    """Name of a region's namespace, for `ip netns exec`."""
    return f"{_prefix(slot)}{region}"


def claim() -> tuple[int, int]:
    """Take a slot: its number, and the descriptor that holds it. Clears what the last one left."""
    LOCKS.mkdir(exist_ok=True)
    for slot in range(addresses.SLOTS):
        holder = os.open(LOCKS / str(slot), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(holder)
            continue
        clear(slot)
        return slot, holder
    raise Unavailable(f"all {addresses.SLOTS} emulated networks of this machine are in use")


def clear(slot: int) -> None:
    """Remove the namespaces of a slot; processes in them keep a network without a way out."""
    for found in sorted(_NAMED.glob(f"{_prefix(slot)}*")):
        _ip("netns", "delete", found.name)


def build(slot: int, regions: Sequence[str]) -> list[int]:
    """Make the namespaces and devices; gives the descriptors of the legs, the outside's first.

    The devices go away with their descriptors.
    """
    legs = [_open_outside(slot, len(regions))]
    for index, region in enumerate(regions, start=1):
        legs.append(_open_region(slot, index, region, len(regions)))
    return legs


def _open_outside(slot: int, regions: int) -> int:
    device = f"k2wan{slot}"
    leg = _open_device(device)
    lines = [_up(device)]
    for viewer in range(regions + 1):
        own = addresses.own_address(slot, viewer)
        lines.append(f"address add {own}/32 dev {device}")
        lines.append(f"route add {addresses.viewer_block(slot, viewer)} dev {device} src {own}")
    _ip("-batch", "-", said=lines)
    return leg


def _open_region(slot: int, index: int, region: str, regions: int) -> int:
    space, device = name(slot, region), f"k2wan{slot}r{index}"
    _ip("netns", "add", space)
    leg = _open_device(device)
    _ip("link", "set", "dev", device, "netns", space)
    own = addresses.address(slot, index, 1)
    lines = ["link set dev lo up", _up(device)]
    lines += [
        f"route add local {addresses.region_block(slot, index, viewer)} dev lo"
        for viewer in range(regions + 1)
    ]
    lines.append(f"route add default dev {device} src {own}")
    _ip("-netns", space, "-batch", "-", said=lines)
    return leg


def _up(device: str) -> str:
    return f"link set dev {device} mtu {MTU_BYTES} txqueuelen {DEVICE_PACKETS_MAX} up"


def _open_device(device: str) -> int:
    leg = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    asked = struct.pack("16sH22x", device.encode("ascii"), _IFF_TUN | _IFF_NO_PI)
    fcntl.ioctl(leg, _TUNSETIFF, asked)
    return leg


def _prefix(slot: int) -> str:
    return f"k2wan{slot}-"


def _ip(*words: str, said: Sequence[str] = ()) -> None:
    done = subprocess.run(
        ["ip", *words],
        check=False,
        capture_output=True,
        text=True,
        input="".join(line + "\n" for line in said),
    )
    if done.returncode != 0:
        raise Unavailable(f"ip {' '.join(words)} failed: {done.stderr.strip()}")


assert OUTSIDE == 0, "the outside's leg is the first"
