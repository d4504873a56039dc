"""Who may call what: a permission for every method, checked before the method runs.

Without a token file everybody who reaches the port may do everything: that is loopback, or a
network closed by client certificates. With one, a call without a known token ends UNAUTHENTICATED,
a call beyond the principal's permissions PERMISSION_DENIED, and a method that `PERMISSIONS` does
not name is refused to everybody. Probes (`grpc.health`) need no token.

The session stream is open to readers; what a reader may not do on it is stopped by
`k2store.rpc.guard`, frame by frame.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import grpc
import grpc.aio

from k2store.errors import K2Error, Rejected
from k2store.rpc.status import abort
from k2store.rpc.tokens import Permission, Principal, TokenFile

READ, WRITE, ADMIN = Permission.READ, Permission.WRITE, Permission.ADMIN

_STORE: Final = "/k2store.v1.StoreService/"
_ADMIN: Final = "/k2store.v1.AdminService/"
_CONTROL: Final = "/k2store.v1.ControlService/"
_POOL: Final = "/k2store.v1.PoolService/"
_HEALTH: Final = "/grpc.health.v1.Health/"

PERMISSIONS: Final[Mapping[str, Permission | None]] = MappingProxyType(
    {
        _STORE + "Session": READ,
        _STORE + "Get": READ,
        _STORE + "Scan": READ,
        _STORE + "Watch": READ,
        _STORE + "History": READ,
        _STORE + "Put": WRITE,
        _STORE + "Delete": WRITE,
        _STORE + "Transact": WRITE,
        _STORE + "Begin": WRITE,
        _STORE + "Commit": WRITE,
        _STORE + "Rollback": WRITE,
        # Asking may abort the transaction for good, so that the answer stays true.
        _STORE + "Outcome": WRITE,
        _ADMIN + "GetStatus": READ,
        _ADMIN + "GetClock": READ,
        _ADMIN + "GrantStamps": WRITE,
        _ADMIN + "Drain": ADMIN,
        # Nodes are known by their certificates (k2store.rpc.grpc_transport), not by tokens.
        "/k2store.v1.PeerService/Link": None,
        _CONTROL + "Load": READ,
        _CONTROL + "WatchMap": READ,
        _CONTROL + "Update": ADMIN,
        _CONTROL + "GrantEpoch": ADMIN,
        _POOL + "Match": READ,
        _POOL + "Cover": READ,
        _POOL + "Find": READ,
        _HEALTH + "Check": None,
        _HEALTH + "Watch": None,
        _HEALTH + "List": None,
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": READ,
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": READ,
    }
)
"""What each method needs; None is nothing."""

PRINCIPAL: Final = "k2-principal"
PERMISSIONS_GRANTED: Final = "k2-permissions"
"""Metadata of a session as the node sees it; entries of that beginning from callers are dropped."""

ANYBODY: Final = Principal("anybody", frozenset(Permission))
"""Who calls when no token file is set."""

Note = Callable[[str, str], None]
"""Called with principal and method for every admitted call that needs ADMIN."""


class Gate:
    """Decides about every call by the caller's metadata."""

    def __init__(self, tokens: TokenFile | None, on_admin: Note | None = None) -> None:
        self._tokens = tokens
        self._on_admin = on_admin

    def admit(self, method: str, token: str | None) -> Principal:
        """The caller; raises Rejected with field `token` or `permission`."""
        if method not in PERMISSIONS:
            raise Rejected(f"{method} is not open to anybody", field="permission")
        needed = PERMISSIONS[method]
        if self._tokens is None or needed is None:
            principal = ANYBODY
        else:
            principal = self._known(token)
            if needed not in principal.permissions:
                raise Rejected(
                    f"{principal.name} lacks the permission {needed.value} for {method}",
                    field="permission",
                )
        if needed is ADMIN and self._on_admin is not None:
            self._on_admin(principal.name, method)
        return principal

    def annotate(self, metadata: Mapping[str, str]) -> Mapping[str, str]:
        """A session's metadata without the secret, with who it is; for `GrpcListener`."""
        kept = {
            name: value
            for name, value in metadata.items()
            if name != "token" and not name.startswith("k2-")
        }
        if self._tokens is None:
            principal = ANYBODY
        else:
            principal = self._known(metadata.get("token"))
        granted = ",".join(sorted(permission.value for permission in principal.permissions))
        return MappingProxyType(kept | {PRINCIPAL: principal.name, PERMISSIONS_GRANTED: granted})

    def stands(self, metadata: Mapping[str, str]) -> bool:
        """Whether the session with that annotated metadata would be admitted today."""
        if self._tokens is None:
            return True
        granted = metadata[PERMISSIONS_GRANTED].split(",")
        principal = Principal(metadata[PRINCIPAL], frozenset(Permission(word) for word in granted))
        return self._tokens.stands(principal)

    def _known(self, token: str | None) -> Principal:
        assert self._tokens is not None
        if token is None:
            raise Rejected(
                "this node wants a bearer token: metadata `authorization: Bearer …`", field="token"
            )
        principal = self._tokens.find(token)
        if principal is None:
            raise Rejected("the token is not known here", field="token")
        return principal


class GateKeeper(grpc.aio.ServerInterceptor):
    """Puts a gate before every method of a server."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The method's own handler, or one of the same kind that refuses."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        try:
            token = _token(handler_call_details.invocation_metadata or ())
            self._gate.admit(str(handler_call_details.method), token)
        except Rejected as refusal:
            return _refusing(handler, refusal)
        return handler


def check_declared(methods: Iterable[str]) -> None:
    """Refuse to start with a method that has no declared permission."""
    missing = sorted(set(methods) - PERMISSIONS.keys())
    if missing:
        raise Rejected(
            f"methods without a declared permission: {', '.join(missing)}", field="permission"
        )


def _token(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    for name, value in metadata:
        if name == "authorization" and isinstance(value, str) and value[:7].lower() == "bearer ":
            return value[7:]
    return None


def _refusing(
    handler: grpc.RpcMethodHandler[Any, Any], error: K2Error
) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await abort(context, error)

    kinds: dict[tuple[bool, bool], Callable[..., grpc.RpcMethodHandler[Any, Any]]] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    return kinds[handler.request_streaming, handler.response_streaming](refuse)
