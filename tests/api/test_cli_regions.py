"""`k2 regions` against a control plane behind a gRPC port, and against a real etcd."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from k2store.cli.group import k2
from k2store.cli.regions import keyspace_of
from k2store.config import load
from k2store.control import Keyspace, join
from k2store.control.opening import operator_control
from k2store.errors import Rejected
from tests.contract.control_server import Server
from tests.contract.etcd_cluster import etcd_cluster, installed

Run = Callable[..., Result]

KEYSPACES = ("--keyspace", "default:region:fra", "--keyspace", "fra:zone:fra:automatic")


@pytest.fixture(
    params=[
        "k2",
        pytest.param(
            "etcd",
            marks=[
                pytest.mark.etcd,
                pytest.mark.skipif(not installed(), reason="etcd is not installed"),
            ],
        ),
    ]
)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A control plane, by its address."""
    if request.param == "k2":
        server = Server(tmp_path / "control")
        server.start()
        yield f"k2://{server.address}"
        server.kill()
    else:
        with etcd_cluster(tmp_path / "etcd", 1) as cluster:
            yield f"etcd://{cluster.endpoints[0]}/test"


@pytest.fixture
def run(address: str, tmp_path: Path) -> Run:
    """Run `k2 regions ...` in this process."""

    def call(*arguments: str, code: int = 0) -> Result:
        settings = tmp_path / "empty.toml"
        settings.touch()
        words = ["--config", str(settings), "regions", *arguments, "--control", address]
        result = CliRunner().invoke(k2, words)
        assert result.exit_code == code, result.output
        return result

    return call


def enter(address: str, *regions: str) -> None:
    """Nodes n1, n2, ... join, in these regions."""

    async def main() -> None:
        control = operator_control(load(env={}).settings, address)
        for number, region in enumerate(regions, 1):
            await join(control, f"n{number}", region, f"h{number}:7400", bytes([number]))
        await control.close()

    asyncio.run(main())


def test_init_makes_keyspaces_once(run: Run, address: str) -> None:
    """After the nodes have joined: keyspaces with partitions; a second time changes nothing."""
    enter(address, "fra", "fra", "fra", "iad", "sin")
    made = json.loads(run("init", *KEYSPACES, "--nodes", "5", "--json").stdout)
    assert [one["name"] for one in made["keyspaces"]] == ["default", "fra"]
    assert [one["voters"] for one in made["partitions"]] == [[1, 4, 5], [1, 2, 3], [1, 4, 5]]
    assert json.loads(run("init", *KEYSPACES, "--nodes", "5", "--json").stdout) == made
    table = run("init", *KEYSPACES).stdout
    assert "n1 n2 n3" in table
    refused = run("init", "--keyspace", "fra:zone:iad", code=2)
    assert "exists" in refused.stderr


def test_init_waits_for_nodes(run: Run, address: str) -> None:
    """It goes on when the last node joins; without it, exit code 3 and nothing made."""
    enter(address, "fra")
    late = run("init", *KEYSPACES, "--nodes", "2", "--timeout", "0.3", code=3)
    assert "1 of 2 nodes" in late.stderr
    assert json.loads(run("status", "--json").stdout)["partitions"] == []
    joining = threading.Timer(0.5, enter, (address, "fra", "iad"))
    joining.start()
    made = json.loads(run("init", *KEYSPACES, "--nodes", "2", "--json").stdout)
    joining.join()
    assert [one["voters"] for one in made["partitions"]] == [[1, 2], [1], [1, 2]]


def test_status_and_keyspaces_show_the_map(run: Run, address: str) -> None:
    """Tables for people, the map for programs; before anything was made there is nothing."""
    empty = json.loads(run("status", "--json").stdout)
    assert (empty["version"], empty["nodes"]) == (0, [])
    assert run("keyspaces").stdout == ""
    enter(address, "fra", "iad")
    run("init", "--keyspace", "default:zone:fra", "--keyspace", r"odd:\xff:region:iad")
    text = run("status").stdout
    for expected in ("n1", "h2:7400", "default", r"\xff", "odd", "zone", "any"):
        assert expected in text, text
    rows = json.loads(run("keyspaces", "--json").stdout)["keyspaces"]
    assert rows == [
        {
            "keyspace": "default",
            "prefix": "",
            "survive": "zone",
            "home": "fra",
            "promote": "operator",
            "partitions": 1,
        },
        {
            "keyspace": "odd",
            "prefix": r"\xff",
            "survive": "region",
            "home": "iad",
            "promote": "operator",
            "partitions": 1,
        },
    ]
    told = json.loads(run("status", "--json").stdout)
    assert told["nodes"][0] == {
        "id": 1,
        "name": "n1",
        "region": "fra",
        "address": "h1:7400",
        "disk": "01",
        "admin": "",
        "starts": 0,
        "life": "",
    }
    assert told["partitions"][1]["start"] == r"\xff"


def test_nobody_there_is_exit_code_3(tmp_path: Path) -> None:
    """An address at which nothing listens is told, with the address."""
    for address in ("k2://127.0.0.1:1", "etcd://127.0.0.1:1"):
        words = ["--set", "client.deadline=300ms", "regions", "status", "--control", address]
        result = CliRunner().invoke(k2, words)
        assert result.exit_code == 3
        assert "127.0.0.1:1" in result.stderr


@pytest.mark.parametrize(
    "text, means",
    [
        ("default:region:fra", Keyspace("default", b"", "region", "fra")),
        ("fra:zone:fra", Keyspace("fra", b"fra/", "zone", "fra")),
        ("fra:f\\x00:zone:fra", Keyspace("fra", b"f\x00", "zone", "fra")),
        ("x::zone:fra:automatic", Keyspace("x", b"", "zone", "fra", "automatic")),
        ("fra:zone", None),
        ("fra:zone:fra:sometimes", None),
        ("fra:planet:fra", None),
        ("a:b:c:zone:fra", None),
        ("", None),
    ],
)
def test_keyspaces_on_the_command_line(text: str, means: Keyspace | None) -> None:
    """NAME[:PREFIX]:SURVIVE:HOME[:PROMOTE], or it is refused."""
    if means is None:
        with pytest.raises(Rejected, match="is not NAME"):
            keyspace_of(text)
    else:
        assert keyspace_of(text) == means
