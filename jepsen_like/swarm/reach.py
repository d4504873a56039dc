"""Probes that these swarms are not meant to hit, each with the reason and what hits it instead."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

OUT_OF_REACH: Final[Mapping[str, str]] = MappingProxyType(
    {
        "clock.outside_bound": "clocks keep their bound; `k2 check sim --violate-clock` lets them go",
        "disk.create_failed_full": "runs are shorter than a log segment, so no file is made late",
        "disk.flipped": "a healthy disk; damage has tests of its own",
        "disk.misdirected": "a healthy disk; damage has tests of its own",
        "disk.read_failed": "a healthy disk; damage has tests of its own",
        "network.datagram_doubled": "the store uses streams; tests of the simulator use datagrams",
        "network.datagram_lost": "the store uses streams; tests of the simulator use datagrams",
        "network.datagram_overtaken": "the store uses streams; tests of the simulator use datagrams",
        "network.send_queue_full": "no client is that slow; a scripted test is",
        "process.crashed_itself": "the store has no crash points of its own",
    }
)
"""Name to reason."""
