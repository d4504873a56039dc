"""What may be said of blocks that were decoded under a retention policy: that they are sparse.

The directory offers a block for another by its name alone, and a name covers its namespace. So sparse
blocks live in a namespace of their own, which states the policy, and whose prompts begin with the exact blocks
of the prompt: those stay publishable, and what comes after them can be found only by who asks for sparse
blocks of this very policy. Nothing is ever offered as exact that is not.
"""

from __future__ import annotations

import msgspec

from kv_pool.namespace import Kind, Namespace
from serving.sparse.policies import Policy


def residency_namespace(exact: Namespace, policy: Policy) -> Namespace:
    """Where blocks that were decoded under a policy are published.

    ``exact`` itself for a policy that drops nothing and attends to all; else a namespace behind it. Blocks of the
    prompt are published in ``exact`` in any case. ``ValueError`` where ``exact`` is no namespace of exact blocks.
    """
    if exact.kind is not Kind.EXACT:
        raise ValueError(f"blocks of kind {exact.kind.name.lower()} have no sparse form")
    if not policy.retention:
        return exact
    return msgspec.structs.replace(
        exact, kind=Kind.SPARSE, retention=policy.retention, parent=exact.digest()
    )
