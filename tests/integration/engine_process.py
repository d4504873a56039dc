"""An engine's event sockets as a process of its own: PUB and ROUTER as vLLM has them.

Reads lines: ``say HEX`` publishes a batch under the next number, ``lose HEX`` keeps it for replays only,
``raw HEX HEX ...`` sends frames as they are. Answers each with a line.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import zmq

ENCODE = msgspec.msgpack.encode
END = (-1).to_bytes(8, "big", signed=True)


class EngineProcess:
    """The process, for ``with``. `port` and `replay_port` 0: free ones; they stay over a restart."""

    def __init__(self, *, replays: bool = True) -> None:
        self.replays = replays
        self.ports = ["0", "0"]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def events(self) -> str:
        """Where it publishes."""
        return f"tcp://127.0.0.1:{self.ports[0]}"

    @property
    def replay(self) -> str:
        """Where it replays."""
        return f"tcp://127.0.0.1:{self.ports[1]}" if self.replays else ""

    def start(self) -> None:
        """Start, on the ports that it had."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.engine_process", *self.ports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
        )
        assert self._process.stdout is not None
        self.ports = self._process.stdout.readline().split()

    def kill(self) -> None:
        """As a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.stdout.close()

    def say(self, *events: object, rank: int = 0) -> None:
        """Publish a batch."""
        self._tell(f"say {ENCODE([1.0, list(events), rank]).hex()}")

    def lose(self, *events: object) -> None:
        """A batch that is lost on its way, and kept for replays."""
        self._tell(f"lose {ENCODE([1.0, list(events), 0]).hex()}")

    def raw(self, *frames: bytes) -> None:
        """Frames as they are."""
        self._tell("raw " + " ".join([frame.hex() or "-" for frame in frames]))

    def payload(self, data: bytes) -> None:
        """A payload under the next number."""
        self._tell(f"say {data.hex()}")

    def _tell(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "ok\n"


def stored(
    *blocks: bytes, parent: bytes | None = None, medium: str = "GPU", **more: object
) -> dict:
    """An event in the form of maps."""
    return {
        "type": "BlockStored",
        "block_hashes": list(blocks),
        "parent_block_hash": parent,
        "token_ids": [0] * (16 * len(blocks)),
        "block_size": 16,
        "medium": medium,
        **more,
    }


def removed(*blocks: bytes, medium: str = "GPU") -> dict:
    """An event in the form of maps."""
    return {"type": "BlockRemoved", "block_hashes": list(blocks), "medium": medium}


def main(port: str, replay_port: str) -> None:
    """The process itself."""
    context = zmq.Context()
    publisher, router = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
    publisher.bind(f"tcp://127.0.0.1:{port if port != '0' else '*'}")
    router.bind(f"tcp://127.0.0.1:{replay_port if replay_port != '0' else '*'}")
    kept: list[bytes] = []

    def replay() -> None:
        while True:
            client, _, start = router.recv_multipart()
            for number in range(int.from_bytes(start, "big"), len(kept)):
                frames = [client, b"", b"kv", number.to_bytes(8, "big"), kept[number]]
                router.send_multipart(frames)
            router.send_multipart([client, b"", b"kv", END, b""])

    threading.Thread(target=replay, daemon=True).start()
    ports = [
        each.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2] for each in (publisher, router)
    ]
    sys.stdout.write(" ".join(ports) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        verb, *words = line.split()
        data = [b"" if word == "-" else bytes.fromhex(word) for word in words]
        if verb == "raw":
            publisher.send_multipart(data)
        else:
            kept.append(data[0] if data else b"")
            if verb == "say":
                publisher.send_multipart([b"kv", (len(kept) - 1).to_bytes(8, "big"), kept[-1]])
        sys.stdout.write("ok\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
