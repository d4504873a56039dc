"""Who gets in: TLS, client certificates, bearer tokens, permissions; and what never gets out."""

from __future__ import annotations

import asyncio
import hashlib
import io
import shutil
from pathlib import Path

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

import k2store
from k2store import errors
from k2store.config.settings import Tls
from k2store.errors import Rejected
from k2store.rpc.gate import PERMISSIONS, Gate, check_declared
from k2store.rpc.services import methods
from k2store.rpc.status import from_rpc_error
from k2store.rpc.tls import check_exposure, is_loopback
from k2store.rpc.tokens import Permission, TokenFile
from k2store.v1 import admin_pb2, admin_pb2_grpc, store_pb2, store_pb2_grpc
from tests.integration.rpc_node import Authority, keeper, running_node

READER = "reader-secret-1"
WRITER = "writer-secret-2"
OPERATOR = "operator-secret-3"


def token_file(folder: Path) -> Path:
    """A file with one token of each kind; the writer's stands there hashed."""
    hashed = hashlib.sha256(WRITER.encode()).hexdigest()
    path = folder / "tokens"
    path.write_text(
        f"# who may call\n{READER} router read\nsha256:{hashed} worker read,write # two\n\n"
        f"{OPERATOR} operator read,write,admin\n"
    )
    return path


async def refusal(
    channel: grpc.aio.Channel, path: str, request_bytes: bytes, token: str | None
) -> errors.K2Error | None:
    """How a unary call with a token ends: None when it was admitted."""
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    call = channel.unary_unary(path)
    try:
        await call(request_bytes, metadata=metadata)
    except grpc.aio.AioRpcError as failure:
        error = from_rpc_error(failure)
        fields = error.details()
        return error if fields.get("field") in {"token", "permission"} else None
    return None


# ------------------------------------------------------------------------------- exposure


@pytest.mark.parametrize(
    "address,loopback",
    [
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("unix:/tmp/x", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example.org:1", False),
        (":1", False),
    ],
)
def test_beyond_loopback_needs_tls_or_plain_words(address: str, loopback: bool) -> None:
    """Without a certificate only loopback is listened on, unless the settings say otherwise."""
    assert is_loopback(address) is loopback
    check_exposure(address, Tls(insecure=True))
    check_exposure(address, Tls(certificate="c", key="k"))
    if loopback:
        check_exposure(address, Tls())
    else:
        with pytest.raises(Rejected, match="plain text"):
            check_exposure(address, Tls())


def test_a_node_does_not_start_exposed(tmp_path: Path) -> None:
    """The rule holds where it matters: before anything is opened."""

    async def run() -> None:
        async with running_node(tmp_path, node__listen="0.0.0.0:0"):
            pass

    with pytest.raises(Rejected, match=r"tls\.insecure"):
        asyncio.run(run())
    assert not (tmp_path / "data").exists()


# ---------------------------------------------------------------------------- permissions


def test_every_method_has_a_declared_permission() -> None:
    """The table names every method that is served, and a method it lacks stops the start."""
    assert set(methods()) <= PERMISSIONS.keys()
    with pytest.raises(Rejected, match="Undeclared"):
        check_declared([*methods(), "/k2store.v1.StoreService/Undeclared"])


def test_each_token_gets_exactly_what_its_permissions_say(tmp_path: Path) -> None:
    """Every method against every token ends as a reference policy of three lines says."""
    granted = {
        None: set(),
        "wrong": set(),
        READER: {"read"},
        WRITER: {"read", "write"},
        OPERATOR: {"read", "write", "admin"},
    }

    async def run() -> None:
        tokens = str(token_file(tmp_path))
        authority = Authority(tmp_path, "authority")
        certified = authority.settings("node")
        async with (
            keeper(tmp_path, auth__tokens=tokens, node__services="pool", **certified) as node,
            grpc.aio.secure_channel(node.address, authority.credentials("client")) as channel,
        ):
            for path, needed in PERMISSIONS.items():
                if path.endswith(("Session", "Watch", "WatchMap", "Info", "List", "Drain")):
                    continue  # Not unary, or ends the node.
                if path.endswith("/Link"):
                    continue  # Asks for a node's certificate instead.
                for token, has in granted.items():
                    allowed = needed is None or needed.value in has
                    error = await refusal(channel, path, b"", token)
                    assert (error is None) is allowed, (path, token)
            for token in (None, "wrong", READER, WRITER):
                drain = "/k2store.v1.AdminService/Drain"
                assert await refusal(channel, drain, b"", token) is not None

    asyncio.run(run())


def test_sessions_follow_the_same_permissions(tmp_path: Path) -> None:
    """No token: no session. A reader's session reads and is refused every kind of write."""

    async def run() -> None:
        tokens = str(token_file(tmp_path))
        async with running_node(tmp_path, auth__tokens=tokens) as node:
            address = f"k2://{node.address}"
            for token in (None, "wrong"):
                with pytest.raises(errors.K2Error):
                    async with k2store.connect(address, token=token, timeout=0.5):
                        pass
            async with k2store.connect(address, token=WRITER) as db:
                await db.put(b"k", b"v")
            async with k2store.connect(address, token=READER) as db:
                assert await db.get(b"k") == b"v"
                with pytest.raises(Rejected, match="not write"):
                    await db.put(b"k", b"w")
                with pytest.raises(Rejected, match="not write"):
                    async for txn in db.transactions(attempts=1):
                        async with txn:
                            assert await txn.get(b"k") == b"v"
                            txn.delete(b"k")
                assert await db.get(b"k") == b"v"

    asyncio.run(run())


def test_a_revoked_token_loses_its_session(tmp_path: Path) -> None:
    """Taken out of the file, a token gets in no more and its standing session ends."""

    async def run() -> None:
        path = token_file(tmp_path)
        async with (
            asyncio.timeout(20),
            running_node(tmp_path, auth__tokens=str(path)) as node,
            k2store.connect(f"k2://{node.address}", token=WRITER, timeout=0.5) as db,
        ):
            await db.put(b"k", b"v")
            path.write_text(f"{OPERATOR} operator read,write,admin\n")
            with pytest.raises(errors.K2Error):
                while True:
                    await db.get(b"k")

    asyncio.run(run())


def test_a_broken_token_file_locks_nobody_out_and_lets_nobody_in(tmp_path: Path) -> None:
    """While the changed file does not parse, the last good tokens hold, and it is told."""
    path = token_file(tmp_path)
    tokens = TokenFile(path)
    path.write_text(f"{READER} router reed\nstranger x read\n")
    assert tokens.find(READER) is not None
    assert tokens.find("stranger") is None
    assert "reed" not in tokens.problem
    assert ":1:" in tokens.problem
    path.write_text("stranger x read\n")
    assert tokens.find(READER) is None
    assert tokens.find("stranger") is not None
    assert not tokens.problem


@pytest.mark.parametrize(
    "content",
    [
        "",
        "# nobody\n",
        "token\n",
        "token name read,fly\n",
        "a b read\na c read\n",
        "sha256:12 a read",
    ],
)
def test_a_node_does_not_start_with_bad_tokens(tmp_path: Path, content: str) -> None:
    """An empty or malformed token file is refused at the start; a missing one, too."""
    path = tmp_path / "tokens"
    with pytest.raises(Rejected):
        TokenFile(path)
    path.write_text(content)
    with pytest.raises(Rejected) as caught:
        TokenFile(path)
    assert caught.value.field == "auth.tokens"
    assert "fly" not in caught.value.message


@given(st.text(max_size=50), st.sampled_from(sorted(PERMISSIONS)))
def test_no_text_is_a_token_by_accident(
    tmp_path_factory: pytest.TempPathFactory, token: str, method: str
) -> None:
    """Whatever is presented, only a token of the file is admitted to a method with a permission."""
    gate = Gate(TokenFile(token_file(tmp_path_factory.mktemp("tokens"))))
    if PERMISSIONS[method] is None or token in {READER, WRITER, OPERATOR}:
        return
    with pytest.raises(Rejected):
        gate.admit(method, token)


def test_nobody_can_name_himself(tmp_path: Path) -> None:
    """Principal and permissions of a session come from its token, whatever its metadata claim."""
    gate = Gate(TokenFile(token_file(tmp_path)))
    claimed = {"token": READER, "k2-principal": "operator", "k2-permissions": "admin", "x": "y"}
    shown = gate.annotate(claimed)
    assert shown == {"x": "y", "k2-principal": "router", "k2-permissions": "read"}
    assert gate.stands(shown)
    assert Permission.ADMIN.value not in shown["k2-permissions"]


# ------------------------------------------------------------------------------------ TLS


def test_tls_and_client_certificates(tmp_path: Path) -> None:
    """With an authority set, only clients with its certificates get in, and plain text nobody."""
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    node_files, good, bad = ours.issue("node"), ours.issue("client"), theirs.issue("stranger")

    async def run() -> None:
        async with running_node(
            tmp_path,
            tls__certificate=node_files.certificate,
            tls__key=node_files.key,
            tls__authority=ours.file,
        ) as node:
            address = f"k2://{node.address}"
            tls = k2store.Tls(authority=ours.file, certificate=good.certificate, key=good.key)
            async with k2store.connect(address, tls=tls) as db:
                await db.put(b"k", b"v")
                assert await db.get(b"k") == b"v"
            for wrong in (
                None,
                k2store.Tls(authority=ours.file),
                k2store.Tls(authority=ours.file, certificate=bad.certificate, key=bad.key),
                k2store.Tls(authority=theirs.file, certificate=good.certificate, key=good.key),
            ):
                with pytest.raises(errors.Unavailable):
                    async with k2store.connect(address, tls=wrong, timeout=0.4):
                        pass

    asyncio.run(run())


def test_certificates_rotate_under_a_running_node(tmp_path: Path) -> None:
    """New files are used for the next connection; files that do not parse change nothing."""
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    first, second = old.issue("first"), new.issue("second")
    certificate, key = tmp_path / "node.pem", tmp_path / "node.key"
    shutil.copy(first.certificate, certificate)
    shutil.copy(first.key, key)

    async def works(address: str, authority: str) -> bool:
        tls = k2store.Tls(authority=authority)
        try:
            async with k2store.connect(address, tls=tls, timeout=0.5) as db:
                await db.get(b"k")
        except errors.Unavailable:
            return False
        return True

    async def run() -> None:
        async with running_node(
            tmp_path, tls__certificate=str(certificate), tls__key=str(key)
        ) as node:
            address = f"k2://{node.address}"
            assert await works(address, old.file)
            certificate.write_text("no certificate")
            assert await works(address, old.file)
            shutil.copy(second.key, key)
            shutil.copy(second.certificate, certificate)
            assert await works(address, new.file)
            assert not await works(address, old.file)

    asyncio.run(run())


def test_secrets_are_never_logged(tmp_path: Path) -> None:
    """No token, key or value appears in the log, whoever is admitted or refused."""
    log = io.StringIO()

    async def run() -> None:
        tokens = str(token_file(tmp_path))
        async with (
            running_node(tmp_path, log, auth__tokens=tokens) as node,
            grpc.aio.insecure_channel(node.address) as channel,
        ):
            store = store_pb2_grpc.StoreServiceStub(channel)
            bearer = (("authorization", f"Bearer {OPERATOR}"),)
            put = store_pb2.PutRequest(key=b"hidden-key", value=b"hidden-value")
            await store.Put(put, metadata=bearer)
            await refusal(channel, "/k2store.v1.StoreService/Put", b"", "guessed-secret")
            admin = admin_pb2_grpc.AdminServiceStub(channel)
            await admin.Drain(admin_pb2.DrainRequest(), metadata=bearer)
            await node.wait()

    asyncio.run(run())
    text = log.getvalue()
    assert '"principal": "operator"' in text, "admin acts are audited"
    for secret in (READER, WRITER, OPERATOR, "guessed-secret", "hidden-key", "hidden-value"):
        assert secret not in text


def test_the_page_of_security_has_every_method() -> None:
    """docs/security.md lists each method beside the permission that the table gives it."""
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text("utf-8")
    for path, needed in PERMISSIONS.items():
        (line,) = [
            line
            for line in page.splitlines()
            if line.startswith(f"| {'none' if needed is None else needed.value} |")
        ]
        assert f"`{path.rpartition('/')[2]}`" in line, path
