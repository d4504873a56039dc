"""The answers of nodes about themselves, by the names under which tests know them."""

from __future__ import annotations

from k2store.v1.admin_pb2 import REPLICA_ROLE_LEADER, GetClockResponse, GetStatusResponse

__all__ = ["REPLICA_ROLE_LEADER", "GetClockResponse", "GetStatusResponse"]
