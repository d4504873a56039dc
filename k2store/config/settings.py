"""Every setting there is: its section, name, meaning, smallest and largest value, and default.

This module knows nothing of files and environments (``loading`` does), and holds no value that is
in force: a :class:`Settings` is passed to whoever needs it.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import msgspec

from k2store.config.quantity import Duration, Size


class About(NamedTuple):
    """What is said of a setting beside its type. Bounds are inclusive, written as in a file."""

    text: str
    least: str | None = None
    most: str | None = None


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A table of `k2.toml`; its docstring heads the table in the documentation."""


class Node(Section, frozen=True, kw_only=True):
    """Who this node is, where it listens and where its data lies."""

    name: Annotated[str, About("Name in logs, metrics and status; unique in a cluster.")] = "node-1"
    region: Annotated[str, About("Region this node stands in.")] = "local"
    oracle: Annotated[
        int,
        About(
            "Number of this node's oracle, part of every stamp; unique in a cluster.", "1", "1023"
        ),
    ] = 1
    data: Annotated[str, About("Folder of the data; made when missing.")] = "k2-data"
    listen: Annotated[
        str, About("Address of the gRPC port. Loopback unless told otherwise; port 0 picks one.")
    ] = "127.0.0.1:7400"
    reflection: Annotated[
        bool, About("Describe the services to generic clients (`grpc.reflection`).")
    ] = True
    services: Annotated[
        str,
        About(
            "Services of other packages to serve on the same port, by name, comma between. `pool`: "
            "the prompt tree of the KV pool for thin clients."
        ),
    ] = ""
    drain_timeout: Annotated[
        Duration, About("How long a stopping node lets open transactions finish.", "0s", "10m")
    ] = Duration.parse("10s")


class Cluster(Section, frozen=True, kw_only=True):
    """Being one node of several: who keeps the control plane, and how long leaders are trusted."""

    control: Annotated[
        str,
        About(
            "Who keeps the control plane. Empty: this node is alone. `embedded`: this node keeps it "
            "for the others. `k2://host:port`: the node that keeps it. "
            "`etcd://host:port,host:port,...[/PREFIX]`: an etcd; `etcds://` with TLS."
        ),
    ] = ""
    advertise: Annotated[
        str, About("Address at which the other nodes reach this one; empty: `node.listen`.")
    ] = ""
    dial: Annotated[
        str,
        About(
            "File with lines `real=dialled`: other addresses at which this node dials some of its "
            "peers, for networks that translate addresses."
        ),
    ] = ""
    lease: Annotated[
        Duration, About("How long a voter promises to keep candidates waiting.", "10ms", "1m")
    ] = Duration.parse("1s")
    lease_longest: Annotated[
        Duration,
        About(
            "Longest `lease` that was ever in force here: a voter that restarts keeps candidates "
            "waiting for so long.",
            "10ms",
            "1m",
        ),
    ] = Duration.parse("1200ms")
    renew: Annotated[Duration, About("How often a leader renews its lease.", "1ms", "10s")] = (
        Duration.parse("300ms")
    )
    patience: Annotated[
        Duration,
        About("Silence of a leader after which a voter asks for an epoch.", "10ms", "10m"),
    ] = Duration.parse("1100ms")
    split_size: Annotated[
        Size,
        About(
            "Keys and values, history included, from which on a partition is split in two; 0 for "
            "never.",
            "0B",
            "1TiB",
        ),
    ] = Size.parse("1GiB")
    close_interval: Annotated[
        Duration, About("How often a leader tells how far its history is final.", "1ms", "10s")
    ] = Duration.parse("100ms")


class Clock(Section, frozen=True, kw_only=True):
    """Where time comes from, how uncertain it is, and what is refused because of that."""

    source: Annotated[
        Literal["declared", "kernel", "file"],
        About(
            "`declared`: the system clock with `bound` as an assumption, right where every process "
            "shares one machine. `kernel`: the kernel's own estimate (adjtimex), refused while the "
            "host is not synchronised. `file`: offset, drift and bound from `file`, for faults."
        ),
    ] = "declared"
    bound: Annotated[
        Duration,
        About(
            "Width of the interval (latest minus earliest) that `declared` assumes.", "1us", "1s"
        ),
    ] = Duration.parse("500us")
    bound_max: Annotated[
        Duration,
        About(
            "No stamp is given while the interval is wider than this (ClockUncertain).", "1us", "2s"
        ),
    ] = Duration.parse("700us")
    file: Annotated[str, About("The file that the source `file` follows.")] = ""
    ahead_max: Annotated[
        Duration,
        About(
            "D: how far a stamp may lie ahead of true time; bounds the commit wait. At least "
            "`bound_max` + `stamp_ttl` + `stamp_batch` ticks of 256 ns.",
            "10us",
            "5s",
        ),
    ] = Duration.parse("1500us")
    stamp_ttl: Annotated[
        Duration, About("How long a client may hand out a batch of stamps.", "10us", "1s")
    ] = Duration.parse("500us")
    stamp_batch: Annotated[int, About("Most stamps granted at once.", "1", "100000")] = 1_000
    reservation: Annotated[
        Duration,
        About(
            "How far ahead the oracle reserves on disk; a killed node waits up to this long before "
            "its first stamp.",
            "1ms",
            "10s",
        ),
    ] = Duration.parse("500ms")


class Transactions(Section, frozen=True, kw_only=True):
    """The life of a transaction, and how long history is kept."""

    heartbeat: Annotated[
        Duration, About("How often a client shows that its transaction is alive.", "1ms", "1m")
    ] = Duration.parse("500ms")
    expiry: Annotated[
        Duration,
        About("A transaction without a heartbeat for this long may be aborted.", "5ms", "10m"),
    ] = Duration.parse("2s")
    lifetime_max: Annotated[
        Duration, About("Longest life of a transaction that writes.", "10ms", "1h")
    ] = Duration.parse("10s")
    retention: Annotated[
        Duration,
        About(
            "How far back reads, watches and backups reach; older versions are collected.",
            "1s",
            "30d",
        ),
    ] = Duration.parse("1h")
    slack_min: Annotated[
        Duration, About("Smallest distance of a closed timestamp behind the clock.", "0s", "1m")
    ] = Duration.parse("20ms")
    retry_offset_max: Annotated[
        Duration,
        About(
            "F: furthest a retried transaction is stamped ahead so that it gets through.",
            "0s",
            "1s",
        ),
    ] = Duration.parse("50ms")
    janitor: Annotated[
        Duration,
        About("Idle time after which the node asks what became of an intent.", "1ms", "1m"),
    ] = Duration.parse("500ms")


class Storage(Section, frozen=True, kw_only=True):
    """The log and the settled state on disk."""

    sync: Annotated[
        bool,
        About("Sync the log before answering. Without it a power cut loses acknowledged writes."),
    ] = True
    segment: Annotated[Size, About("Size of a preallocated log segment.", "1MiB", "4GiB")] = (
        Size.parse("32MiB")
    )
    cache: Annotated[Size, About("Memory for blocks of settled rows.", "1MiB", "1TiB")] = (
        Size.parse("64MiB")
    )
    write_buffer: Annotated[
        Size, About("Memory that gathers settled rows before they are written.", "1MiB", "16GiB")
    ] = Size.parse("32MiB")


class Limits(Section, frozen=True, kw_only=True):
    """What one caller, and all callers together, may ask for. Beyond it: Rejected or Overloaded."""

    key: Annotated[Size, About("Longest key.", "16B", "64KiB")] = Size.parse("4KiB")
    value: Annotated[
        Size, About("Longest value; a frame on the wire has 4 MiB.", "1KiB", "1MiB")
    ] = Size.parse("1MiB")
    operations: Annotated[int, About("Most operations of one transaction.", "1", "1000000")] = (
        10_000
    )
    transaction: Annotated[
        Size, About("Most bytes that one transaction may write.", "1KiB", "1GiB")
    ] = Size.parse("16MiB")
    scan_page: Annotated[int, About("Most rows of one page of a scan.", "1", "100000")] = 1_000
    open_transactions: Annotated[
        int, About("Most transactions open on this node.", "1", "10000000")
    ] = 100_000
    connections: Annotated[int, About("Most client connections.", "1", "100000")] = 4_096
    in_flight: Annotated[
        int, About("Most unanswered operations of one connection.", "1", "1000000")
    ] = 8_192
    watchers: Annotated[int, About("Most open watches.", "1", "1000000")] = 1_000
    watch_queue: Annotated[
        int,
        About("Most events that wait for one slow watcher before it is cut off.", "1", "10000000"),
    ] = 65_536
    deadline_max: Annotated[
        Duration, About("Longest deadline that a call may carry.", "10ms", "1h")
    ] = Duration.parse("5m")


class Tls(Section, frozen=True, kw_only=True):
    """Certificates of this node's ports. Empty: plain text, for loopback."""

    certificate: Annotated[str, About("PEM file of the node's certificate chain.")] = ""
    key: Annotated[str, About("PEM file of its private key.")] = ""
    authority: Annotated[
        str,
        About("PEM file of the authority of client certificates; given, each client needs one."),
    ] = ""
    insecure: Annotated[
        bool, About("Listen beyond loopback in plain text, where the network itself is trusted.")
    ] = False


class Auth(Section, frozen=True, kw_only=True):
    """Who may call."""

    tokens: Annotated[
        str, About("File of bearer tokens, one a line; given, every call needs one of them.")
    ] = ""


class Admin(Section, frozen=True, kw_only=True):
    """The HTTP port for probes and metrics."""

    listen: Annotated[
        str, About("Address of `/healthz`, `/readyz` and `/metrics`; empty opens no port.")
    ] = "127.0.0.1:7401"


class Logging(Section, frozen=True, kw_only=True):
    """What the node writes to its error stream."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], About("Least severe event that is written.")
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "text"], About("`auto`: text on a terminal, JSON elsewhere.")
    ] = "auto"


class Client(Section, frozen=True, kw_only=True):
    """What the command line and the client library assume when the caller does not say."""

    endpoint: Annotated[str, About("Where the store is.")] = "k2://127.0.0.1:7400"
    deadline: Annotated[Duration, About("Deadline of a call that states none.", "1ms", "1h")] = (
        Duration.parse("5s")
    )
    attempts_max: Annotated[
        int, About("Most attempts of one transaction, retries included.", "1", "1000")
    ] = 20
    authority: Annotated[
        str, About("PEM file of the authority that signs the node's certificate; turns TLS on.")
    ] = ""
    certificate: Annotated[str, About("PEM file of this client's certificate.")] = ""
    key: Annotated[str, About("PEM file of this client's private key.")] = ""
    token: Annotated[str, About("File that holds this client's bearer token.")] = ""


class Settings(Section, frozen=True, kw_only=True):
    """The whole tree; each field is a section."""

    node: Node = Node()
    cluster: Cluster = Cluster()
    clock: Clock = Clock()
    transactions: Transactions = Transactions()
    storage: Storage = Storage()
    limits: Limits = Limits()
    tls: Tls = Tls()
    auth: Auth = Auth()
    admin: Admin = Admin()
    logging: Logging = Logging()
    client: Client = Client()
