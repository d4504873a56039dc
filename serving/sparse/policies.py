"""What is attended to, what goes when there is too much, and what is remembered to decide that.

A policy is a value. What it knows of a sequence's pages stands in the `PageBook` of a layer, one row a
sequence, one column a decode page; it never sees keys. Budgets count decode tokens; the prompt is extra.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

NEVER: Final = torch.iinfo(torch.int64).max
"""The rank of a page that must not go."""


@dataclass
class PageBook:
    """Decode pages of some sequences in one layer; a column without rows is free.

    pages      ``[sequences, columns]``: page of the arena
    rows       how many tokens it holds
    first      position of the first of them
    stamps     step at which it last mattered
    mass       all the weight that it ever got
    low, high  ``[sequences, columns, kv_heads, head_dim]``: bounds of its keys
    current    ``[sequences]``: the column that is being filled
    """

    pages: Tensor
    rows: Tensor
    first: Tensor
    stamps: Tensor
    mass: Tensor
    low: Tensor
    high: Tensor
    current: Tensor


@dataclass(frozen=True)
class Seen:
    """What one step of one layer showed of its pages; prompt pages come first in each.

    step          number of the step
    prompt_pages  how many columns are of the prompt
    there         ``[sequences, pages]``: which columns hold anything
    bounds        ``[sequences, kv_heads, pages]``: the bound of every page's scores, scaled
    heaviest      ``[sequences, pages]``: greatest weight of a row of the page, over rows and heads
    mass          ``[sequences, pages]``: weight of the page, summed over rows and heads
    """

    step: int
    prompt_pages: int
    there: Tensor
    bounds: Tensor
    heaviest: Tensor
    mass: Tensor


class Policy(Protocol):
    """A retention policy.

    name           as in reports
    budget_tokens  decode tokens that stay, in whole pages; None where all of them do
    retention      what a namespace of blocks decoded under it is told; empty where they are what the model computes
                   over all that came before
    """

    @property
    def name(self) -> str: ...

    @property
    def budget_tokens(self) -> int | None: ...

    @property
    def retention(self) -> str: ...

    def select(self, bounds: Tensor, there: Tensor, prompt_pages: int, page_tokens: int) -> Tensor:
        """``[sequences, kv_heads, pages]``: which pages are attended to."""
        ...

    def observe(self, book: PageBook, seen: Seen) -> None:
        """Remember what a step showed."""
        ...

    def rank(self, book: PageBook) -> Tensor:
        """``[sequences, columns]``: the least goes first; `NEVER` for what must stay."""
        ...


@dataclass(frozen=True)
class Dense:
    """Keeps and attends to all."""

    name: str = "dense"
    budget_tokens: None = None
    retention: str = ""

    def select(self, bounds: Tensor, there: Tensor, prompt_pages: int, page_tokens: int) -> Tensor:
        """All."""
        return everything(bounds, there)

    def observe(self, book: PageBook, seen: Seen) -> None:
        """Nothing to remember."""

    def rank(self, book: PageBook) -> Tensor:
        """Nothing goes."""
        return torch.full_like(book.stamps, NEVER)


@dataclass(frozen=True)
class Window:
    """The prompt and the newest tokens: sink and recent window (StreamingLLM, arXiv 2309.17453)."""

    budget_tokens: int | None
    name: str = "window"

    @property
    def retention(self) -> str:
        """See `Policy`."""
        return retention(self.name, self.budget_tokens)

    def select(self, bounds: Tensor, there: Tensor, prompt_pages: int, page_tokens: int) -> Tensor:
        """All that is left."""
        return everything(bounds, there)

    def observe(self, book: PageBook, seen: Seen) -> None:
        """Nothing to remember."""

    def rank(self, book: PageBook) -> Tensor:
        """The oldest goes."""
        return book.first


@dataclass(frozen=True)
class HeavyHitters:
    """H2O (arXiv 2306.14048) over pages: half of the budget is the newest, half the heaviest so far."""

    budget_tokens: int | None
    name: str = "h2o"

    @property
    def retention(self) -> str:
        """See `Policy`."""
        return retention(self.name, self.budget_tokens)

    def select(self, bounds: Tensor, there: Tensor, prompt_pages: int, page_tokens: int) -> Tensor:
        """All that is left."""
        return everything(bounds, there)

    def observe(self, book: PageBook, seen: Seen) -> None:
        """Add up what pages got."""
        book.mass += seen.mass[:, seen.prompt_pages :]

    def rank(self, book: PageBook) -> Tensor:
        """By mass; the newest half of the budget stays."""
        newest = book.first.amax(dim=1, keepdim=True)
        recent = book.first > newest - (self.budget_tokens or 0) // 2
        # Places in the order of mass: ranks are integers, and ties go by age.
        order = torch.argsort(book.mass + book.first * 1e-9, dim=1)
        places = torch.empty_like(order)
        places.scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))
        return places.masked_fill(recent, NEVER)


@dataclass(frozen=True)
class Quest:
    """Keeps all and attends to the pages with the greatest bounds (arXiv 2406.10774), by KV head.

    The prompt and the current page are always attended to. Its authors keep the first two layers dense,
    which in a model of four would be half of it: here none is.
    """

    attended_tokens: int
    name: str = "quest"
    budget_tokens: None = None

    @property
    def retention(self) -> str:
        """See `Policy`. Nothing goes, but from the second layer on rows are of what was attended to."""
        return f"{self.name} attended={self.attended_tokens}"

    def select(self, bounds: Tensor, there: Tensor, prompt_pages: int, page_tokens: int) -> Tensor:
        """The prompt, and as many decode pages as the budget has."""
        decode = greatest(bounds[:, :, prompt_pages:], self.attended_tokens // page_tokens)
        selected = everything(bounds, there).clone()
        selected[:, :, prompt_pages:] &= decode
        return selected

    def observe(self, book: PageBook, seen: Seen) -> None:
        """Nothing to remember: bounds are made from keys."""

    def rank(self, book: PageBook) -> Tensor:
        """Nothing goes."""
        return torch.full_like(book.stamps, NEVER)


@dataclass(frozen=True)
class RaaS:
    """Lets go of the pages that have not mattered for the longest time.

    alpha            a page matters at a step where its weight exceeds this; None for the rule that the
                     better half of the decode pages matters
    exact            weight is the page's true greatest weight of a row; else a softmax over the bounds
    prompt_tokens    of a long prompt, attend only to pages with the greatest bounds, so many tokens (the
                     hybrid with Quest); None attends to all of it
    """

    budget_tokens: int | None
    alpha: float | None = 0.1
    exact: bool = True
    prompt_tokens: int | None = None

    @property
    def name(self) -> str:
        """See `Policy`."""
        rule = "half" if self.alpha is None else f"alpha={self.alpha:g}"
        hybrid = "" if self.prompt_tokens is None else f" prompt={self.prompt_tokens}"
        return f"raas {rule} {'max' if self.exact else 'bound'}{hybrid}"

    @property
    def retention(self) -> str:
        """See `Policy`. Who attends to a part of the prompt computes other rows, whatever it keeps."""
        if self.budget_tokens is None and self.prompt_tokens is not None:
            return self.name
        return retention(self.name, self.budget_tokens)

    def select(self, bounds: Tensor, there: Tensor, prompt_pages: int, page_tokens: int) -> Tensor:
        """All that is left, of the prompt perhaps only the best."""
        selected = everything(bounds, there)
        if self.prompt_tokens is not None:
            best = greatest(bounds[:, :, :prompt_pages], self.prompt_tokens // page_tokens)
            selected = selected.clone()
            selected[:, :, :prompt_pages] &= best
        return selected

    def observe(self, book: PageBook, seen: Seen) -> None:
        """Stamp what matters now."""
        weight = seen.heaviest if self.exact else estimated(seen)
        weight = weight[:, seen.prompt_pages :]
        if self.alpha is not None:
            matters = weight > self.alpha
        else:
            there = seen.there[:, seen.prompt_pages :]
            median = weight.masked_fill(~there, torch.nan).nanmedian(dim=1, keepdim=True).values
            matters = weight >= median
        book.stamps.masked_fill_(matters & (book.rows > 0), seen.step)

    def rank(self, book: PageBook) -> Tensor:
        """The oldest stamp goes; of equal ones the page that is older itself."""
        return book.stamps * (1 << 32) + book.first


def everything(bounds: Tensor, there: Tensor) -> Tensor:
    """Every page that holds anything, for every head."""
    return there[:, None].expand(bounds.shape)


def greatest(bounds: Tensor, count: int) -> Tensor:
    """A mask of the pages with the greatest bounds, so many in each row."""
    count = min(max(1, count), bounds.shape[2])
    chosen = torch.zeros_like(bounds, dtype=torch.bool)
    return chosen.scatter_(2, bounds.topk(count, dim=2).indices, value=True)


def estimated(seen: Seen) -> Tensor:
    """``[sequences, pages]``: a softmax over the bounds of the pages, the greatest over the heads."""
    bounds = seen.bounds.masked_fill(~seen.there[:, None], -torch.inf)
    return torch.softmax(bounds, dim=2).amax(dim=1)


def retention(name: str, budget_tokens: int | None) -> str:
    """The name of a policy that drops; empty where its budget has no end."""
    return "" if budget_tokens is None else f"{name} budget={budget_tokens}"
