"""Policies by name, as workers are told them. Loading this module loads no torch: command lines have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import k2store

if TYPE_CHECKING:
    from serving.sparse.policies import Policy

POLICIES: Final = ("dense", "window", "h2o", "quest", "raas")


def policy_named(name: str, budget_tokens: int, page_tokens: int) -> Policy:
    """A policy; `k2store.Rejected` for one that is none, or could keep nothing.

    budget_tokens  decoded tokens that stay (quest: that are attended to), in whole pages; 0 for no limit

    RaaS goes by the rule that asks nothing of a model: what matters is the better half.
    """
    from serving.sparse.policies import Dense, HeavyHitters, Quest, RaaS, Window

    if 0 < budget_tokens < page_tokens:
        raise k2store.Rejected(f"a budget is at least a page of {page_tokens}", field="budget")
    budget = budget_tokens or None
    match name:
        case "dense" if budget is None:
            return Dense()
        case "window":
            return Window(budget)
        case "h2o":
            return HeavyHitters(budget)
        case "quest" if budget is not None:
            return Quest(budget)
        case "raas":
            return RaaS(budget, alpha=None)
        case "dense":
            raise k2store.Rejected("who keeps all has no budget", field="budget")
        case "quest":
            raise k2store.Rejected(
                "quest has a budget: how many tokens are attended to", field="budget"
            )
        case _:
            raise k2store.Rejected(f"policies are {', '.join(POLICIES)}", field="retain")
