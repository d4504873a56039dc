"""Certificates, by what TLS itself makes of them, and the verbs that make them."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import ssl
from pathlib import Path

import grpc
import grpc.aio
import pytest
from click.testing import CliRunner

from k2store.cli.group import k2
from k2store.errors import Rejected
from k2store.rpc.certificates import Authority, Files, describe, now
from k2store.rpc.identity import node_of

METHOD = "/k2.test.Who/Am"


async def ask(server: Files, client: Files, *, host: str = "127.0.0.1") -> str:
    """Connect to a server that has one certificate with another, and hear whom it takes us for."""

    async def answer(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return (node_of(context.auth_context()) or "nobody").encode()

    name, method = METHOD.strip("/").split("/")
    handler = grpc.unary_unary_rpc_method_handler(answer)
    listener = grpc.aio.server()
    listener.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(name, {method: handler}),)
    )
    serving = grpc.ssl_server_credentials(
        [(server.key.read_bytes(), server.certificate.read_bytes())],
        server.authority.read_bytes(),
        require_client_auth=True,
    )
    port = listener.add_secure_port("127.0.0.1:0", serving)
    await listener.start()
    dialling = grpc.ssl_channel_credentials(
        client.authority.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes()
    )
    options = [("grpc.ssl_target_name_override", host)]
    try:
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", dialling, options) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            said = await call(b"", timeout=10)
            return said.decode()
    finally:
        await listener.stop(1)


def handshake(server: Files, client: Files, host: str = "127.0.0.1") -> str:
    """`ask`, where a refusal by TLS is told as such."""
    try:
        return asyncio.run(ask(server, client, host=host))
    except grpc.aio.AioRpcError as error:
        return "refused" if error.code() == grpc.StatusCode.UNAVAILABLE else str(error)


def test_nodes_know_one_another_from_clients(tmp_path: Path) -> None:
    """A node is told from a client by the certificate it shows, over a real handshake."""
    authority = Authority(tmp_path)
    fra, iad = authority.node("fra-1", ["10.0.0.7"]), authority.node("iad-1", ["iad.example"])
    alice = authority.client("alice")
    assert handshake(fra, iad) == "iad-1"
    assert handshake(iad, fra) == "fra-1"
    assert handshake(fra, alice) == "nobody"


def test_a_node_serves_at_its_addresses_only(tmp_path: Path) -> None:
    """Addresses, host names, wildcards, the node's own name and loopback are good; others not."""
    authority = Authority(tmp_path)
    node = authority.node("fra-1", ["10.0.0.7", "fra.example", "*.in.example", "[fd00::1]"])
    alice = authority.client("alice")
    good = ("10.0.0.7", "fra.example", "x.in.example", "fd00::1", "fra-1", "localhost")
    assert {host: handshake(node, alice, host) for host in good} == dict.fromkeys(good, "nobody")
    bad = ("10.0.0.8", "iad.example", "x.y.in.example", "iad-1")
    assert {host: handshake(node, alice, host) for host in bad} == dict.fromkeys(bad, "refused")


def test_a_client_cannot_serve(tmp_path: Path) -> None:
    """Whoever has a client's certificate cannot stand in for a node."""
    authority = Authority(tmp_path)
    node, alice = authority.node("fra-1", []), authority.client("alice")
    assert handshake(alice, node) == "refused"


def test_another_authority_opens_nothing(tmp_path: Path) -> None:
    """Certificates of the same names by somebody else are refused, in both directions."""
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    node, stranger = ours.node("fra-1", []), theirs.node("iad-1", [])
    assert handshake(node, stranger) == "refused"
    assert handshake(node, stranger._replace(authority=node.authority)) == "refused"
    assert handshake(node, ours.node("iad-1", [])) == "iad-1"


def test_a_node_cannot_sign(tmp_path: Path) -> None:
    """A certificate that a node has signed with its own key is worth nothing."""
    authority = Authority(tmp_path / "ours")
    node, alice = authority.node("fra-1", []), authority.client("alice")
    forger = tmp_path / "forged"
    forger.mkdir()
    (forger / "authority.pem").write_bytes(node.certificate.read_bytes())
    (forger / "authority.key").write_bytes(node.key.read_bytes())
    forged = Authority(forger).node("iad-1", [])
    chain = forged.certificate.read_bytes() + node.certificate.read_bytes()
    forged.certificate.write_bytes(chain)
    assert handshake(forged._replace(authority=alice.authority), alice) == "refused"


def test_time_is_up(tmp_path: Path) -> None:
    """A certificate whose days are over is refused, and none outlives its authority."""
    Authority(tmp_path)
    past = Authority(tmp_path, clock=lambda: now() - dt.timedelta(days=3))
    alice = past.client("alice")
    assert handshake(past.node("old", [], days=2), alice) == "refused"
    assert handshake(past.node("good", [], days=4), alice) == "nobody"
    later = Authority(tmp_path, clock=lambda: now() + dt.timedelta(days=3000))
    long = describe(later.node("long", [], days=3000).certificate)
    assert long.ends == describe(later.certificate).ends


def test_keys_are_their_owners_only(tmp_path: Path) -> None:
    """Keys have mode 0600 from the start, also when renewed, and nothing half written is left."""
    for _ in range(2):
        authority = Authority(tmp_path / "made")
        files = authority.node("fra-1", [])
        for key in (files.key, tmp_path / "made" / "authority.key"):
            assert key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "authority.key",
        "authority.pem",
        "fra-1.key",
        "fra-1.pem",
    ]


def test_a_pair_fits_together_for_other_libraries(tmp_path: Path) -> None:
    """OpenSSL, by way of Python's ssl, takes the pair and verifies it strictly."""
    authority = Authority(tmp_path)
    files = authority.node("fra-1", [])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    client = ssl.create_default_context(cafile=files.authority)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    far = server.wrap_bio(to_server, to_client, server_side=True)
    near = client.wrap_bio(to_client, to_server, server_hostname="fra-1")
    for step in (near, far, near, far):
        try:
            step.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert near.getpeercert() is not None


@pytest.mark.parametrize("name", ["", "a/b", "../x", "authority", "-a", "a" * 64, "a b", "ä"])
def test_a_name_is_a_name(tmp_path: Path, name: str) -> None:
    """What cannot be a file, a host or a path of a URI is no name."""
    authority = Authority(tmp_path)
    with pytest.raises(Rejected):
        authority.node(name, [])
    with pytest.raises(Rejected):
        authority.client(name)


@pytest.mark.parametrize("address", ["", "10.0.0.7:7400", "a b", "-x", "x..y", "ü.example"])
def test_an_address_is_a_host(tmp_path: Path, address: str) -> None:
    """Ports and what is no host are refused, before any file is written."""
    authority = Authority(tmp_path)
    with pytest.raises(Rejected):
        authority.node("fra-1", [address])
    assert not (tmp_path / "fra-1.key").exists()


def test_a_broken_folder_is_told(tmp_path: Path) -> None:
    """Unreadable or mismatched files of an authority are refused, and never written over."""
    folder = tmp_path / "one"
    Authority(folder)
    other = Authority(tmp_path / "other").certificate.with_suffix(".key").read_bytes()
    for content in (other, b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        (folder / "authority.key").write_bytes(content)
        with pytest.raises(Rejected, match="key"):
            Authority(folder)
        assert (folder / "authority.key").read_bytes() == content
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(Rejected, match="cannot make"):
        Authority(file / "below")


def test_identity_needs_one_true_uri() -> None:
    """Two names, a strange name, a client's, and a host name that looks like a node are nobody."""
    assert node_of({"peer_uri": [b"k2://node/fra-1"]}) == "fra-1"
    for uris in ([], [b"k2://node/a", b"k2://node/b"], [b"k2://node/"], [b"k2://node/a/b"]):
        assert node_of({"peer_uri": uris}) is None
    assert node_of({"peer_uri": [b"k2://client/a", b"\xff"]}) is None
    assert node_of({"x509_subject_alternative_name": [b"k2://node/a"]}) is None


def test_the_verbs_make_and_show(tmp_path: Path) -> None:
    """`k2 certificates make` makes what works, again renews it, and `show` tells what is there."""
    folder = str(tmp_path / "made")
    make = ["certificates", "make", folder, "--node", "fra-1=10.0.0.7,fra.example"]
    done = CliRunner().invoke(k2, [*make, "--client", "alice", "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.output)["certificates"]
    node, alice = (
        Files(*(Path(row[column]) for column in ("certificate", "key", "authority")))
        for row in rows
    )
    assert handshake(node, alice, "fra.example") == "nobody"
    first = node.certificate.read_bytes()
    assert CliRunner().invoke(k2, [*make, "--days", "9"]).exit_code == 0
    assert node.certificate.read_bytes() != first
    assert handshake(node, alice, "fra.example") == "nobody"
    done = CliRunner().invoke(k2, ["certificates", "show", folder, "--json"])
    shown = {row["name"]: row for row in json.loads(done.output)["certificates"]}
    assert {name: row["kind"] for name, row in shown.items()} == {
        "alice": "client",
        "authority": "authority",
        "fra-1": "node",
    }
    assert shown["fra-1"]["days_left"] == 8
    assert {"10.0.0.7", "fra.example", "127.0.0.1"} <= set(shown["fra-1"]["addresses"].split())


@pytest.mark.parametrize("options", [[], ["--node", "x"], ["--node", "x="], ["--client", "a/b"]])
def test_the_verb_refuses_what_it_does_not_understand(tmp_path: Path, options: list[str]) -> None:
    """Wrong options are wrong usage: exit code 2."""
    done = CliRunner().invoke(k2, ["certificates", "make", str(tmp_path), *options])
    assert done.exit_code == 2
