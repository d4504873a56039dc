"""`k2 serve` and `k2 chat` as processes, with the real model."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

from k2store.errors import Overloaded, Rejected, Unavailable
from serving.cli.conversation import Conversation

K2 = str(Path(sys.executable).parent / "k2")
WORDS_TIMEOUT_S = 300
MEGABYTE = 1024 * 1024

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass
class Worker:
    """A worker that answers."""

    process: subprocess.Popen[str]
    url: str

    def memory_bytes(self, kind: str) -> int:
        """``RssAnon`` or ``RssFile`` of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith(kind + ":"))
        return int(line.split()[1]) * 1024


@contextmanager
def worker(*options: str) -> Iterator[Worker]:
    """`k2 serve` with one thread at a free port; it must end well when told to."""
    command = [K2, "serve", "--listen", "127.0.0.1:0", "--threads", "1", "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            yield Worker(process, ready["url"])
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def chat(url: str, options: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """`k2 chat`, with its input through a pipe."""
    return subprocess.run(
        [K2, "chat", "--url", url, *options],
        input=text,
        capture_output=True,
        text=True,
        timeout=WORDS_TIMEOUT_S,
        check=False,
        env=os.environ | {"OPENAI_API_KEY": ""},
    )


def test_a_worker_answers_clients_and_shares_its_weights(tmp_path: Path) -> None:
    """OpenAI's library streams a chat; `k2 chat` asks once, and twice through a pipe, where the second turn finds
    the first one in the cache; the weights are mapped, so what is the worker's alone is small; SIGTERM
    ends it with exit code 0, and its disk tier is gone."""
    disk = tmp_path / "pages"
    options = ["--pages", "64", "--host-pages", "16", "--disk-pages", "8", "--disk-file", str(disk)]
    options += ["--eviction", "cost"]
    with worker(*options) as running:
        assert disk.exists()
        with openai.OpenAI(base_url=running.url, api_key="none", max_retries=0) as api:
            stream = api.chat.completions.create(
                model="smollm2-135m-instruct",
                messages=[{"role": "user", "content": "What is the capital of France?"}],
                temperature=0,
                max_tokens=16,
                stream=True,
            )
            pieces = [one.choices[0].delta.content or "" for one in stream]
        assert "".join(pieces) == "The capital of France is Paris."
        assert sum(1 for piece in pieces if piece) > 4
        asked = chat(running.url, ["--temperature", "0", "What is", "the capital of France?"])
        assert (asked.returncode, asked.stdout) == (0, "The capital of France is Paris.\n")
        turns = chat(
            running.url,
            ["--temperature", "0", "--max-tokens", "8", "--json", "--usage"],
            "Name a colour.\n\nName another one.\n",
        )
        assert turns.returncode == 0
        first, second = [json.loads(line) for line in turns.stdout.splitlines()]
        assert first["answer"]
        read_before = first["prompt_tokens"] + first["completion_tokens"]
        assert second["prompt_tokens"] > read_before
        assert second["cached_tokens"] >= (read_before - 1) // 16 * 16 - 16
        assert running.memory_bytes("RssFile") > 500 * MEGABYTE
        assert running.memory_bytes("RssAnon") < 400 * MEGABYTE
    assert not disk.exists()


def test_a_chat_without_a_server_says_so() -> None:
    """Nobody at the address: exit code 3 and a sentence, no traceback; a wrong address is a usage error."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    nobody = chat(f"http://127.0.0.1:{port}/v1", ["hello"])
    assert nobody.returncode == 3
    assert "does not answer" in nobody.stderr
    assert "Traceback" not in nobody.stderr
    assert chat("ftp://x", ["hello"]).returncode == 2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--listen", "0.0.0.0:0"], "--exposed"),
        (["--pages", "0"], "--pages"),
        (["--disk-pages", "4"], "--disk-file"),
        (["--key-file", "/dev/null"], "no key"),
        (["--sequences", "9", "--step-tokens", "8"], "sequences_max"),
        (["--model", "nothing.gguf"], "nothing.gguf"),
    ],
)
def test_a_worker_that_cannot_be_is_refused(options: list[str], named: str) -> None:
    """What a worker cannot be started with is a usage error that names it, before anything is loaded."""
    done = subprocess.run(
        [K2, "serve", "--listen", "127.0.0.1:0", *options],
        capture_output=True,
        text=True,
        timeout=WORDS_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("answer", "told", "error"),
    [
        (b"200 OK\r\nContent-Length: 2\r\n\r\n[]", "does not speak the API", Unavailable),
        (b'200 OK\r\nContent-Length: 11\r\n\r\n{"data":[]}', "serves no model", Unavailable),
        (b"418 Teapot\r\nContent-Length: 2\r\n\r\nno", "418 Teapot", Rejected),
        (b"502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", "502 Bad Gateway", Unavailable),
        (b"429 Slow\r\nContent-Length: 0\r\n\r\n", "429 Slow", Overloaded),
    ],
)
def test_a_server_that_is_none_is_told_apart(
    answer: bytes, told: str, error: type[Exception]
) -> None:
    """Whatever answers at the address in other words than the API's is an error of ours that says so."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def once() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 " + answer)

        thread = threading.Thread(target=once)
        thread.start()
        with pytest.raises(error, match=told):
            Conversation(f"http://127.0.0.1:{server.getsockname()[1]}/v1", None)
        thread.join()
