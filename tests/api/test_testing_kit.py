"""`k2store.testing`: the nodes it starts, and its fixtures as docs/testing.md shows them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import k2store
from k2store.testing import embedded, local_node
from tests.integration.families import remaining

PAGE = Path(__file__).resolve().parents[2] / "docs" / "testing.md"
NAMED = re.compile(r"^```\w+ (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_page_on_testing_is_true(tmp_path: Path) -> None:
    """The tests on the page pass as they stand there, with the configuration that stands there."""
    files = dict(NAMED.findall(PAGE.read_text(encoding="utf-8")))
    assert files.keys() == {"test_stock.py", "pytest.toml"}
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_a_node_can_crash_and_come_back(tmp_path: Path) -> None:
    """After a kill the node starts on the same port with every acknowledged write; settings reach
    it, and the folder that was given is kept."""
    with local_node(tmp_path / "node", limits__key="16B") as node:
        first = node.address
        with node.blocking() as db:
            db.put(b"k", b"v")
            with pytest.raises(k2store.Rejected):
                db.put(b"k" * 17, b"v")
            assert node.kill() == -9
            assert not node.running
            node.start()
            assert db.get(b"k") == b"v"
        assert (node.address, node.running) == (first, True)
        with pytest.raises(k2store.Rejected):
            node.start()
    assert not node.running
    assert (tmp_path / "node" / "data").is_dir()


def test_a_node_in_async_code() -> None:
    """`async with` starts and ends it, too; a folder that was not given is gone afterwards."""

    async def scene() -> Path:
        async with local_node() as node, node.connect() as db:
            await db.put(b"k", b"v")
            assert await db.get(b"k") == b"v"
            return node.path

    assert not asyncio.run(scene()).exists()


def test_a_node_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A refused setting comes out as `Unavailable` with what the node said last."""
    with pytest.raises(k2store.Unavailable, match=r"clock\.bound"), local_node(clock__bound="9s"):
        raise AssertionError("it runs")


def test_embedded_stores(tmp_path: Path) -> None:
    """In both forms they keep a folder that was given, and take settings."""

    async def scene() -> None:
        async with embedded(tmp_path, limits__key="16B") as db:
            await db.put(b"k", b"v")
            with pytest.raises(k2store.Rejected):
                await db.put(b"k" * 17, b"v")

    asyncio.run(scene())
    with embedded(tmp_path) as db:
        assert db.get(b"k") == b"v"


def test_the_kit_is_light() -> None:
    """Importing the kit and its plugin brings neither the engine nor the network library."""
    heavy = "{'grpc', 'google.protobuf', 'rocksdict', 'uvloop', 'structlog'}"
    code = f"import sys, k2store.testing.plugin; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_node_does_not_outlive_who_started_it() -> None:
    """A program that is killed inside the block leaves no process."""
    script = (
        "import os, signal\n"
        "from k2store.testing import local_node\n"
        "with local_node() as node:\n"
        "    print(node.process, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not remaining({int(done.stdout)})
