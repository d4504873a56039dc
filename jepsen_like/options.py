"""What a checker may be told beside the history."""

from __future__ import annotations

from collections.abc import Callable

from jepsen_like.linearizability.objects import UNSET


class Options:
    """The settings of one check. `initial` is `UNSET` when nobody gave one; `deadline_s` is on `clock`."""

    def __init__(
        self,
        *,
        consistency: str = "strict-serializable",
        initial: object = UNSET,
        timeout_s: float | None = None,
        clock: Callable[[], float],
        nil_is_a_value: bool = True,
    ) -> None:
        self.consistency = consistency
        self.initial = initial
        self.timeout_s = timeout_s
        self.nil_is_a_value = nil_is_a_value
        self.clock = clock
        self.deadline_s = None if timeout_s is None else clock() + timeout_s

    def expired(self) -> bool:
        """Whether the time given for the check is over."""
        return self.deadline_s is not None and self.clock() >= self.deadline_s
