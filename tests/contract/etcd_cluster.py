"""Real etcd members on this machine, for tests: started, killed, found out who leads."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PATIENCE_S = 60.0


class EtcdCluster:
    """Members 0..n-1, each a process with a folder of its own."""

    def __init__(
        self, folder: Path, members: int, certified: tuple[str, str, str] | None = None
    ) -> None:
        """`certified`: PEM files of certificate, key and authority for the clients' side."""
        self._folder = folder
        self._certified = certified
        self._scheme = "https" if certified else "http"
        ports = free_ports(2 * members)
        self._client = [f"127.0.0.1:{port}" for port in ports[:members]]
        self._peer = [f"http://127.0.0.1:{port}" for port in ports[members:]]
        self._processes: dict[int, subprocess.Popen] = {}
        for member in range(members):
            self.start(member)
        for member in range(members):
            self.wait_healthy(member)

    @property
    def endpoints(self) -> list[str]:
        """Where clients reach the members, `host:port`."""
        return list(self._client)

    def start(self, member: int) -> None:
        """Start a member, for the first time or again."""
        cluster = ",".join(f"m{number}={peer}" for number, peer in enumerate(self._peer))
        log = (self._folder / f"m{member}.log").open("ab")
        self._processes[member] = subprocess.Popen(
            [
                "etcd",
                *("--name", f"m{member}", "--data-dir", str(self._folder / f"m{member}")),
                *("--listen-client-urls", f"{self._scheme}://{self._client[member]}"),
                *("--advertise-client-urls", f"{self._scheme}://{self._client[member]}"),
                *self._tls("--cert-file", "--key-file", "--trusted-ca-file"),
                *(("--client-cert-auth",) if self._certified else ()),
                *("--listen-peer-urls", self._peer[member]),
                *("--initial-advertise-peer-urls", self._peer[member]),
                *("--initial-cluster", cluster, "--initial-cluster-state", "new"),
                *("--initial-cluster-token", self._folder.name),
                *("--heartbeat-interval", "50", "--election-timeout", "500"),
                *("--logger", "zap", "--log-level", "error"),
            ],
            stdout=log,
            stderr=log,
        )
        log.close()

    def wait_healthy(self, member: int) -> None:
        """Return when a member serves linearizable reads."""
        deadline = time.monotonic() + PATIENCE_S
        while self._ask(self._client[member], "endpoint", "health") is None:
            assert time.monotonic() < deadline, (self._folder / f"m{member}.log").read_text()

    def leader(self) -> int:
        """The member that leads."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for member, process in self._processes.items():
                if process.poll() is None:
                    told = self._ask(self._client[member], "endpoint", "status")
                    status = told[0]["Status"] if told else {}
                    if status and status["header"]["member_id"] == status["leader"]:
                        return member
        raise AssertionError("no member leads")

    def kill(self, member: int) -> None:
        """As `kill -9`."""
        process = self._processes[member]
        process.send_signal(signal.SIGKILL)
        process.wait()

    def pause(self, member: int) -> None:
        """A member that hangs: its sockets stay open, and nothing comes out of them."""
        self._processes[member].send_signal(signal.SIGSTOP)

    def resume(self, member: int) -> None:
        """It goes on."""
        self._processes[member].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End all members."""
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def _tls(self, *options: str) -> list[str]:
        files = self._certified or ()
        return [word for pair in zip(options, files, strict=False) for word in pair]

    def _ask(self, endpoint: str, *words: str) -> list | None:
        endpoint = f"{self._scheme}://{endpoint}"
        said = ["--endpoints", endpoint, *self._tls("--cert", "--key", "--cacert")]
        done = subprocess.run(
            ["etcdctl", *said, "-w", "json", "--command-timeout", "2s", *words],
            capture_output=True,
            check=False,
            text=True,
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin:/usr/local/bin"},
        )
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else None


def installed() -> bool:
    """Whether the distribution's etcd is there."""
    return shutil.which("etcd") is not None and shutil.which("etcdctl") is not None


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@contextmanager
def etcd_cluster(
    folder: Path, members: int, certified: tuple[str, str, str] | None = None
) -> Iterator[EtcdCluster]:
    """A cluster that ends with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = EtcdCluster(folder, members, certified)
    try:
        yield cluster
    finally:
        cluster.stop()
