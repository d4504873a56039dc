"""Limits of an engine."""

from __future__ import annotations

from msgspec import Struct

import k2store


class EngineSettings(Struct, frozen=True, kw_only=True):
    """What an engine takes on.

    step_tokens_max  tokens that one step computes; longer prompts are computed in chunks
    sequences_max    sequences that run at a time
    waiting_max      sequences that wait; who comes then is told to come later
    context_tokens   longest sequence, prompt and answer together; 0 for what the model was made for
    keeps_prefixes   full pages go into the index and prompts look there; off, every prompt is computed
    """

    step_tokens_max: int = 512
    sequences_max: int = 16
    waiting_max: int = 256
    context_tokens: int = 0
    keeps_prefixes: bool = True

    def check(self) -> None:
        """`k2store.Rejected` for limits under which nothing runs."""
        for name in ("step_tokens_max", "sequences_max", "waiting_max"):
            if getattr(self, name) < 1:
                raise k2store.Rejected(f"{name} is at least 1", field=name)
        if self.sequences_max > self.step_tokens_max:
            raise k2store.Rejected(
                "a step has a token for every running sequence: sequences_max is at most "
                f"{self.step_tokens_max}",
                field="sequences_max",
            )
