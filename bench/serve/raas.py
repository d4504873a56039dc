"""Retention policies on the probe model: how many chains reach their end, and what is held meanwhile.

Every budget is far below the fifty tokens that a block spans, so that no window can do it; the window stands
in the table to show that. The probe was trained to look at what it must remember, which a model of its size
does not do by itself: the share of heads that do is reported beside the accuracy, and figures hold for models
that attend in this way.

RaaS: arXiv 2502.11147; its accuracy is about Quest's there, with the memory of a window.
"""

from __future__ import annotations

from typing import Final

from bench.serve.part import Findings, Options, Table
from serving.model.probe import load_probe
from serving.sparse.experiment import PAGE_TOKENS, Outcome, run_chains
from serving.sparse.policies import Dense, HeavyHitters, Policy, Quest, RaaS, Window

CHAINS, CHAINS_QUICK = 32, 8
CHAINS_LONG = 2
BUDGETS: Final = (16, 24, 32, 48)
BUDGETS_QUICK: Final = (48,)
BLOCKS, BLOCKS_LONG = 8, 32
LONG_BUDGET: Final = 48


def policies(budget: int) -> list[Policy]:
    """What is compared at one budget; the name of Quest says what it attends to, for it keeps all."""
    return [
        RaaS(budget),
        RaaS(budget, exact=False),
        RaaS(budget, alpha=None, exact=False),
        Quest(budget),
        Window(budget),
        HeavyHitters(budget),
    ]


def measure(options: Options) -> Findings:
    """The curve over budgets, then pages held over a decode that is four times longer."""
    model = load_probe()
    chains = CHAINS_QUICK if options.quick else CHAINS
    options.begin("raas: dense", 10.0)
    dense = run_chains(
        model, Dense(), chains=chains, seed=options.seed, blocks=BLOCKS, count_milestones=True
    )
    found = [dense]
    for budget in BUDGETS_QUICK if options.quick else BUDGETS:
        for policy in policies(budget):
            options.begin(f"raas: {policy.name}, {budget} tokens", 10.0)
            found.append(run_chains(model, policy, chains=chains, seed=options.seed, blocks=BLOCKS))
    held = []
    for policy in (Dense(), Quest(LONG_BUDGET), RaaS(LONG_BUDGET)):
        options.begin(f"raas: {policy.name}, four times longer", 15.0)
        held.append(
            run_chains(
                model, policy, chains=CHAINS_LONG, seed=options.seed, blocks=BLOCKS_LONG
            ).resident_pages
        )
    return _findings(found, dict(zip(("dense", "quest", "raas"), held, strict=True)))


def _findings(found: list[Outcome], held: dict[str, list[int]]) -> Findings:
    milestones = found[0].milestones
    assert milestones is not None, "they are counted on the dense run"
    quarters = {
        name: [pages[len(pages) * quarter // 4 - 1] for quarter in (1, 2, 3, 4)]
        for name, pages in held.items()
    }
    document = {
        "chains": found[0].chains,
        "tokens_a_chain": len(found[0].resident_pages) + 1,
        "page_tokens": PAGE_TOKENS,
        "policies": [
            {
                "policy": each.policy,
                "budget_tokens": each.budget_tokens,
                "exact_chains": each.exact,
                "first_error_step": each.first_error,
                "resident_pages_max": max(each.resident_pages),
            }
            for each in found
        ],
        "resident_pages_by_quarter_of_a_longer_decode": quarters,
        "heads": milestones.heads,
        "heads_with_milestones": milestones.heads_with,
        "milestone_tokens": milestones.tokens,
        "returns": milestones.returns,
        "prompt_share_of_returns": milestones.prompt_returns,
    }
    rows = [
        (
            each.policy,
            each.budget_tokens or "all",
            f"{each.exact:.2f}",
            f"{each.first_error:.0f}",
            max(each.resident_pages),
        )
        for each in found
    ]
    columns = ("policy", "decode tokens", "exact chains", "first error", "pages held")
    longer = [(name, *pages) for name, pages in quarters.items()]
    heads = f"{milestones.heads_with} of {milestones.heads} heads have milestones"
    return Findings(
        {"raas": document},
        [
            Table(f"Chains of the probe under retention policies ({heads})", columns, rows),
            Table(
                f"Pages held in a layer, {BLOCKS_LONG // BLOCKS} times longer, by quarter",
                ("policy", "1st", "2nd", "3rd", "4th"),
                longer,
            ),
        ],
    )
