"""Tokens become text piece by piece: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

_BROKEN: Final = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """The text of one sequence.

    decode  tokens to text; for some tokens from the middle of a character on it ends in U+FFFD
    stop    strings before which the text ends
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str]) -> None:
        self._decode = decode
        self._stop = tuple(stop)
        self._tokens: list[int] = []
        # Tokens before `_shown` have been turned into text. Those from `_from` on are decoded with
        # the next ones, since how a token reads can depend on the one before it.
        self._from = 0
        self._shown = 0
        self._kept = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Another token; gives what may be shown now. Sets `stopped` at a stop string."""
        assert not self.stopped, "nothing comes behind the end"
        self._tokens.append(token)
        before = self._decode(self._tokens[self._from : self._shown])
        now = self._decode(self._tokens[self._from :])
        if len(now) <= len(before) or now.endswith(_BROKEN):
            return ""
        self._from, self._shown = self._shown, len(self._tokens)
        return self._show(now[len(before) :])

    def finish(self) -> str:
        """No more tokens come; gives what was kept back."""
        rest = ""
        if not self.stopped and self._shown < len(self._tokens):
            before = self._decode(self._tokens[self._from : self._shown])
            rest = self._show(self._decode(self._tokens[self._from :])[len(before) :])
        rest, self._kept = rest + ("" if self.stopped else self._kept), ""
        return rest

    def _show(self, piece: str) -> str:
        """What of the kept text and this piece can no more become part of a stop string."""
        text = self._kept + piece
        ends = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped = True
            self._kept = ""
            return text[: min(ends)]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._kept = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
