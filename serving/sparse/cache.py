"""Keys and values of sequences under a retention policy: the prompt in the pool, the rest in the arena."""

from __future__ import annotations

import torch
from torch import Tensor

from serving.attention.page_operations import key_bounds
from serving.pages.arena import Arena
from serving.sparse.policies import NEVER, PageBook, Policy, Seen

COLUMNS_MIN = 8


class SparseCache:
    """Some sequences that decode in step, all under one policy.

    Their prompts were computed into the pool (`serving.attention.paged`) and are only read. What they
    decode goes to pages of the arena, which belong to the sequences until `close`.
    """

    def __init__(
        self,
        policy: Policy,
        arena: Arena,
        pool: Tensor,
        tables: Tensor,
        prompt_tokens: Tensor,
        *,
        owner: int = 0,
        aligned: bool = False,
    ) -> None:
        """Begin after the prompts.

        pool           ``[pages, layers, 2, page_tokens, kv_heads, head_dim]``
        tables         ``[sequences, prompt_pages]``, padded with any page
        prompt_tokens  ``[sequences]``
        owner          of the first sequence's pages in the arena; the others' are the numbers behind it
        aligned        pages end where blocks of the whole sequence end: the first one goes on from the prompt's last
        """
        self.policy = policy
        self.page_tokens = pool.shape[3]
        self.layers = pool.shape[1]
        assert arena.tensor.shape[1:] == pool.shape[2:]
        self._arena = arena
        self._pool = pool
        self._tables = tables
        self._owner = owner
        self._prompt_tokens: list[int] = prompt_tokens.tolist()
        self._aligned = aligned
        # Rows of the first page that stay empty.
        self._skipped = prompt_tokens % self.page_tokens * aligned
        sequences, prompt_pages = tables.shape
        capacity = torch.arange(prompt_pages * self.page_tokens).view(1, prompt_pages, -1)
        self._prompt_rows = capacity < prompt_tokens[:, None, None]
        self._prompt_bounds: list[tuple[Tensor, Tensor] | None] = [None] * self.layers
        self.books = [self._empty_book(sequences) for _ in range(self.layers)]
        self.positions = prompt_tokens.clone()
        self.step = 0
        budget = policy.budget_tokens
        if budget is not None and budget < self.page_tokens:
            raise ValueError(f"a budget holds a page of {self.page_tokens} tokens, not {budget}")
        self._budget_pages = None if budget is None else budget // self.page_tokens

    @property
    def sequences(self) -> int:
        """How many sequences."""
        return len(self.positions)

    @property
    def prompt_pages(self) -> int:
        """Columns of the prompt's table."""
        return self._tables.shape[1]

    def advance(self) -> None:
        """A step is over in all layers."""
        self.step += 1
        self.positions += 1

    def append(self, layer: int, key: Tensor, value: Tensor) -> None:
        """Add a row to each sequence: ``[sequences, kv_heads, head_dim]``, keys rotated."""
        book = self.books[layer]
        every = torch.arange(self.sequences)
        offset = (self._skipped + self.step) % self.page_tokens
        for sequence in (offset == 0 if self.step else offset >= 0).nonzero()[:, 0].tolist():
            self._take_page(layer, sequence)
        book = self.books[layer]
        column = book.current
        page = book.pages[every, column]
        self._arena.tensor[page, 0, offset] = key
        self._arena.tensor[page, 1, offset] = value
        book.rows[every, column] += 1
        book.stamps[every, column] = self.step
        book.low[every, column] = torch.minimum(book.low[every, column], key)
        book.high[every, column] = torch.maximum(book.high[every, column], key)

    def rows(self, layer: int) -> tuple[Tensor, Tensor]:
        """All pages, prompt first: ``[sequences, pages, 2, page_tokens, kv_heads, head_dim]``, and which
        rows of them hold a token, ``[sequences, pages, page_tokens]``.
        """
        book = self.books[layer]
        prompt = self._pool[:, layer][self._tables]
        decoded = self._arena.tensor[book.pages]
        behind = book.first - torch.tensor(self._prompt_tokens)[:, None]
        start = ((self._skipped[:, None] + behind) % self.page_tokens)[:, :, None]
        places = torch.arange(self.page_tokens)
        filled = (places >= start) & (places < start + book.rows[:, :, None])
        return torch.cat((prompt, decoded), dim=1), torch.cat((self._prompt_rows, filled), dim=1)

    def bounds(self, layer: int) -> tuple[Tensor, Tensor]:
        """Least and greatest key of every page: ``[sequences, pages, kv_heads, head_dim]`` each."""
        known = self._prompt_bounds[layer]
        if known is None:
            keys = self._pool[:, layer, 0][self._tables]
            counts = self._prompt_rows.sum(dim=2)
            low, high = key_bounds(keys.flatten(0, 1), counts.flatten())
            shape = (*self._tables.shape, *low.shape[1:])
            known = self._prompt_bounds[layer] = (low.view(shape), high.view(shape))
        book = self.books[layer]
        return torch.cat((known[0], book.low), dim=1), torch.cat((known[1], book.high), dim=1)

    def settle(self, layer: int, seen: Seen) -> None:
        """Let the policy remember what a step showed, and let go of what is over the budget."""
        book = self.books[layer]
        self.policy.observe(book, seen)
        if self._budget_pages is None:
            return
        every = torch.arange(self.sequences)
        excess = (book.rows > 0).sum(dim=1) > self._budget_pages
        if not bool(excess.any()):
            return
        ranks = self.policy.rank(book).masked_fill(book.rows == 0, NEVER)
        ranks[every, book.current] = NEVER
        victims = ranks.argmin(dim=1)
        for sequence in excess.nonzero()[:, 0].tolist():
            column = int(victims[sequence])
            assert column != int(book.current[sequence])
            self._arena.give_back(int(book.pages[sequence, column]), self._owner + sequence)
            _empty_column(book, sequence, column)

    def block(self, sequence: int, start: int) -> Tensor | None:
        """Rows of the page of positions that begins at `start`, ``[layers, 2, page_tokens, kv_heads, head_dim]``;
        None where a layer has let go of one of them, or has not got it yet.
        """
        size = self.page_tokens
        assert self._aligned, "blocks of others lie in two pages"
        assert start % size == 0, "a block is a page of positions"
        first = max(start, self._prompt_tokens[sequence])
        head = first - start
        block = self._pool.new_empty((self.layers, *self._pool.shape[2:]))
        if head:
            page = int(self._tables[sequence, start // size])
            block[:, :, :head] = self._pool[page, :, :, :head]
        for layer, book in enumerate(self.books):
            held = (book.first[sequence] == first) & (book.rows[sequence] == size - head)
            columns = held.nonzero()
            if not len(columns):
                return None
            page = int(book.pages[sequence, columns[0, 0]])
            block[layer, :, head:] = self._arena.tensor[page, :, head:]
        return block

    def resident_pages(self) -> Tensor:
        """``[layers, sequences]``: decode pages that are held now."""
        return torch.stack([(book.rows > 0).sum(dim=1) for book in self.books])

    def close(self) -> None:
        """Give every page back."""
        for sequence in range(self.sequences):
            self._arena.release(self._owner + sequence)
        self.books = [self._empty_book(self.sequences) for _ in range(self.layers)]

    # ---------------------------------------------------------------------------------- pages

    def _take_page(self, layer: int, sequence: int) -> None:
        book = self.books[layer]
        free = (book.rows[sequence] == 0).nonzero()[:, 0]
        if not len(free):
            book = self.books[layer] = _widened(book)
            free = (book.rows[sequence] == 0).nonzero()[:, 0]
        column = int(free[0])
        book.pages[sequence, column] = self._arena.take(self._owner + sequence)
        book.first[sequence, column] = self.positions[sequence]
        book.current[sequence] = column

    def _empty_book(self, sequences: int) -> PageBook:
        heads, width = self._pool.shape[4:]
        size = (sequences, COLUMNS_MIN)

        def whole(value: int) -> Tensor:
            return torch.full(size, value, dtype=torch.int64)

        return PageBook(
            pages=whole(0),
            rows=whole(0),
            first=whole(0),
            stamps=whole(0),
            mass=torch.zeros(size),
            low=torch.full((*size, heads, width), torch.inf),
            high=torch.full((*size, heads, width), -torch.inf),
            current=torch.zeros(sequences, dtype=torch.int64),
        )


def _empty_column(book: PageBook, sequence: int, column: int) -> None:
    for tensor in (book.pages, book.rows, book.first, book.stamps, book.mass):
        tensor[sequence, column] = 0
    book.low[sequence, column] = torch.inf
    book.high[sequence, column] = -torch.inf


def _widened(book: PageBook) -> PageBook:
    """Twice as many columns, the new ones empty."""

    def doubled(tensor: Tensor, value: float) -> Tensor:
        return torch.cat((tensor, torch.full_like(tensor, value)), dim=1)

    return PageBook(
        pages=doubled(book.pages, 0),
        rows=doubled(book.rows, 0),
        first=doubled(book.first, 0),
        stamps=doubled(book.stamps, 0),
        mass=doubled(book.mass, 0),
        low=doubled(book.low, torch.inf),
        high=doubled(book.high, -torch.inf),
        current=book.current,
    )
