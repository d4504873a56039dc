"""Bearer tokens from a file: who a caller is, and what it may do.

The file has one line a token; `#` starts a comment::

    # token (or its SHA-256)   principal   permissions
    jT1x…                      router-fra  read
    sha256:9f86d0…             worker-7    read,write
    Zc8k…                      operator    read,write,admin

Tokens are opaque secrets; make one with `openssl rand -base64 32`. Only their SHA-256 is kept in
memory, and a presented token is compared with every line in constant time, so an answer's timing
tells nothing about what the file holds. The file is read again when it has changed. A changed file
that cannot be read or understood leaves the last good one in force: a typing error locks nobody
out, and `problem` says so until it is mended. A node does not start with a bad file.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from pathlib import Path
from typing import Final

import msgspec

from k2store.errors import Rejected

_HASHED: Final = "sha256:"
_FIELD: Final = "auth.tokens"


class Permission(enum.Enum):
    """What a principal may do; none implies another."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class Principal(msgspec.Struct, frozen=True):
    """Who calls, and what it may do."""

    name: str
    permissions: frozenset[Permission]


class TokenFile:
    """The tokens of one file, read again when it changes."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises Rejected (`auth.tokens`) when it is missing or malformed."""
        self._path = path
        self._seen = self._stamp()
        self._principals = _read(path)
        self.problem = ""

    def find(self, token: str) -> Principal | None:
        """Whose token that is, by the file as it is now."""
        self.reload()
        digest = hashlib.sha256(token.encode()).digest()
        found = None
        for known, principal in self._principals.items():
            if hmac.compare_digest(known, digest):
                found = principal
        return found

    def stands(self, principal: Principal) -> bool:
        """Whether the file, as last read, still has that principal with these permissions."""
        return principal in self._principals.values()

    def reload(self) -> bool:
        """Read the file if it has changed; True when other tokens are in force now."""
        seen = self._stamp()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            principals = _read(self._path)
        except Rejected as refusal:
            self.problem = refusal.message
            return False
        self.problem = ""
        changed = principals != self._principals
        self._principals = principals
        return changed

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _read(path: Path) -> dict[bytes, Principal]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"cannot read the token file {path}: {error}", field=_FIELD) from error
    principals: dict[bytes, Principal] = {}
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        # Neither the line nor any part of it may appear in a message: it holds the secret.
        if len(words) != 3:
            raise Rejected(
                f"{path}:{number}: expected `TOKEN PRINCIPAL PERMISSIONS`, separated by spaces",
                field=_FIELD,
            )
        token, name, permissions = words
        digest = _digest(token, f"{path}:{number}")
        if digest in principals:
            raise Rejected(f"{path}:{number}: this token stands there twice", field=_FIELD)
        try:
            granted = frozenset(Permission(word) for word in permissions.split(","))
        except ValueError:
            known = ", ".join(permission.value for permission in Permission)
            raise Rejected(
                f"{path}:{number}: permissions are a comma-separated list of {known}", field=_FIELD
            ) from None
        principals[digest] = Principal(name, granted)
    if not principals:
        raise Rejected(f"the token file {path} holds no token: nobody could call", field=_FIELD)
    return principals


def _digest(token: str, where: str) -> bytes:
    if not token.startswith(_HASHED):
        return hashlib.sha256(token.encode()).digest()
    try:
        digest = bytes.fromhex(token.removeprefix(_HASHED))
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise Rejected(f"{where}: after {_HASHED} stand 64 hexadecimal digits", field=_FIELD)
    return digest
