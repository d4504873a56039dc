"""An embedded control plane behind a gRPC port, in the caller's loop or as a process to be killed.

python tests/contract/control_server.py FOLDER PORT
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from k2store.control.embedded import EmbeddedControl
from k2store.control.service import ControlMethods
from k2store.v1 import control_pb2_grpc
from tests.contract.etcd_cluster import free_ports


@asynccontextmanager
async def served(folder: Path, port: int = 0) -> AsyncIterator[str]:
    """Serve the folder's control plane; gives `host:port`."""
    control = EmbeddedControl(folder)
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    control_pb2_grpc.add_ControlServiceServicer_to_server(ControlMethods(control), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
        await control.close()


class Server:
    """The same as a process of its own, at one address however often it is started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_ports(1)[0]
        self.address = f"127.0.0.1:{self._port}"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self._folder), str(self._port)],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
        )
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        assert said.decode().strip() == self.address, "its errors stand above"

    def kill(self) -> None:
        """As `kill -9`; one that was never started is dead enough."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()


async def _main(folder: str, port: str) -> None:
    async with served(Path(folder), int(port)) as address:
        sys.stdout.write(address + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
