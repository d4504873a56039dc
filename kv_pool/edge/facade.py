"""The pool in the words of other indexers: HTTP and JSON, as Mooncake's Conductor and Dynamo's indexer.

::

    POST /register        an engine's event socket: a relay makes it a member
    POST /unregister      its life ends, its blocks are void
    GET  /workers         who is there
    POST /query           how much of a prompt is held, by its tokens
    POST /query_by_hash   the same, by the names that engines gave its blocks
    GET  /dump            every run that counts
    GET  /health          whether answers are current

Both dialects are understood. A query that says ``model`` is answered in Conductor's form, in tokens::

    {
        "default": {
            "node1": {"longest_matched": 256, "GPU": 128, "CPU": 256, "DISK": 0, "DP": {"0": 256}}
        }
    }

and one that says ``model_name`` in Dynamo's, in blocks: ``{"scores": {"node1": {"0": 2}}}``. Answers
are hints of the local learner. They are about every worker of the directory, whoever registered it, in
all regions; one of another region is called ``region/name``.

A worker stands for an instance and its data-parallel rank, ``name.dpN``. Tokens can be named only where
blocks have names that anybody can compute (`Scheme.K2`, `Scheme.XXH3`); for engines with names of their own
ask by hash.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from http import HTTPStatus
from types import TracebackType
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
from msgspec import Struct

import k2store
from kv_pool.blocks import NAME_BYTES, Names, alias, chain, is_weak, root
from kv_pool.edge.engine_sockets import EngineSockets
from kv_pool.edge.http_server import Answer
from kv_pool.edge.relay import Relay
from kv_pool.edge.scopes import Scopes, salt_of
from kv_pool.keys import Worker
from kv_pool.namespace import Kind, Namespace, Scheme
from kv_pool.records import State, Tier

if TYPE_CHECKING:
    from kv_pool.edge.following import Tree
    from kv_pool.edge.pool import Pool

T = TypeVar("T", bound=Struct)

INSTANCES_MAX: Final = 1_024
_RANKED: Final = re.compile(r"(.+)\.dp(\d+)", re.ASCII)
_SCHEMES: Final = {
    "sglang": Scheme.SGLANG_INT64,
    "mooncake": Scheme.XXH3,
}
_MEDIA: Final = {"GPU": (Tier.DEVICE,), "CPU": (Tier.HOST,), "DISK": (Tier.DISK, Tier.SHARED)}


class Register(Struct, frozen=True, rename={"model": "modelname", "salt": "additionalsalt"}):
    """The body of /register. `model_name` is Dynamo's word for `modelname`."""

    instance_id: str | int
    endpoint: str
    model: str = ""
    model_name: str = ""
    block_size: int = 16
    type: str = "vLLM"
    replay_endpoint: str | None = None
    lora_name: str | None = None
    tenant_id: str = "default"
    dp_rank: int = 0
    salt: str | None = None


class Unregister(Struct, frozen=True):
    """The body of /unregister; without a rank all ranks go."""

    instance_id: str | int
    tenant_id: str = "default"
    dp_rank: int | None = None


class Query(Struct, frozen=True):
    """The body of /query and /query_by_hash, in either dialect."""

    model: str = ""
    model_name: str = ""
    lora_name: str | None = None
    token_ids: list[int] | None = None
    seq_hashes: list[int | str] | None = None
    block_hash: list[int | str] | None = None
    block_hashes: list[int | str] | None = None
    tenant_id: str = "default"
    instance_id: str | int | None = None
    block_size: int = 0
    cache_salt: str | None = None


class Instance(Struct, frozen=True):
    """An engine that was registered here."""

    worker: Worker
    tenant: str
    relay: Relay
    task: asyncio.Task[None]


class Facade:
    """See the module; `handle` is for an `HttpServer`. Open inside ``async with``.

    base      what no registration says of a namespace: revision, type, layout
    adapters  sha256 of the content of adapters, by name
    """

    def __init__(
        self, pool: Pool, tree: Tree, base: Namespace, adapters: Mapping[str, bytes]
    ) -> None:
        self._pool = pool
        self._tree = tree
        self._base = base
        self._adapters = adapters
        self._instances: dict[Worker, Instance] = {}
        self._stacks: dict[Worker, AsyncExitStack] = {}
        self._routes: dict[tuple[str, str], Callable[[bytes], Awaitable[Answer]]] = {
            ("POST", "/register"): self._register,
            ("POST", "/unregister"): self._unregister,
            ("GET", "/workers"): self._workers,
            ("POST", "/query"): self._query,
            ("POST", "/query_by_hash"): self._query_by_hash,
            ("GET", "/dump"): self._dump,
            ("GET", "/health"): self._health,
        }

    async def __aenter__(self) -> Facade:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Relays end; their workers live until their leases run out."""
        for stack in self._stacks.values():
            await stack.aclose()

    async def handle(self, method: str, path: str, body: bytes) -> Answer:
        """Answer a request."""
        route = self._routes.get((method, path))
        if route is not None:
            return await route(body)
        if path in {known for _, known in self._routes}:
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, {"error": f"{method} is not for {path}"})
        paths = sorted({known for _, known in self._routes})
        return Answer(HTTPStatus.NOT_FOUND, {"error": f"there are {', '.join(paths)}"})

    # ------------------------------------------------------------------------- members

    async def _register(self, body: bytes) -> Answer:
        said = _read(Register, body)
        worker = self._worker(said.instance_id, said.dp_rank)
        if worker in self._instances:
            raise k2store.Rejected(f"{worker} is registered here already", field="instance_id")
        if len(self._instances) >= INSTANCES_MAX:
            raise k2store.Overloaded(f"{INSTANCES_MAX} engines are relayed here", limit="instances")
        if not said.endpoint.startswith(("tcp://", "ipc://")):
            raise k2store.Rejected(f"{said.endpoint!r} is no tcp:// or ipc://", field="endpoint")
        base = self._namespace(said)
        stack = AsyncExitStack()
        sockets = stack.enter_context(EngineSockets(said.endpoint, said.replay_endpoint or ""))
        relay = Relay(
            self._pool,
            worker,
            sockets,
            Scopes(base, self._adapters),
            endpoints=(said.endpoint,),
        )
        task = asyncio.get_running_loop().create_task(relay.run(), name=f"relay of {worker}")

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        stack.push_async_callback(end)
        self._stacks[worker] = stack
        self._instances[worker] = Instance(worker, said.tenant_id, relay, task)
        return _done("registered successfully", instance_id=str(said.instance_id))

    async def _unregister(self, body: bytes) -> Answer:
        said = _read(Unregister, body)
        gone = []
        for worker, instance in sorted(self._instances.items()):
            name, rank = _ranked(worker.name)
            if (name, instance.tenant) != (str(said.instance_id), said.tenant_id):
                continue
            if said.dp_rank not in {None, rank}:
                continue
            await self._stacks.pop(worker).aclose()
            del self._instances[worker]
            await instance.relay.leave()
            gone.append(f"{name}|{instance.tenant}|{rank}")
        if not gone:
            message = f"no instance {said.instance_id} of {said.tenant_id} is registered here"
            return Answer(HTTPStatus.NOT_FOUND, {"error": message})
        return _done("unregistered successfully", removed_instances=gone)

    async def _workers(self, _: bytes) -> Answer:
        found: dict[str, dict[str, object]] = {}
        for worker in self._tree.known_workers():
            identity = self._tree.identity(worker)
            if identity is None or identity.state == State.FENCED:
                continue
            name, rank = self._called(worker)
            ranks = found.setdefault(name, {})
            instance = self._instances.get(worker)
            ranks[str(rank)] = {
                "endpoint": identity.endpoints[0] if identity.endpoints else "",
                "state": State(identity.state).name.lower(),
                "suspect": identity.suspect,
                "incarnation": identity.incarnation,
                "connected": None if instance is None else instance.relay.figures.is_connected,
            }
        return Answer(
            HTTPStatus.OK,
            [
                {
                    "instance_id": name,
                    "endpoints": {rank: one["endpoint"] for rank, one in ranks.items()},  # type: ignore[index]
                    "ranks": ranks,
                }
                for name, ranks in sorted(found.items())
            ],
        )

    # ------------------------------------------------------------------------- queries

    async def _query(self, body: bytes) -> Answer:
        said = _read(Query, body)
        tokens = said.token_ids
        if tokens is None:
            raise k2store.Rejected("a query states token_ids", field="token_ids")
        found = self._namespaces(said)
        named = [(digest, ns, _named(digest, ns, tokens)) for digest, ns in found]
        parts = [(digest, ns, names) for digest, ns, names in named if names is not None]
        if found and not parts:
            raise k2store.Rejected(
                "engines name these blocks in their own way: ask by hash", field="token_ids"
            )
        return self._matched(said, parts)

    async def _query_by_hash(self, body: bytes) -> Answer:
        said = _read(Query, body)
        hashes = said.seq_hashes or said.block_hashes or said.block_hash
        if hashes is None:
            raise k2store.Rejected("a query by hash states seq_hashes", field="seq_hashes")
        try:
            names = b"".join(
                [alias(one if isinstance(one, int) else bytes.fromhex(one)) for one in hashes]
            )
        except ValueError as error:
            raise k2store.Rejected(f"not a hash: {error}", field="seq_hashes") from None
        return self._matched(said, [(digest, ns, names) for digest, ns in self._namespaces(said)])

    def _matched(self, said: Query, parts: Sequence[tuple[bytes, Namespace, Names]]) -> Answer:
        """How much each instance has, as the best of the namespaces that are asked."""
        longest: dict[str, dict[int, int]] = {}
        media: dict[str, dict[str, int]] = {}
        wanted = None if said.instance_id is None else str(said.instance_id)
        for digest, namespace, names in parts:
            tokens = namespace.block_tokens if said.model else 1
            for worker, blocks in self._tree.workers(digest, names).items():
                name, rank = self._called(worker)
                if wanted in {None, name}:
                    ranks = longest.setdefault(name, {})
                    ranks[rank] = max(ranks.get(rank, 0), blocks * tokens)
            for holder, blocks in self._tree.match(digest, names).depths.items():
                name, _ = self._called(holder.worker)
                for medium, tiers in _MEDIA.items():
                    if holder.tier in tiers:
                        known = media.setdefault(name, {})
                        known[medium] = max(known.get(medium, 0), blocks * tokens)
        ranked = {
            name: {str(rank): depth for rank, depth in sorted(ranks.items())}
            for name, ranks in sorted(longest.items())
        }
        if not said.model:
            return Answer(HTTPStatus.OK, {"scores": ranked, "as_of": self._tree.as_of})
        instances = {
            name: {
                "longest_matched": max(ranks.values()),
                **{medium: media.get(name, {}).get(medium, 0) for medium in _MEDIA},
                "DP": ranks,
            }
            for name, ranks in ranked.items()
        }
        return Answer(HTTPStatus.OK, {said.tenant_id: instances})

    async def _dump(self, _: bytes) -> Answer:
        """Every run as an event that stores it; engines' 64-bit hashes are numbers, others hexadecimal."""
        events = []
        for number, (worker, tier, digest, run) in enumerate(self._tree.learner.valid_runs()):
            name, rank = self._called(worker)
            width = len(run.engine) * NAME_BYTES // len(run.names)
            live = run.live_names()
            blocks = [
                _shown(live[at : at + NAME_BYTES], run.engine[at // NAME_BYTES * width :][:width])
                for at in range(0, len(live), NAME_BYTES)
            ]
            stored = {
                "parent_hash": _shown(run.parent, b"") if run.depth else None,
                "start_position": run.depth,
                "blocks": [{"block_hash": block} for block in blocks],
            }
            event = {"event_id": number, "data": {"stored": stored}, "dp_rank": rank}
            events.append(
                {
                    "worker_id": name,
                    "namespace": digest.hex(),
                    "storage_tier": Tier(tier).name.lower(),
                    "event": event,
                }
            )
        return Answer(HTTPStatus.OK, events)

    async def _health(self, _: bytes) -> Answer:
        failed = [str(w) for w, one in self._instances.items() if one.task.done()]
        failure = self._tree.failure
        return Answer(
            HTTPStatus.OK if failure is None else HTTPStatus.SERVICE_UNAVAILABLE,
            {
                "status": "ok" if failure is None else failure.message,
                "as_of": self._tree.as_of,
                "staleness_s": self._tree.staleness_s,
                "relays": len(self._instances),
                "ended_relays": failed,
            },
        )

    # -------------------------------------------------------------------------- inside

    def _worker(self, instance: str | int, rank: int) -> Worker:
        try:
            if not 0 <= rank < 65_536:
                raise ValueError(f"{rank} is no rank")
            return Worker(self._pool.region, f"{instance}.dp{rank}")
        except ValueError as error:
            raise k2store.Rejected(str(error), field="instance_id") from None

    def _called(self, worker: Worker) -> tuple[str, int]:
        """What a worker is called here: instance and rank."""
        name, rank = _ranked(worker.name)
        return (name if worker.region == self._pool.region else f"{worker.region}/{name}"), rank

    def _namespace(self, said: Register) -> Namespace:
        scheme = _SCHEMES.get(said.type.lower(), self._base.scheme)
        changes: dict[str, object] = {
            "tenant": said.tenant_id,
            "model": said.model or said.model_name or self._base.model,
            "block_tokens": said.block_size,
            "scheme": scheme,
            "salt": salt_of(said.salt or ""),
        }
        if said.lora_name:
            content = self._adapters.get(said.lora_name)
            if content is None:
                raise k2store.Rejected(
                    f"nobody has told the content of the adapter {said.lora_name!r}",
                    field="lora_name",
                )
            changes |= {"kind": Kind.ADAPTER, "adapter": content}
        try:
            return msgspec.structs.replace(self._base, **changes)
        except ValueError as error:
            raise k2store.Rejected(str(error), field="namespace") from None

    def _namespaces(self, said: Query) -> list[tuple[bytes, Namespace]]:
        """Those that a query is about: whatever their names, revision and layout."""
        model = said.model or said.model_name
        if not model:
            raise k2store.Rejected("a query states its model", field="model")
        adapter = b""
        if said.lora_name:
            known = self._adapters.get(said.lora_name)
            if known is None:
                return []
            adapter = known
        salt = salt_of(said.cache_salt or "")
        return [
            (digest, one)
            for digest, one in self._tree.learner.known_namespaces().items()
            if (one.model, one.tenant, one.adapter, one.salt, one.attention)
            == (model, said.tenant_id, adapter, salt, "full")
            and said.block_size in {0, one.block_tokens}
        ]


def _ranked(name: str) -> tuple[str, int]:
    """The name of a worker as instance and rank."""
    found = _RANKED.fullmatch(name)
    return (found[1], int(found[2])) if found is not None else (name, 0)


def _named(digest: bytes, namespace: Namespace, tokens: list[int]) -> Names | None:
    """Names of a prompt's blocks; None where only the engine knows how it names them."""
    try:
        if namespace.scheme is Scheme.K2:
            return chain(root(digest, namespace.seed), tokens, namespace.block_tokens).names
        if namespace.scheme is Scheme.XXH3:
            return _xxh3_names(namespace, tokens)
    except (ValueError, OverflowError) as error:
        raise k2store.Rejected(
            f"tokens are numbers of 32 bits: {error}", field="token_ids"
        ) from None
    return None


def _xxh3_names(namespace: Namespace, tokens: list[int]) -> Names:
    """Rolling XXH3-64 over each block's own hash; the first is the block's own."""
    import xxhash

    seed = int.from_bytes(namespace.seed, "little") if namespace.seed else 0
    size = namespace.block_tokens
    names = []
    before: int | None = None
    for at in range(0, len(tokens) - size + 1, size):
        body = b"".join([token.to_bytes(4, "little") for token in tokens[at : at + size]])
        own = xxhash.xxh3_64_intdigest(body, seed)
        if before is not None:
            both = before.to_bytes(8, "little") + own.to_bytes(8, "little")
            own = xxhash.xxh3_64_intdigest(both, seed)
        before = own
        names.append(alias(own))
    return b"".join(names)


def _shown(name: bytes, engine: bytes) -> int | str:
    """A block's hash as the engine gave it, as far as that is known."""
    if is_weak(name):
        return int.from_bytes(name[8:], "big")
    return (engine or name).hex()


def _read(kind: type[T], body: bytes) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise k2store.Rejected(f"not a body for this: {error}", field="body") from None


def _done(status: str, **fields: object) -> Answer:
    return Answer(HTTPStatus.OK, {"status": status, **fields})
