"""An engine over a loaded model: the shape of its pages, the name of its blocks, its tiers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct
from torch import Tensor

from kv_pool.namespace import Namespace
from kv_pool.pool.eviction import EVICTIONS, Outlook
from serving.attention import Attention, Batch, PagedAttention
from serving.engine.engine import Engine, Hooks
from serving.engine.scheduler import RemotePrefix
from serving.engine.settings import EngineSettings
from serving.linking.linker import Linker
from serving.linking.naming import chunk_namespace
from serving.model import Llama, LoadedModel
from serving.pages.geometry import PAGE_TOKENS, Geometry
from serving.pages.mem_pool import MemPool, Watcher
from serving.pages.memory import Memory, PageMemory
from serving.pages.store import PageStore
from serving.sparse.policies import Policy
from serving.sparse.publication import residency_namespace
from serving.sparse.retention import Retention, arena_pages


class Tiers(Struct, frozen=True, kw_only=True):
    """Pages of each tier; 0 leaves a tier out. The disk tier is one file at `disk_path`."""

    device: int
    host: int = 0
    disk: int = 0
    disk_path: Path | None = None


def geometry_of(model: Llama, page_tokens: int = PAGE_TOKENS) -> Geometry:
    """The shape of a model's pages, in float32."""
    config = model.config
    return Geometry(
        layers=config.layers,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        page_tokens=page_tokens,
    )


def namespace_of(loaded: LoadedModel, geometry: Geometry, tenant: str = "") -> Namespace:
    """What must be equal for blocks of this model to be equal."""
    return Namespace(
        tenant=tenant,
        model=loaded.name,
        revision=loaded.revision,
        dtype=geometry.dtype,
        layout=geometry.layout,
        block_tokens=geometry.page_tokens,
    )


def stores_of(
    geometry: Geometry, tiers: Tiers, memory: PageMemory | None = None
) -> Sequence[PageStore]:
    """Memory for the tiers; `memory` is the device tier's where peers shall reach it."""
    stores = [PageStore(geometry, tiers.device, memory=memory)]
    if tiers.host:
        stores.append(PageStore(geometry, tiers.host))
    if tiers.disk:
        assert tiers.disk_path is not None, "a disk tier has a path"
        file = Memory(tiers.disk * geometry.page_bytes, tiers.disk_path)
        stores.append(PageStore(geometry, tiers.disk, memory=file))
    return stores


def block_cost(model: Llama, page_tokens: int = PAGE_TOKENS) -> Callable[[int], float]:
    """What it takes to compute a block with so many before it, in multiplications: for eviction by cost.

    Every weight once for each token, and every row before it twice, for its key and for its value.
    """
    config = model.config
    weights = sum(weight.numel() for weight in model.weights.values())
    row = 2 * config.layers * config.query_heads * config.head_dim

    def cost(depth: int) -> float:
        return page_tokens * (weights + row * (depth + 0.5) * page_tokens)

    return cost


def paged(model: Llama, pages: Tensor, batch: Batch) -> Attention:
    """Exact attention over the pages: what every sequence of an ordinary engine gets."""
    return PagedAttention(pages, batch, model.rotary)


def engine_over(
    loaded: LoadedModel,
    tiers: Tiers,
    settings: EngineSettings | None = None,
    *,
    eviction: str = "lru",
    memory: PageMemory | None = None,
    watcher: Watcher | None = None,
    hooks: Hooks | None = None,
    remote: RemotePrefix | None = None,
    link: int | None = None,
    policy: Policy | None = None,
) -> Engine:
    """An engine with a pool of its own.

    link      rows at the beginning of each chunk that linking computes anew; None links nothing
    policy    under which answers are decoded; None keeps all
    eviction  by which policy of `kv_pool.pool.eviction.EVICTIONS` cached pages go; no other holder is known
    """
    model = loaded.model
    geometry = geometry_of(model)
    namespace = namespace_of(loaded, geometry)
    stores = stores_of(geometry, tiers, memory)
    outlook = Outlook(block_cost(model, geometry.page_tokens), lambda name: 0)
    evictions = [EVICTIONS[eviction](outlook) for _ in stores]
    pool = MemPool(namespace.digest(), stores, evictions, watcher)
    linker = None
    if link is not None:
        linker = Linker(model, pool, chunk_namespace(namespace).digest(), link)
    return Engine(
        model,
        pool,
        lambda pages, batch: paged(model, pages, batch),
        vocabulary=model.config.vocabulary,
        context_tokens=model.config.context_tokens,
        settings=settings,
        decode=loaded.tokenizer.decode,
        hooks=hooks,
        remote=remote,
        linker=linker,
        retention=retention_of(model, pool, namespace, policy, settings or EngineSettings()),
    )


def retention_of(
    model: Llama,
    pool: MemPool,
    exact: Namespace,
    policy: Policy | None,
    settings: EngineSettings,
) -> Retention | None:
    """Retention over a pool whose exact blocks are in this namespace; None where nothing is let go."""
    if policy is None:
        return None
    config = model.config
    context = min(config.context_tokens, settings.context_tokens or config.context_tokens)
    context = min(context, pool.stores[0].pages * pool.page_tokens)
    pages = arena_pages(policy, config.layers, pool.page_tokens, settings.sequences_max, context)
    sparse = residency_namespace(exact, policy)
    namespace = b"" if sparse is exact else sparse.digest()
    return Retention(policy, pool, model.rotary, pages, namespace)
