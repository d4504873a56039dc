"""`k2 node run`, `k2 dev`, `k2 status` and `k2 node drain` as processes, with their signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from click.testing import CliRunner

import k2store
from k2store.cli.group import k2 as verbs
from k2store.v1 import admin_pb2, admin_pb2_grpc

K2 = (sys.executable, "-c", "from k2store.cli.group import main; main()")
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("K2_")}
TIMEOUT_S = 20


@contextmanager
def started(
    folder: Path, *arguments: str
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A verb that runs until told to end, and the document of its ready line."""
    command = [*K2, *arguments, "--json", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (folder / "log").read_text()
        yield process, json.loads(line)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(TIMEOUT_S)
        process.stdout.close()


def k2(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and error stream of a verb that ends by itself."""
    done = subprocess.run(
        [*K2, *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_node_runs_is_shown_and_drains(tmp_path: Path) -> None:
    """Ready line, `k2 status` in both forms, `k2 node drain`, exit code 0; data are there again."""

    async def put(address: str) -> None:
        async with k2store.connect(f"k2://{address}") as db:
            await db.put(b"k", b"v")

    async def get(address: str) -> bytes | None:
        async with k2store.connect(f"k2://{address}") as db:
            return await db.get(b"k")

    run = ("node", "run", "--data", "data", "--name", "fra-1")
    with started(tmp_path, *run) as (process, ready):
        assert (ready["node"], ready["clock_source"], ready["clock_assumed"]) == (
            "fra-1",
            "declared",
            True,
        )
        assert ready["data"] == str(tmp_path / "data")
        address = ready["address"]
        asyncio.run(put(address))
        shown = CliRunner().invoke(verbs, ["status", "--address", address, "--json"])
        status = json.loads(shown.stdout)
        assert (shown.exit_code, status["state"]) == (0, "SERVING")
        assert status["clock"]["commits"] == 1
        watched = CliRunner().invoke(
            verbs, ["status", "--address", address, "--watch", "--interval", "0", "--count", "2"]
        )
        assert watched.stdout.count("fra-1 SERVING") == 2
        assert "SERVING for" in CliRunner().invoke(verbs, ["status", "--address", address]).stdout
        drained = CliRunner().invoke(verbs, ["node", "drain", "--address", address, "--json"])
        assert (drained.exit_code, json.loads(drained.stdout)) == (0, {"draining": address})
        assert process.wait(TIMEOUT_S) == 0
    nobody = CliRunner().invoke(verbs, ["status", "--address", address])
    assert nobody.exit_code == 3
    assert "no node answers" in nobody.stderr
    with started(tmp_path, *run) as (process, ready):
        assert asyncio.run(get(ready["address"])) == b"v"
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    events = [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()]
    assert events.count("node.ready") == events.count("node.stopped") == 2


def test_the_first_signal_waits_for_transactions_the_second_does_not(tmp_path: Path) -> None:
    """SIGTERM lets an open transaction go on; a second SIGTERM ends the process at once."""

    async def hold(process: subprocess.Popen[str], address: str) -> None:
        async with k2store.connect(f"k2://{address}", timeout=10) as db:
            await db.put(b"k", b"v")
            async for txn in db.transactions(attempts=1):
                async with txn:
                    await txn.get(b"k")
                    process.send_signal(signal.SIGTERM)
                    async with grpc.aio.insecure_channel(address) as channel:
                        admin = admin_pb2_grpc.AdminServiceStub(channel)
                        state = ""
                        while state != "DRAINING":
                            state = (await admin.GetStatus(admin_pb2.GetStatusRequest())).state
                            await txn.get(b"k")
                    assert process.poll() is None
                    process.send_signal(signal.SIGTERM)
                    await asyncio.to_thread(process.wait, TIMEOUT_S)
                    raise KeyError("the node has gone")

    patient = ("--set", "node.drain_timeout=10m")
    with started(tmp_path, *patient, "node", "run", "--data", "data") as (process, ready):
        with pytest.raises(KeyError):
            asyncio.run(hold(process, ready["address"]))
        assert process.returncode == 0


def test_a_drain_is_waited_for(tmp_path: Path) -> None:
    """`k2 node drain --wait` goes on while a transaction is open, and ends once the node has gone."""

    async def hold(address: str) -> subprocess.Popen[str]:
        async with k2store.connect(f"k2://{address}", timeout=10) as db:
            async for txn in db.transactions(attempts=1):
                async with txn:
                    txn.put(b"k", b"v")
                    await txn.get(b"other")
                    command = [*K2, "node", "drain", "--wait", "--address", address]
                    drain = subprocess.Popen(
                        command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
                    )
                    assert drain.stdout is not None
                    begun = await asyncio.to_thread(drain.stdout.readline)
                    assert "drains" in begun
                    await txn.get(b"k")
                    assert drain.poll() is None
        return drain

    patient = ("--set", "node.drain_timeout=10m")
    with started(tmp_path, *patient, "node", "run", "--data", "data") as (process, ready):
        drain = asyncio.run(hold(ready["address"]))
        assert drain.stdout is not None
        with drain.stdout:
            assert drain.wait(TIMEOUT_S) == 0
        assert process.wait(TIMEOUT_S) == 0
        nobody = CliRunner().invoke(verbs, ["status", "--address", ready["address"]])
        assert nobody.exit_code == 3


def test_two_nodes_share_neither_data_nor_port(tmp_path: Path) -> None:
    """A second node on the same folder or port ends with exit code 3 and says why."""
    with started(tmp_path, "node", "run", "--data", "data") as (_, ready):
        code, _, err = k2(tmp_path, "node", "run", "--data", "data", "--listen", "127.0.0.1:0")
        assert code == 3, err
        other = ("--data", "other", "--listen", ready["address"], "--admin", "127.0.0.1:0")
        code, _, err = k2(tmp_path, "node", "run", *other)
        assert code == 3, err
        assert "cannot listen" in err


def test_dev_needs_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    """`k2 dev --single` serves from a folder of its own, tells rates, and removes the folder at Ctrl-C."""
    with started(tmp_path, "dev", "--single", "--interval", "0.05") as (process, ready):
        assert process.stdout is not None
        rates = json.loads(process.stdout.readline())
        assert rates["state"] == "SERVING"
        assert rates["commits_per_s"] == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
        assert not Path(ready["data"]).exists()
