"""An embedded control plane behind a gRPC port, in the caller's loop or as a process to be killed.

python tests/contract/control_server.py FOLDER PORT
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from k2store.control.embedded import EmbeddedControl
from k2store.control.service import ControlMethods
from k2store.v1 import control_pb2_grpc


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


async def _main(folder: str, port: str) -> None:
    async with served(Path(folder), int(port)) as address:
        sys.stdout.write(address + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
